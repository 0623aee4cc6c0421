-- name: Begin :one
INSERT INTO usage_reporters (reporter, node, sequence, seen_at) VALUES (?1, ?2, 0, ?3)
ON CONFLICT (reporter) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)
RETURNING sequence;

-- name: Counted :exec
UPDATE usage_reporters SET sequence = ?2, rate_to_target = ?3, rate_to_source = ?4 WHERE reporter = ?1;

-- name: AddMonth :one
INSERT INTO usage_months (account, month, to_target, to_source, streams) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (account, month) DO UPDATE SET to_target = to_target + excluded.to_target,
  to_source = to_source + excluded.to_source, streams = streams + excluded.streams
RETURNING to_target + to_source AS used;

-- name: AddBucket :exec
INSERT INTO usage_buckets (step, at, mapping, account, source, target, to_target, to_source, streams)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
ON CONFLICT (mapping, step, at, source, target) DO UPDATE SET to_target = to_target + excluded.to_target,
  to_source = to_source + excluded.to_source, streams = streams + excluded.streams;

-- name: SetLive :exec
INSERT INTO usage_live (reporter, mapping, account, source, target, streams) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (reporter, mapping) DO UPDATE SET account = excluded.account, source = excluded.source,
  target = excluded.target, streams = excluded.streams;

-- name: EndLive :exec
DELETE FROM usage_live WHERE reporter = ?1 AND mapping = ?2;

-- name: EndReporter :exec
DELETE FROM usage_live WHERE reporter = ?1;

-- name: EndShares :exec
DELETE FROM usage_shares WHERE reporter = ?1;

-- name: SilenceReporter :exec
UPDATE usage_reporters SET seen_at = seen_at - ?2, rate_to_target = 0, rate_to_source = 0 WHERE reporter = ?1;

-- name: OtherShares :many
SELECT demand, share FROM usage_shares WHERE account = ?1 AND reporter <> ?2 AND seen_at > ?3;

-- name: SetShare :exec
INSERT INTO usage_shares (account, reporter, demand, share, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (account, reporter) DO UPDATE SET demand = excluded.demand, share = excluded.share, seen_at = excluded.seen_at;

-- name: EndShare :exec
DELETE FROM usage_shares WHERE account = ?1 AND reporter = ?2;

-- name: Elsewhere :one
SELECT CAST(coalesce(sum(v.streams), 0) AS INTEGER) AS streams FROM usage_live v JOIN usage_reporters r ON r.reporter = v.reporter
 WHERE v.mapping = ?1 AND v.reporter <> ?2 AND r.seen_at > ?3;

-- name: Month :one
SELECT to_target, to_source, streams FROM usage_months WHERE account = ?1 AND month = ?2;

-- name: Series :many
SELECT at, CAST(sum(to_target) AS INTEGER) AS to_target, CAST(sum(to_source) AS INTEGER) AS to_source, CAST(sum(streams) AS INTEGER) AS streams
  FROM usage_buckets WHERE step = ?1 AND at >= ?2 AND at < ?3 GROUP BY at ORDER BY at;

-- name: SeriesOfAccount :many
SELECT at, CAST(sum(to_target) AS INTEGER) AS to_target, CAST(sum(to_source) AS INTEGER) AS to_source, CAST(sum(streams) AS INTEGER) AS streams
  FROM usage_buckets WHERE step = ?1 AND at >= ?2 AND at < ?3 AND account = ?4 GROUP BY at ORDER BY at;

-- name: SeriesOfClient :many
SELECT at, CAST(sum(to_target) AS INTEGER) AS to_target, CAST(sum(to_source) AS INTEGER) AS to_source, CAST(sum(streams) AS INTEGER) AS streams
  FROM usage_buckets WHERE step = ?1 AND at >= ?2 AND at < ?3 AND (source = ?4 OR target = ?4) GROUP BY at ORDER BY at;

-- name: SeriesOfMapping :many
SELECT at, CAST(sum(to_target) AS INTEGER) AS to_target, CAST(sum(to_source) AS INTEGER) AS to_source, CAST(sum(streams) AS INTEGER) AS streams
  FROM usage_buckets WHERE step = ?1 AND at >= ?2 AND at < ?3 AND mapping = ?4 GROUP BY at ORDER BY at;

-- name: LiveOfAccount :one
SELECT CAST(coalesce(sum(v.streams), 0) AS INTEGER) AS streams FROM usage_live v JOIN usage_reporters r ON r.reporter = v.reporter
 WHERE v.account = ?1 AND r.seen_at > ?2;

-- name: LiveOfClient :one
SELECT CAST(coalesce(sum(v.streams), 0) AS INTEGER) AS streams FROM usage_live v JOIN usage_reporters r ON r.reporter = v.reporter
 WHERE (v.source = ?1 OR v.target = ?1) AND r.seen_at > ?2;

-- name: LiveOfMapping :one
SELECT CAST(coalesce(sum(v.streams), 0) AS INTEGER) AS streams FROM usage_live v JOIN usage_reporters r ON r.reporter = v.reporter
 WHERE v.mapping = ?1 AND r.seen_at > ?2;

-- name: Rates :one
SELECT count(DISTINCT node) AS nodes, CAST(coalesce(sum(rate_to_target), 0) AS INTEGER) AS to_target,
       CAST(coalesce(sum(rate_to_source), 0) AS INTEGER) AS to_source
  FROM usage_reporters WHERE seen_at > ?1;

-- name: LiveStreams :one
SELECT CAST(coalesce(sum(v.streams), 0) AS INTEGER) AS streams FROM usage_live v JOIN usage_reporters r ON r.reporter = v.reporter WHERE r.seen_at > ?1;

-- name: PruneBuckets :exec
DELETE FROM usage_buckets WHERE step = ?1 AND at < ?2;

-- name: PruneMonths :exec
DELETE FROM usage_months WHERE month < ?1;

-- name: PruneLive :exec
DELETE FROM usage_live WHERE reporter IN (SELECT reporter FROM usage_reporters WHERE seen_at < ?1);

-- name: PruneShares :exec
DELETE FROM usage_shares WHERE seen_at < ?1;

-- name: PruneReporters :exec
DELETE FROM usage_reporters WHERE seen_at < ?1;
