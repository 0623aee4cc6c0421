-- Usage: counters that change, beside the log and not in it. Times are seconds since
-- 1970. The time of a bucket or a month is its beginning, in UTC.

-- +goose Up
-- Each row is one run of a forwarder, with the last report that was counted.
CREATE TABLE usage_reporters (
  reporter       TEXT    PRIMARY KEY,
  node           TEXT    NOT NULL,
  sequence       INTEGER NOT NULL,
  seen_at        INTEGER NOT NULL,
  rate_to_target INTEGER NOT NULL DEFAULT 0, -- bytes per second, in its last report
  rate_to_source INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What an account has used in a month.
CREATE TABLE usage_months (
  account   INTEGER NOT NULL,
  month     INTEGER NOT NULL,
  to_target INTEGER NOT NULL,
  to_source INTEGER NOT NULL,
  streams   INTEGER NOT NULL,
  PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;

-- Minutes, hours and days of a mapping. All three are written at once.
CREATE TABLE usage_buckets (
  step      INTEGER NOT NULL, -- seconds
  at        INTEGER NOT NULL,
  mapping   INTEGER NOT NULL,
  account   INTEGER NOT NULL,
  source    INTEGER NOT NULL,
  target    INTEGER NOT NULL,
  to_target INTEGER NOT NULL,
  to_source INTEGER NOT NULL,
  streams   INTEGER NOT NULL,
  PRIMARY KEY (mapping, step, at, source, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_buckets_at ON usage_buckets (step, at);
CREATE INDEX usage_buckets_account ON usage_buckets (account, step, at);
CREATE INDEX usage_buckets_source ON usage_buckets (source, step, at);
CREATE INDEX usage_buckets_target ON usage_buckets (target, step, at);

-- The streams of each reporter that are open now. They count as long as the reporter
-- sends reports.
CREATE TABLE usage_live (
  reporter TEXT    NOT NULL,
  mapping  INTEGER NOT NULL,
  account  INTEGER NOT NULL,
  source   INTEGER NOT NULL,
  target   INTEGER NOT NULL,
  streams  INTEGER NOT NULL,
  PRIMARY KEY (reporter, mapping)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_live_mapping ON usage_live (mapping);
CREATE INDEX usage_live_account ON usage_live (account);

-- The fraction of an account's bandwidth that each reporter may use.
CREATE TABLE usage_shares (
  account  INTEGER NOT NULL,
  reporter TEXT    NOT NULL,
  demand   INTEGER NOT NULL,
  share    REAL    NOT NULL,
  seen_at  INTEGER NOT NULL,
  PRIMARY KEY (account, reporter)
) STRICT, WITHOUT ROWID;
