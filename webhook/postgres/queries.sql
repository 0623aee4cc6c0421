-- name: Begin :execrows
INSERT INTO webhook.checkpoint (position) VALUES ($1) ON CONFLICT (one) DO NOTHING;

-- name: Checkpoint :one
SELECT position FROM webhook.checkpoint;

-- name: Move :execrows
UPDATE webhook.checkpoint SET position = @until WHERE position = @since;

-- name: Endpoints :many
SELECT state FROM webhook.endpoints ORDER BY webhook;

-- name: PutEndpoint :exec
-- What it failed at before is forgotten, and what waited for it to rest is due.
INSERT INTO webhook.endpoints AS e (webhook, owner, state, active, due_at) VALUES ($1, $2, $3, $4,
  (SELECT min(d.next_at) FROM webhook.deliveries d WHERE d.webhook = $1 AND d.status = 'pending'))
ON CONFLICT (webhook) DO UPDATE SET owner = excluded.owner, state = excluded.state, active = excluded.active,
  failing_times = 0, failing_since = 0, rest_until = 0, due_at = excluded.due_at;

-- name: EndEndpoint :exec
DELETE FROM webhook.endpoints WHERE webhook = $1;

-- name: EndDeliveries :exec
DELETE FROM webhook.deliveries WHERE webhook = $1;

-- name: AddDeliveries :exec
INSERT INTO webhook.deliveries (webhook, message, position, event, status, created_at, next_at)
SELECT l.webhook, l.message, l.position, l.event, 'pending', @now, @now
  FROM (SELECT unnest(@webhooks::bigint[]) AS webhook, unnest(@messages::text[]) AS message,
               unnest(@positions::bigint[]) AS position, unnest(@events::text[]) AS event) l
ON CONFLICT (webhook, position) WHERE position > 0 DO NOTHING;

-- name: Wake :exec
UPDATE webhook.endpoints SET due_at = greatest(rest_until, least(coalesce(due_at, @now::bigint), @now::bigint))
 WHERE webhook = ANY(@webhooks::bigint[]);

-- name: WakeNow :exec
-- By hand: whatever it rests from.
UPDATE webhook.endpoints SET rest_until = 0, due_at = @now::bigint WHERE webhook = @webhook;

-- name: Ready :many
SELECT webhook, owner FROM webhook.endpoints WHERE active AND due_at <= @now::bigint ORDER BY due_at LIMIT @most;

-- name: Endpoint :one
SELECT state, failing_times, failing_since FROM webhook.endpoints WHERE webhook = @webhook AND active AND due_at <= @now::bigint;

-- name: Next :one
SELECT * FROM webhook.deliveries WHERE webhook = @webhook AND status = 'pending' AND next_at <= @now ORDER BY id LIMIT 1;

-- name: Finish :execrows
UPDATE webhook.deliveries SET status = @status, attempts = attempts + 1, failures = @failures, next_at = @next_at,
       attempted_at = @attempted_at, took = @took, code = @code, error = @error
 WHERE id = @id AND attempts = @before::bigint;

-- name: Lock :exec
-- Comes before everything that depends on what waits: a statement that waits for
-- a row does not see what came meanwhile, the one behind it does.
SELECT FROM webhook.endpoints WHERE webhook = $1 FOR UPDATE;

-- name: HoldCheckpoint :exec
-- Who adds by hand comes before or behind what records come to: the statement that
-- puts an endpoint looks at what waits for it, and would not see what is being added.
SELECT FROM webhook.checkpoint FOR SHARE;

-- name: SetFailing :exec
UPDATE webhook.endpoints e SET failing_times = @times, failing_since = @since, rest_until = @rest,
       due_at = greatest(@rest::bigint, (SELECT min(d.next_at) FROM webhook.deliveries d WHERE d.webhook = e.webhook AND d.status = 'pending'))
 WHERE e.webhook = @webhook;

-- name: NothingDue :exec
UPDATE webhook.endpoints e SET due_at = NULL
 WHERE e.webhook = @webhook AND NOT EXISTS (SELECT FROM webhook.deliveries d WHERE d.webhook = e.webhook AND d.status = 'pending');

-- name: List :many
SELECT * FROM webhook.deliveries WHERE webhook = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: Add :one
INSERT INTO webhook.deliveries (webhook, message, position, event, status, created_at, next_at)
VALUES ($1, $2, $3, $4, 'pending', $5, $5) RETURNING *;

-- name: Redeliver :one
UPDATE webhook.deliveries SET status = 'pending', failures = 0, next_at = @now WHERE webhook = @webhook AND id = @id RETURNING *;

-- name: Waiting :one
SELECT count(*) FROM webhook.deliveries WHERE status = 'pending';

-- name: Crowded :many
SELECT webhook FROM webhook.deliveries WHERE status = 'pending' GROUP BY webhook HAVING count(*) > @most::bigint ORDER BY webhook;

-- name: PruneOld :exec
-- Also what waits for a webhook that is disabled: nobody is told of last week.
DELETE FROM webhook.deliveries WHERE greatest(created_at, attempted_at) < @since AND
  (status <> 'pending' OR next_at < @since);

-- name: PruneMany :exec
DELETE FROM webhook.deliveries d USING (
  SELECT webhook, id, row_number() OVER (PARTITION BY webhook ORDER BY id DESC) AS place FROM webhook.deliveries WHERE status <> 'pending') o
 WHERE d.id = o.id AND o.place > @most::bigint;

-- name: PruneOrphans :exec
DELETE FROM webhook.deliveries d WHERE created_at < @since AND NOT EXISTS (SELECT FROM webhook.endpoints e WHERE e.webhook = d.webhook);
