-- What was used: counters that change, beside the log and not in it. Times are
-- seconds since 1970; a bucket's and a month's is its beginning, in UTC.

-- +goose Up
CREATE SCHEMA usage;

-- One life of a forwarder each, with the last report that was counted.
CREATE TABLE usage.reporters (
  reporter       text   PRIMARY KEY,
  node           text   NOT NULL,
  sequence       bigint NOT NULL,
  seen_at        bigint NOT NULL,
  rate_to_target bigint NOT NULL DEFAULT 0, -- bytes per second, of its last report
  rate_to_source bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- What an account has used in a month. The lock on its row is what lets one
-- report at a time share out the account's bandwidth.
CREATE TABLE usage.months (
  account   bigint NOT NULL,
  month     bigint NOT NULL,
  to_target bigint NOT NULL,
  to_source bigint NOT NULL,
  streams   bigint NOT NULL,
  PRIMARY KEY (account, month)
) WITH (fillfactor = 70);

-- Minutes, hours and days of a mapping, rolled up as they are written.
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

-- The streams that are open now, of each reporter. They count as long as it
-- goes on reporting.
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

-- Which part of an account's bandwidth each reporter may use.
CREATE TABLE usage.shares (
  account  bigint           NOT NULL,
  reporter text             NOT NULL,
  demand   bigint           NOT NULL,
  share    double precision NOT NULL,
  seen_at  bigint           NOT NULL,
  PRIMARY KEY (account, reporter)
);
