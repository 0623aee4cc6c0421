-- Webhooks: the checkpoint of the deliverer, the endpoints as of the checkpoint, and
-- the deliveries to them. Times are milliseconds since 1970; 0 is none.

-- +goose Up
CREATE SCHEMA webhook;

CREATE TABLE webhook.checkpoint (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint  NOT NULL
);

CREATE TABLE webhook.endpoints (
  webhook       bigint  PRIMARY KEY,
  owner         bigint  NOT NULL,
  state         text    NOT NULL, -- JSON
  active        boolean NOT NULL,
  failing_times bigint  NOT NULL DEFAULT 0,
  failing_since bigint  NOT NULL DEFAULT 0,
  rest_until    bigint  NOT NULL DEFAULT 0,
  due_at        bigint -- when the next delivery is due; NULL = nothing waits
) WITH (fillfactor = 70);
CREATE INDEX endpoints_due ON webhook.endpoints (due_at) WHERE active AND due_at IS NOT NULL;

CREATE TABLE webhook.deliveries (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  webhook      bigint NOT NULL,
  message      text   NOT NULL,
  position     bigint NOT NULL, -- 0 = a test
  event        text   NOT NULL,
  status       text   NOT NULL,
  created_at   bigint NOT NULL,
  attempts     bigint NOT NULL DEFAULT 0,
  failures     bigint NOT NULL DEFAULT 0,
  next_at      bigint NOT NULL,
  attempted_at bigint NOT NULL DEFAULT 0,
  took         bigint NOT NULL DEFAULT 0, -- milliseconds
  code         bigint NOT NULL DEFAULT 0,
  error        text   NOT NULL DEFAULT ''
) WITH (fillfactor = 80);
-- A record has one delivery to a webhook, whichever process writes it.
CREATE UNIQUE INDEX deliveries_position ON webhook.deliveries (webhook, position) WHERE position > 0;
CREATE INDEX deliveries_webhook ON webhook.deliveries (webhook, id);
CREATE INDEX deliveries_pending ON webhook.deliveries (webhook, next_at) WHERE status = 'pending';
