package forwarder_test

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/test/pace"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// prover is a control plane that answers each command with one result.
type prover struct {
	came   chan domain.ClientCommand
	result domain.ClientResult
}

func (p *prover) Execute(_ context.Context, c domain.ClientCommand) (domain.ClientResult, error) {
	p.came <- c
	return p.result, nil
}

// What agents ask about keys, and the proofs, pass a forwarder unchanged; where an agent is
// does not go into a record that its peers get to see.
func TestKeysPassThroughAForwarder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "tls")
	p := &prover{came: make(chan domain.ClientCommand, 1), result: domain.ClientResult{Proofs: &domain.KeyProofs{Signer: "s", Checkpoint: "c", Grown: []byte("g"), Between: []byte("b"),
		Keys: []domain.KeyProof{{ClientID: 5, Number: 6, Position: 7, Record: []byte("r"), Path: []byte("p")}}}}}
	w.current().stop()
	w.commander = p
	w.start()
	who := w.client(w.user)
	a := w.agent(who)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Guard)
	defer cancel()
	key := bytes.Repeat([]byte{7}, 32)
	if r, err := a.Do(ctx, &wirepb.Command{Command: &wirepb.Command_AnnounceKey{AnnounceKey: &wirepb.AnnounceKey{StaticKey: key}}}); err != nil || r.GetCode() != "" {
		t.Fatal(r, err)
	}
	if c := <-p.came; c.ClientID != who.id || c.Announce.ID != who.id || !bytes.Equal(c.Announce.StaticKey, key) || c.Source != "" || c.Request != "" {
		t.Errorf("a key is announced as %+v, %+v", c, c.Announce)
	}
	r, err := a.Do(ctx, &wirepb.Command{Command: &wirepb.Command_ProveKeys{ProveKeys: &wirepb.ProveKeys{Known: 8, Seen: 9,
		Keys: []*wirepb.KeyOf{{MappingId: 3, ClientId: 4}, {ClientId: who.id}}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := &wirepb.KeyProofs{Signer: "s", Checkpoint: "c", Grown: []byte("g"), Between: []byte("b"),
		Keys: []*wirepb.KeyProof{{ClientId: 5, Number: 6, Position: 7, Record: []byte("r"), Path: []byte("p")}}}
	if !proto.Equal(r.GetProofs(), want) {
		t.Errorf("the proofs are %v, want %v", r.GetProofs(), want)
	}
	asked := domain.KeyQuestion{Known: 8, Seen: 9, Keys: []domain.KeyOf{{MappingID: 3, ClientID: 4}, {ClientID: who.id}}}
	if c := <-p.came; !reflect.DeepEqual(*c.Prove, asked) {
		t.Errorf("asked is %+v, want %+v", *c.Prove, asked)
	}
}
