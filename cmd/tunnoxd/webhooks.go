package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/tunnox-net/tunnox/domain"
	"github.com/tunnox-net/tunnox/eventstore"
	"github.com/tunnox-net/tunnox/httpapi"
	"github.com/tunnox-net/tunnox/webhook"
	"github.com/tunnox-net/tunnox/webhook/postgres"
	"github.com/tunnox-net/tunnox/webhook/sqlite"
	"github.com/tunnox-net/tunnox/wholefile"
)

// webhookKeyFile is the key from which the secrets of webhooks are derived; 0600.
const webhookKeyFile = "webhook-key"

// webhooks answers the API's questions about webhooks.
type webhooks struct {
	webhook.Keys
	webhook.Store
}

// loadWebhookKeys reads the key from the data directory, or makes one there. In a
// cluster the directory has the cluster's key by now.
func loadWebhookKeys(dir *dataDir) (webhook.Keys, error) {
	path := dir.file(webhookKeyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text = webhook.NewKey()
		err = wholefile.Write(path, text, 0o600)
	}
	if err != nil {
		return webhook.Keys{}, err
	}
	keys, err := webhook.ParseKeys(text)
	if err != nil {
		return webhook.Keys{}, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// startWebhooks delivers events from the present end of the log, or from the stored
// checkpoint. It is called before the API can write anything, and after the log was
// opened, because the log's opener makes the schema.
func (p *process) startWebhooks(ctx context.Context, b *backend, cp *controlPlane) (httpapi.Webhooks, error) {
	keys, err := loadWebhookKeys(p.dir)
	if err != nil {
		return nil, err
	}
	networks, err := webhook.ParseNetworks(p.cfg.WebhookNetworks)
	if err != nil {
		return nil, err // the settings were checked
	}
	var store webhook.Store
	if p.cfg.Postgres != "" {
		store, err = postgres.Open(ctx, p.cfg.Postgres)
	} else {
		store, err = sqlite.Open(ctx, p.dir.file(logFile))
	}
	if err != nil {
		return nil, err
	}
	p.atEnd("webhooks", func(context.Context) error { return store.Close() })
	deliverer := webhook.NewDeliverer(store, b.store, webhook.Options{
		Keys: keys, Networks: networks, AllowHTTP: p.cfg.WebhookHTTP, Version: shortVersion(),
		Show: func(r domain.Record, e webhook.Endpoint) (any, error) {
			return httpapi.ShowEvent(r, e.UserID, e.OwnerAdmin)
		},
		Disable: disabler(cp.executor),
		Metrics: webhook.NewMetrics(p.registry),
		Logger:  p.log.With("part", "webhooks"),
	})
	if err := deliverer.Begin(ctx); err != nil {
		return nil, err
	}
	p.runAlone(cp.session, leaseWebhooks, deliverer.Run)
	return webhooks{keys, store}, nil
}

// disabler lets the system disable a webhook. A webhook that is gone by then is not a
// failure.
func disabler(executor *eventstore.Executor) func(context.Context, int64, string) error {
	return func(ctx context.Context, id int64, reason string) error {
		c := domain.SetWebhookEnabled{ID: id, Reason: reason}
		_, err := executor.Submit(ctx, domain.Submission{Command: c, Meta: domain.Metadata{
			At: time.Now().UTC(), Actor: "system", Command: c.CommandName(), Allowed: "it takes nothing"}})
		if domain.CodeOf(err) == domain.CodeWebhookNotFound {
			return nil
		}
		return err
	}
}
