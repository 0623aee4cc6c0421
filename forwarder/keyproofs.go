package forwarder

import (
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// questionOf reads what an agent asks about keys.
func questionOf(in *wirepb.ProveKeys) *domain.KeyQuestion {
	q := &domain.KeyQuestion{Known: in.GetKnown(), Seen: in.GetSeen()}
	for _, key := range in.GetKeys() {
		q.Keys = append(q.Keys, domain.KeyOf{MappingID: key.GetMappingId(), ClientID: key.GetClientId()})
	}
	return q
}

// proofsMessage passes proofs on. This forwarder believes none of them and need not: the
// agent verifies.
func proofsMessage(p *domain.KeyProofs) *wirepb.KeyProofs {
	if p == nil {
		return nil
	}
	m := &wirepb.KeyProofs{Signer: p.Signer, Checkpoint: p.Checkpoint, Grown: p.Grown, Between: p.Between}
	for _, key := range p.Keys {
		m.Keys = append(m.Keys, &wirepb.KeyProof{ClientId: key.ClientID, Number: key.Number, Position: int64(key.Position), Record: key.Record, Path: key.Path})
	}
	return m
}
