package main

import (
	"context"

	"github.com/tunnox-net/tunnox/directory"
	"github.com/tunnox-net/tunnox/httpapi"
)

// presence tells httpapi where clients are, from the directory.
type presence struct{ directory.Directory }

func (p presence) Lookup(ctx context.Context, clientIDs ...int64) ([]httpapi.ClientPresence, error) {
	found, err := p.Directory.Lookup(ctx, clientIDs...)
	if err != nil {
		return nil, err
	}
	present := make([]httpapi.ClientPresence, len(found))
	for i, f := range found {
		present[i] = httpapi.ClientPresence{Online: f.Online, LastSeen: f.LastSeen}
		for at, s := range f.Sessions {
			if at == 0 { // the newest
				present[i].Node, present[i].AgentVersion = s.Node, s.Version
			}
			present[i].ConfigVersion = max(present[i].ConfigVersion, s.ConfigAck)
		}
	}
	return present, nil
}
