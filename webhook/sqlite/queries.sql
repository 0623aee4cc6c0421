-- name: Begin :execrows
INSERT INTO webhook_checkpoint (one, position) VALUES (1, ?) ON CONFLICT (one) DO NOTHING;

-- name: Checkpoint :one
SELECT position FROM webhook_checkpoint;

-- name: Move :execrows
UPDATE webhook_checkpoint SET position = @until WHERE position = @since;

-- name: Endpoints :many
SELECT state FROM webhook_endpoints ORDER BY webhook;

-- name: PutEndpoint :exec
-- What it failed at before is forgotten, and what waited for it to rest is due.
INSERT INTO webhook_endpoints (webhook, owner, state, active, due_at) VALUES (@webhook, @owner, @state, @active,
  (SELECT min(d.next_at) FROM webhook_deliveries d WHERE d.webhook = @webhook AND d.status = 'pending'))
ON CONFLICT (webhook) DO UPDATE SET owner = excluded.owner, state = excluded.state, active = excluded.active,
  failing_times = 0, failing_since = 0, rest_until = 0, due_at = excluded.due_at;

-- name: EndEndpoint :exec
DELETE FROM webhook_endpoints WHERE webhook = @webhook;

-- name: EndDeliveries :exec
DELETE FROM webhook_deliveries WHERE webhook = @webhook;

-- name: AddDelivery :exec
INSERT INTO webhook_deliveries (webhook, message, position, event, status, created_at, next_at)
VALUES (@webhook, @message, @position, @event, 'pending', @now, @now)
ON CONFLICT (webhook, position) WHERE position > 0 DO NOTHING;

-- name: Wake :exec
UPDATE webhook_endpoints SET due_at = max(rest_until, min(coalesce(due_at, @now), @now)) WHERE webhook = @webhook;

-- name: WakeNow :exec
-- By hand: whatever it rests from.
UPDATE webhook_endpoints SET rest_until = 0, due_at = @now WHERE webhook = @webhook;

-- name: Ready :many
SELECT webhook, owner FROM webhook_endpoints WHERE active = 1 AND due_at <= @now ORDER BY due_at LIMIT @most;

-- name: Endpoint :one
SELECT state, failing_times, failing_since FROM webhook_endpoints WHERE webhook = @webhook AND active = 1 AND due_at <= @now;

-- name: Next :one
SELECT * FROM webhook_deliveries WHERE webhook = @webhook AND status = 'pending' AND next_at <= @now ORDER BY id LIMIT 1;

-- name: Finish :execrows
UPDATE webhook_deliveries SET status = @status, attempts = attempts + 1, failures = @failures, next_at = @next_at,
       attempted_at = @attempted_at, took = @took, code = @code, error = @error
 WHERE id = @id AND attempts = @before;

-- name: SetFailing :exec
UPDATE webhook_endpoints SET failing_times = @times, failing_since = @since, rest_until = @rest,
       due_at = max(@rest, coalesce((SELECT min(d.next_at) FROM webhook_deliveries d WHERE d.webhook = webhook_endpoints.webhook AND d.status = 'pending'), 0))
 WHERE webhook_endpoints.webhook = @webhook;

-- name: NothingDue :exec
UPDATE webhook_endpoints SET due_at = NULL
 WHERE webhook_endpoints.webhook = @webhook AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook = webhook_endpoints.webhook AND d.status = 'pending');

-- name: List :many
SELECT * FROM webhook_deliveries WHERE webhook = @webhook AND id < @before ORDER BY id DESC LIMIT @most;

-- name: Add :one
INSERT INTO webhook_deliveries (webhook, message, position, event, status, created_at, next_at)
VALUES (@webhook, @message, @position, @event, 'pending', @now, @now) RETURNING *;

-- name: Redeliver :one
UPDATE webhook_deliveries SET status = 'pending', failures = 0, next_at = @now WHERE webhook = @webhook AND id = @id RETURNING *;

-- name: Waiting :one
SELECT count(*) FROM webhook_deliveries WHERE status = 'pending';

-- name: Crowded :many
SELECT webhook FROM webhook_deliveries WHERE status = 'pending' GROUP BY webhook HAVING count(*) > @most ORDER BY webhook;

-- name: PruneOld :exec
-- Also what waits for a webhook that is disabled: nobody is told of last week.
DELETE FROM webhook_deliveries WHERE max(created_at, attempted_at) < @since AND
  (status <> 'pending' OR next_at < @since);

-- name: PruneMany :exec
DELETE FROM webhook_deliveries WHERE webhook_deliveries.webhook = @webhook AND status <> 'pending' AND webhook_deliveries.id <=
  (SELECT d.id FROM webhook_deliveries d WHERE d.webhook = @webhook AND d.status <> 'pending' ORDER BY d.id DESC LIMIT 1 OFFSET @most);

-- name: Webhooks :many
SELECT webhook FROM webhook_endpoints ORDER BY webhook;

-- name: PruneOrphans :exec
DELETE FROM webhook_deliveries WHERE created_at < @since AND webhook NOT IN (SELECT e.webhook FROM webhook_endpoints e);
