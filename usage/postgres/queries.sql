-- name: Begin :one
-- Locks the reporter's row, so that a report and its repetition are counted one
-- after the other, and gives the number of the reporter's last report.
INSERT INTO usage.reporters AS r (reporter, node, sequence, seen_at) VALUES ($1, $2, 0, $3)
ON CONFLICT (reporter) DO UPDATE SET seen_at = greatest(r.seen_at, excluded.seen_at)
RETURNING sequence;

-- name: Counted :exec
UPDATE usage.reporters SET sequence = $2, rate_to_target = $3, rate_to_source = $4 WHERE reporter = $1;

-- name: AddMonths :many
INSERT INTO usage.months AS m (account, month, to_target, to_source, streams)
SELECT l.account, @month, l.to_target, l.to_source, l.streams
  FROM (SELECT unnest(@accounts::bigint[]) AS account, unnest(@to_target::bigint[]) AS to_target,
               unnest(@to_source::bigint[]) AS to_source, unnest(@streams::bigint[]) AS streams) l
 ORDER BY l.account
ON CONFLICT (account, month) DO UPDATE SET to_target = m.to_target + excluded.to_target,
  to_source = m.to_source + excluded.to_source, streams = m.streams + excluded.streams
RETURNING account, (to_target + to_source)::bigint AS used;

-- name: AddBuckets :exec
INSERT INTO usage.buckets AS b (step, at, mapping, account, source, target, to_target, to_source, streams)
SELECT s.step, s.at, l.mapping, l.account, l.source, l.target, l.to_target, l.to_source, l.streams
  FROM (SELECT unnest(@mappings::bigint[]) AS mapping, unnest(@accounts::bigint[]) AS account,
               unnest(@sources::bigint[]) AS source, unnest(@targets::bigint[]) AS target,
               unnest(@to_target::bigint[]) AS to_target, unnest(@to_source::bigint[]) AS to_source,
               unnest(@streams::bigint[]) AS streams) l
 CROSS JOIN (SELECT unnest(@steps::bigint[]) AS step, unnest(@ats::bigint[]) AS at) s
 ORDER BY l.mapping, s.step
ON CONFLICT (mapping, step, at, source, target) DO UPDATE SET to_target = b.to_target + excluded.to_target,
  to_source = b.to_source + excluded.to_source, streams = b.streams + excluded.streams;

-- name: SetLive :exec
INSERT INTO usage.live AS v (reporter, mapping, account, source, target, streams)
SELECT @reporter, l.mapping, l.account, l.source, l.target, l.streams
  FROM (SELECT unnest(@mappings::bigint[]) AS mapping, unnest(@accounts::bigint[]) AS account,
               unnest(@sources::bigint[]) AS source, unnest(@targets::bigint[]) AS target,
               unnest(@streams::bigint[]) AS streams) l
ON CONFLICT (reporter, mapping) DO UPDATE SET account = excluded.account, source = excluded.source,
  target = excluded.target, streams = excluded.streams WHERE v.streams <> excluded.streams;

-- name: EndLive :exec
DELETE FROM usage.live WHERE reporter = $1 AND mapping = ANY(@mappings::bigint[]);

-- name: EndReporter :exec
DELETE FROM usage.live WHERE reporter = $1;

-- name: EndShares :exec
DELETE FROM usage.shares WHERE reporter = $1;

-- name: SilenceReporter :exec
-- Keeps the reporter's number and makes the reporter count as gone.
UPDATE usage.reporters SET seen_at = seen_at - @fresh::bigint, rate_to_target = 0, rate_to_source = 0 WHERE reporter = $1;

-- name: OtherShares :many
SELECT account, demand, share FROM usage.shares
 WHERE account = ANY(@accounts::bigint[]) AND reporter <> @reporter AND seen_at > @since;

-- name: SetShares :exec
INSERT INTO usage.shares (account, reporter, demand, share, seen_at)
SELECT l.account, @reporter, l.demand, l.share, @seen_at
  FROM (SELECT unnest(@accounts::bigint[]) AS account, unnest(@demands::bigint[]) AS demand,
               unnest(@shares::double precision[]) AS share) l
 ORDER BY l.account
ON CONFLICT (account, reporter) DO UPDATE SET demand = excluded.demand, share = excluded.share, seen_at = excluded.seen_at;

-- name: DropShares :exec
DELETE FROM usage.shares WHERE account = ANY(@accounts::bigint[]) AND reporter = @reporter;

-- name: Elsewhere :many
SELECT v.mapping, sum(v.streams)::bigint AS streams
  FROM usage.live v JOIN usage.reporters r ON r.reporter = v.reporter
 WHERE v.mapping = ANY(@mappings::bigint[]) AND v.reporter <> @reporter AND r.seen_at > @since
 GROUP BY v.mapping ORDER BY v.mapping;

-- name: Months :many
SELECT account, to_target, to_source, streams FROM usage.months WHERE month = $1 AND account = ANY(@accounts::bigint[]);

-- name: Series :many
SELECT at, sum(to_target)::bigint AS to_target, sum(to_source)::bigint AS to_source, sum(streams)::bigint AS streams
  FROM usage.buckets WHERE step = $1 AND at >= @since AND at < @until GROUP BY at ORDER BY at;

-- name: SeriesOfAccount :many
SELECT at, sum(to_target)::bigint AS to_target, sum(to_source)::bigint AS to_source, sum(streams)::bigint AS streams
  FROM usage.buckets WHERE account = @id AND step = $1 AND at >= @since AND at < @until GROUP BY at ORDER BY at;

-- name: SeriesOfClient :many
SELECT at, sum(to_target)::bigint AS to_target, sum(to_source)::bigint AS to_source, sum(streams)::bigint AS streams
  FROM usage.buckets WHERE (source = @id OR target = @id) AND step = $1 AND at >= @since AND at < @until GROUP BY at ORDER BY at;

-- name: SeriesOfMapping :many
SELECT at, sum(to_target)::bigint AS to_target, sum(to_source)::bigint AS to_source, sum(streams)::bigint AS streams
  FROM usage.buckets WHERE mapping = @id AND step = $1 AND at >= @since AND at < @until GROUP BY at ORDER BY at;

-- name: LiveOfAccounts :many
SELECT v.account AS id, sum(v.streams)::bigint AS streams
  FROM usage.live v JOIN usage.reporters r ON r.reporter = v.reporter
 WHERE v.account = ANY(@ids::bigint[]) AND r.seen_at > @since GROUP BY v.account;

-- name: LiveOfMappings :many
SELECT v.mapping AS id, sum(v.streams)::bigint AS streams
  FROM usage.live v JOIN usage.reporters r ON r.reporter = v.reporter
 WHERE v.mapping = ANY(@ids::bigint[]) AND r.seen_at > @since GROUP BY v.mapping;

-- name: LiveOfClients :many
SELECT c.id::bigint AS id, sum(v.streams)::bigint AS streams
  FROM (SELECT unnest(@ids::bigint[]) AS id) c
  JOIN usage.live v ON v.source = c.id OR v.target = c.id
  JOIN usage.reporters r ON r.reporter = v.reporter
 WHERE r.seen_at > @since GROUP BY c.id;

-- name: Rates :one
SELECT count(DISTINCT node)::bigint AS nodes, coalesce(sum(rate_to_target), 0)::bigint AS to_target,
       coalesce(sum(rate_to_source), 0)::bigint AS to_source
  FROM usage.reporters WHERE seen_at > $1;

-- name: LiveStreams :one
SELECT coalesce(sum(v.streams), 0)::bigint FROM usage.live v JOIN usage.reporters r ON r.reporter = v.reporter WHERE r.seen_at > $1;

-- name: PruneBuckets :exec
DELETE FROM usage.buckets WHERE step = $1 AND at < $2;

-- name: PruneMonths :exec
DELETE FROM usage.months WHERE month < $1;

-- name: PruneLive :exec
DELETE FROM usage.live v USING usage.reporters r WHERE r.reporter = v.reporter AND r.seen_at < $1;

-- name: PruneShares :exec
DELETE FROM usage.shares WHERE seen_at < $1;

-- name: PruneReporters :exec
DELETE FROM usage.reporters WHERE seen_at < $1;
