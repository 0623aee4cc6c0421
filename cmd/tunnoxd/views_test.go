package main

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/tunnox-net/tunnox/attest"
	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/projections"
	projectionsredis "github.com/tunnox-net/tunnox/projections/redis"
	"github.com/tunnox-net/tunnox/test/services"
)

// lookupFunc is a lookup that is a function.
type lookupFunc func(clientID int64, min domain.Position) (domain.ClientView, error)

func (f lookupFunc) ClientView(_ context.Context, clientID int64, min domain.Position) (domain.ClientView, error) {
	return f(clientID, min)
}

func (f lookupFunc) IngressView(context.Context, domain.Ingress, domain.Position) (domain.IngressView, error) {
	return domain.IngressView{}, errors.New("there is none")
}

func TestKeptViewsFillInForReadModelsThatAreGone(t *testing.T) {
	client := redisClient(t, services.Redis(t))
	record := testRecordKey(t)
	kept := projectionsredis.NewViews(client, record.Trust())
	var rows error
	k := keptViews{lookupFunc(func(int64, domain.Position) (domain.ClientView, error) {
		return domain.ClientView{Position: 99}, rows
	}), projectionsredis.NewViews(client, attest.Trust{Verifier: record.Verifier()})}
	ctx := t.Context()
	view := domain.ClientView{Position: 7}
	view.Client.Version, view.Client.State = 2, domain.Client{ID: 600000001, Kind: domain.ClientManaged, UserID: 1, PublicKey: []byte("key"), CreatedAt: time.Unix(1, 0).UTC(), UpdatedAt: time.Unix(2, 0).UTC()}
	view.Mappings = []domain.Versioned[domain.Mapping]{{Version: 3, State: domain.Mapping{ID: 1001, CreatedAt: time.Unix(3, 0).UTC(), UpdatedAt: time.Unix(3, 0).UTC()}}}
	limit := int64(5)
	view.Limits = []domain.Versioned[domain.AccountLimits]{{Version: 1, State: domain.AccountLimits{Account: 1, Limits: domain.Limits{MaxClients: &limit}}}}
	if err := kept.Keep(ctx, view); err != nil {
		t.Fatal(err)
	}
	if v, err := k.ClientView(ctx, 600000001, 7); err != nil || v.Position != 99 {
		t.Errorf("beside rows: %+v, %v", v, err)
	}
	rows = projections.ErrUnavailable
	if v, err := k.ClientView(ctx, 600000001, 7); err != nil || !reflect.DeepEqual(v, view) {
		t.Errorf("without rows: %+v, %v; want %+v", v, err, view)
	}
	for what, min := range map[string]domain.Position{"one that must be newer": 8, "one that nobody knows the age of": 0} {
		if v, err := k.ClientView(ctx, 600000001, min); err == nil {
			t.Errorf("%s: %+v", what, v)
		}
	}
	if v, err := k.ClientView(ctx, 600000002, 7); err == nil {
		t.Errorf("another client: %+v", v)
	}
	rows = &domain.Error{Code: domain.CodeClientNotFound}
	if _, err := k.ClientView(ctx, 600000001, 7); domain.CodeOf(err) != domain.CodeClientNotFound {
		t.Errorf("one that rows do not have: %v", err) // the control plane says whether it is gone
	}
	if ttl := client.TTL(ctx, "tunnox:view:600000001").Val(); ttl <= 0 || ttl > projectionsredis.ViewsLife {
		t.Errorf("kept for %v", ttl)
	}
}
