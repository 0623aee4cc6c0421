-- Webhooks: the checkpoint of the deliverer, the endpoints as of the checkpoint, and
-- the deliveries to them. Times are milliseconds since 1970; 0 is none.

-- +goose Up
CREATE TABLE webhook_checkpoint (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE webhook_endpoints (
  webhook       INTEGER PRIMARY KEY,
  owner         INTEGER NOT NULL,
  state         TEXT    NOT NULL, -- JSON
  active        INTEGER NOT NULL, -- 1 or 0
  failing_times INTEGER NOT NULL DEFAULT 0,
  failing_since INTEGER NOT NULL DEFAULT 0,
  rest_until    INTEGER NOT NULL DEFAULT 0,
  due_at        INTEGER -- when the next delivery is due; NULL = nothing waits
) STRICT;
CREATE INDEX webhook_endpoints_due ON webhook_endpoints (due_at) WHERE active = 1 AND due_at IS NOT NULL;

CREATE TABLE webhook_deliveries (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  webhook      INTEGER NOT NULL,
  message      TEXT    NOT NULL,
  position     INTEGER NOT NULL, -- 0 = a test
  event        TEXT    NOT NULL,
  status       TEXT    NOT NULL,
  created_at   INTEGER NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0,
  failures     INTEGER NOT NULL DEFAULT 0,
  next_at      INTEGER NOT NULL,
  attempted_at INTEGER NOT NULL DEFAULT 0,
  took         INTEGER NOT NULL DEFAULT 0, -- milliseconds
  code         INTEGER NOT NULL DEFAULT 0,
  error        TEXT    NOT NULL DEFAULT ''
) STRICT;
-- A record has one delivery to a webhook, whichever process writes it.
CREATE UNIQUE INDEX webhook_deliveries_position ON webhook_deliveries (webhook, position) WHERE position > 0;
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook, id);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (webhook, next_at) WHERE status = 'pending';
