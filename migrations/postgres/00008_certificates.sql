-- The certificates of public hosts, their keys, and the account at the authority that
-- gives them.

-- +goose Up
-- What certmagic stores, by its key. The values are encrypted with a key that every
-- control plane has and no database contains.
CREATE TABLE cluster.certificates (
  key        text COLLATE "C" PRIMARY KEY,
  sealed     bytea            NOT NULL,
  changed_at timestamptz      NOT NULL DEFAULT clock_timestamp()
);

-- Who orders which certificate now. A row, and not an advisory lock, because an order
-- takes seconds or minutes, and a lock of a connection would keep the connection.
CREATE TABLE cluster.certificate_locks (
  name   text        PRIMARY KEY,
  holder text        NOT NULL, -- drawn for each lock
  until  timestamptz NOT NULL
) WITH (fillfactor = 10);
