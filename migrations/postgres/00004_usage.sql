-- Usage: counters that change, beside the log and not in it. Times are seconds since
-- 1970. The time of a bucket or a month is its beginning, in UTC.

-- +goose Up
CREATE SCHEMA usage;

-- Each row is one run of a forwarder, with the last report that was counted.
CREATE TABLE usage.reporters (
  reporter       text   PRIMARY KEY,
  node           text   NOT NULL,
  sequence       bigint NOT NULL,
  seen_at        bigint NOT NULL,
  rate_to_target bigint NOT NULL DEFAULT 0, -- bytes per second, in its last report
  rate_to_source bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What an account has used in a month. Because of the lock on a row, only one report at
-- a time is given a fraction of the account's bandwidth.
CREATE TABLE usage.months (
  account   bigint NOT NULL,
  month     bigint NOT NULL,
  to_target bigint NOT NULL,
  to_source bigint NOT NULL,
  streams   bigint NOT NULL,
  PRIMARY KEY (account, month)
) WITH (fillfactor = 70);

-- Minutes, hours and days of a mapping. All three are written at once.
CREATE TABLE usage.buckets (
  step      bigint NOT NULL, -- seconds
  at        bigint NOT NULL,
  mapping   bigint NOT NULL,
  account   bigint NOT NULL,
  source    bigint NOT NULL,
  target    bigint NOT NULL,
  to_target bigint NOT NULL,
  to_source bigint NOT NULL,
  streams   bigint NOT NULL,
  PRIMARY KEY (mapping, step, at, source, target)
) WITH (fillfactor = 70);
CREATE INDEX buckets_at ON usage.buckets (step, at);
CREATE INDEX buckets_account ON usage.buckets (account, step, at);
CREATE INDEX buckets_source ON usage.buckets (source, step, at);
CREATE INDEX buckets_target ON usage.buckets (target, step, at);

-- The streams of each reporter that are open now. They count as long as the reporter
-- sends reports.
CREATE TABLE usage.live (
  reporter text   NOT NULL,
  mapping  bigint NOT NULL,
  account  bigint NOT NULL,
  source   bigint NOT NULL,
  target   bigint NOT NULL,
  streams  bigint NOT NULL,
  PRIMARY KEY (reporter, mapping)
);
CREATE INDEX live_mapping ON usage.live (mapping);
CREATE INDEX live_account ON usage.live (account);

-- The fraction of an account's bandwidth that each reporter may use.
CREATE TABLE usage.shares (
  account  bigint           NOT NULL,
  reporter text             NOT NULL,
  demand   bigint           NOT NULL,
  share    double precision NOT NULL,
  seen_at  bigint           NOT NULL,
  PRIMARY KEY (account, reporter)
);
