package control

import (
	"bytes"
	"testing"

	"github.com/tunnox-net/tunnox/audit"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/logproof"
)

// shownTo is what an agent makes of proofs.
func shownTo(p *domain.KeyProofs) logproof.Answer {
	a := logproof.Answer{Signer: p.Signer, Checkpoint: p.Checkpoint, Grown: p.Grown}
	for _, k := range p.Keys {
		a.Keys = append(a.Keys, logproof.KeyProof{ClientID: k.ClientID, Number: k.Number, Position: int64(k.Position), Record: k.Record, Path: k.Path})
	}
	return a
}

// TestKeysAreAnnouncedAndProven: a client announces its agent's key, and those that it has a
// mapping with get it with proofs that hold, at once. Nobody else does.
func TestKeysAreAnnouncedAndProven(t *testing.T) {
	p := newPlane(t)
	secret, err := audit.NewKey()
	must(t, err)
	key, err := audit.ParseKey(secret)
	must(t, err)
	sealer, err := audit.NewSealer(p.store, audit.SealerOptions{Key: key})
	must(t, err)
	server := p.serve("", func(c *ServerConfig) { c.Proofs = audit.NewKeyProver(p.store, sealer, key.VerifierKey()) })
	client := p.dial([]string{server.address})

	user := p.user(domain.Limits{})
	source, target, stranger := p.client(user), p.client(user), p.client(user)
	const mapping = 1001
	p.submit(domain.CreateMapping{ID: mapping, UserID: user, SourceClientID: source, TargetClientID: target, Protocol: domain.ProtocolTCP,
		Parts: domain.Parts{Origin: domain.Origin{LocalPort: 1}, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 2}}})
	announce := func(who int64, b byte) []byte {
		t.Helper()
		static := bytes.Repeat([]byte{b}, 32)
		_, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: who, Announce: &domain.AnnounceKey{ID: stranger, StaticKey: static}})
		must(t, err)
		return static
	}
	ask := func(who int64, q domain.KeyQuestion) (*domain.KeyProofs, error) {
		r, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: who, Prove: &q})
		return r.Proofs, err
	}
	proven := func(known logproof.Known, who int64, keys ...domain.KeyOf) logproof.Known {
		t.Helper()
		proofs, err := ask(who, domain.KeyQuestion{Keys: keys, Known: known.Size()})
		must(t, err)
		next, err := known.Accept(shownTo(proofs))
		must(t, err)
		return next
	}

	one := announce(target, 1)
	announce(target, 1) // the same again is nothing new
	known := proven(logproof.Known{}, source, domain.KeyOf{ClientID: source}, domain.KeyOf{MappingID: mapping, ClientID: target})
	if got := known.Keys[target]; got.Number != 1 || !bytes.Equal(got.Key, one) {
		t.Errorf("proven is %+v", got)
	}
	if _, ok := known.Keys[source]; ok {
		t.Error("a client without a key has one")
	}
	records, err := p.store.ReadStream(t.Context(), domain.ClientStream(target), 0, 10)
	must(t, err)
	if len(records) < 2 || records[1].Name != "client_key_announced" || records[1].Meta.Actor != domainActor(target) || records[1].Meta.Allowed != "the client itself" {
		t.Errorf("recorded as %+v", records)
	}
	// Keys are no commands that a user takes from the agents of a client.
	for _, who := range []int64{source, target} {
		none := domain.CommandsNone
		p.submit(domain.ChangeClient{ID: who, Commands: &none})
	}
	earlier := known.Seen()
	two := announce(target, 2)
	known = proven(known, source, domain.KeyOf{MappingID: mapping, ClientID: target})
	if got := known.Keys[target]; got.Number != 2 || !bytes.Equal(got.Key, two) {
		t.Errorf("after another key proven is %+v", got)
	}
	own := proven(logproof.Known{}, target, domain.KeyOf{ClientID: target})
	if !bytes.Equal(own.Keys[target].Key, two) {
		t.Errorf("its own key is proven as %+v", own.Keys[target])
	}
	// Two that have seen different parts of one log compare them.
	proofs, err := ask(source, domain.KeyQuestion{Known: known.Size(), Seen: earlier.Size})
	must(t, err)
	if _, err := known.Compare(earlier, proofs.Between); err != nil || len(proofs.Keys) != 0 {
		t.Errorf("one log was taken for two: %v", err)
	}

	for name, tt := range map[string]struct {
		who  int64
		q    domain.KeyQuestion
		want domain.Code
	}{
		"of a client without a mapping": {stranger, domain.KeyQuestion{Keys: []domain.KeyOf{{MappingID: mapping, ClientID: target}}}, domain.CodeMappingNotFound},
		"of no mapping":                 {source, domain.KeyQuestion{Keys: []domain.KeyOf{{ClientID: target}}}, domain.CodeMappingNotFound},
		"of somebody else's mapping":    {source, domain.KeyQuestion{Keys: []domain.KeyOf{{MappingID: mapping, ClientID: stranger}}}, domain.CodeMappingNotFound},
		"too many":                      {source, domain.KeyQuestion{Keys: make([]domain.KeyOf, 17)}, domain.CodeInvalid},
		"less than nothing":             {source, domain.KeyQuestion{Known: -1}, domain.CodeInvalid},
	} {
		if _, err := ask(tt.who, tt.q); domain.CodeOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	_, err = client.Execute(t.Context(), domain.ClientCommand{ClientID: target, Announce: &domain.AnnounceKey{StaticKey: []byte("short")}})
	wantCode(t, err, domain.CodeInvalid)
	// More than was ever signed is proved by nobody; for an agent the log has lost records.
	proofs, err = ask(source, domain.KeyQuestion{Known: 1 << 40, Seen: 5})
	if err != nil || len(proofs.Grown)+len(proofs.Between) > 0 {
		t.Errorf("proofs about records that are not there: %+v, %v", proofs, err)
	}
}

// Without a tree over the log nothing is proved.
func TestAControlPlaneWithoutProofs(t *testing.T) {
	p := newPlane(t)
	client := p.dial([]string{p.serve("").address})
	who := p.client(p.user(domain.Limits{}))
	_, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: who, Prove: &domain.KeyQuestion{}})
	wantCode(t, err, domain.CodeStoreUnavailable)
}
