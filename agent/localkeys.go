package agent

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/tunnox-net/tunnox/seal"
	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// LocalKeys are the keys that an agent encrypts from end to end with, its own and those of
// others.
type LocalKeys struct {
	ClientID int64      `json:"client_id"`
	Key      string     `json:"key"`
	Number   int64      `json:"number,omitempty"` // in the log; 0 = it is not proven to be there
	Next     string     `json:"next,omitempty"`   // that is to take the place of Key
	Trouble  string     `json:"trouble,omitempty"`
	Peers    []LocalKey `json:"peers"`
}

// LocalKey is the key of another client.
type LocalKey struct {
	ClientID int64  `json:"client_id"`
	Key      string `json:"key"`
	Number   int64  `json:"number,omitempty"` // in the log; 0 = the owner of this agent has named it
	Phrase   string `json:"phrase"`           // of this key and the agent's own
}

// Keys tells the agent's keys. Peer, if not 0, is a client whose key is asked for first if it
// is not known. The error says why it is not.
func (a *Agent) Keys(ctx context.Context, peer int64) (LocalKeys, error) {
	if a.seals == nil {
		return LocalKeys{}, errNoKey
	}
	pinned, _ := a.seals.peers.(PinnedKeys) // those of an agent that believes no others
	k, p := a.seals.known, a.seals.proofs
	if k != nil {
		pinned = k.pinned
	}
	if peer != 0 && k != nil {
		if _, ok := pinned[peer]; !ok {
			mapping, err := a.mappingWith(ctx, peer)
			if err != nil {
				return LocalKeys{}, err
			}
			if _, err := k.KeyOf(ctx, mapping, peer); err != nil {
				return LocalKeys{}, err
			}
		}
	}
	own := a.seals.keys.Public()
	all := LocalKeys{ClientID: a.identityID(), Key: own.String(), Peers: []LocalKey{}}
	if wanted := a.seals.keys.wanted(); wanted != own {
		all.Next = wanted.String()
	}
	add := func(client, number int64, key seal.PublicKey) {
		if client != all.ClientID && (peer == 0 || peer == client) {
			all.Peers = append(all.Peers, LocalKey{client, key.String(), number, seal.Phrase(own, key)})
		}
	}
	for client, key := range pinned {
		add(client, 0, key)
	}
	if p != nil {
		if key, number, ok := p.key(all.ClientID); ok && key == own {
			all.Number = number
		}
		if err := p.trouble(); err != nil {
			all.Trouble = err.Error()
		}
		for client := range p.now().Keys {
			if _, named := pinned[client]; named {
				continue
			}
			if key, number, ok := p.key(client); ok {
				add(client, number, key)
			}
		}
	}
	slices.SortFunc(all.Peers, func(x, y LocalKey) int { return cmp.Compare(x.ClientID, y.ClientID) })
	return all, nil
}

// mappingWith finds a mapping that has this client and a peer as its ends. 0 = there is none.
func (a *Agent) mappingWith(ctx context.Context, peer int64) (int64, error) {
	for after := int64(0); ; {
		result, err := a.Do(ctx, &wirepb.Command{Command: &wirepb.Command_ListMappings{ListMappings: &wirepb.ListMappings{After: after, Limit: 1000}}})
		if err != nil {
			return 0, err
		}
		for _, m := range result.GetMappings() {
			if m.GetSourceClientId() == peer || m.GetTargetClientId() == peer {
				return m.GetMappingId(), nil
			}
		}
		if after = result.GetNext(); after == 0 {
			return 0, nil
		}
	}
}

func (a *Agent) localKeys(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), localTimeout)
	defer cancel()
	peer, _ := strconv.ParseInt(r.URL.Query().Get("client"), 10, 64) // nonsense asks for nobody
	all, err := a.Keys(ctx, peer)
	if err != nil {
		refuseLocal(w, http.StatusConflict, "key_refused", err.Error())
		return
	}
	answerLocal(w, http.StatusOK, all)
}

func (a *Agent) localRotateKey(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), localTimeout)
	defer cancel()
	if _, err := a.RotateKey(ctx); err != nil {
		refuseLocal(w, http.StatusConflict, "not_announced", err.Error())
		return
	}
	all, err := a.Keys(ctx, 0)
	if err != nil {
		refuseLocal(w, http.StatusConflict, "not_announced", err.Error())
		return
	}
	answerLocal(w, http.StatusOK, all)
}
