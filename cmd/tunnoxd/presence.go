package main

import (
	"context"
	"strings"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/gather"
	"github.com/tunnox-net/tunnox/httpapi"
)

// presence gives httpapi the places of clients, from the directory. Requests at the
// same time share a round trip.
type presence struct {
	asked *gather.Gatherer[int64, directory.Presence]
}

func newPresence(d directory.Directory) presence {
	return presence{gather.New(func(ctx context.Context, clientIDs []int64) ([]directory.Presence, error) {
		return d.Lookup(ctx, clientIDs...)
	}, gather.Options{})}
}

func (p presence) Lookup(ctx context.Context, clientIDs ...int64) ([]httpapi.ClientPresence, error) {
	found, err := p.asked.Ask(ctx, clientIDs...)
	if err != nil {
		return nil, err
	}
	present := make([]httpapi.ClientPresence, len(found))
	for i, f := range found {
		present[i] = httpapi.ClientPresence{Online: f.Online, LastSeen: f.LastSeen}
		for at, s := range f.Sessions {
			if at == 0 { // the newest session
				present[i].Node, present[i].AgentVersion, present[i].Transport = s.Node, s.Version, s.Transport
				present[i].Protocols = strings.FieldsFunc(s.Protocols, func(r rune) bool { return r == ',' })
			}
			present[i].Sessions = append(present[i].Sessions, httpapi.ClientSession{Node: s.Node, Epoch: int64(s.Epoch)})
			present[i].ConfigVersion = max(present[i].ConfigVersion, s.ConfigAck)
		}
	}
	return present, nil
}
