-- Indexes for audits. Everything in the log is found by its position and by its event
-- stream already. These indexes are for other questions: which records belong to an
-- account, what an actor did, where an event occurs. Times need no index: positions
-- rise with them. Every index of SQLite ends with the row's position.

-- +goose Up
CREATE INDEX records_owner ON records (owner);
CREATE INDEX records_actor ON records (meta ->> 'actor');
CREATE INDEX records_name ON records (name);
