-- Indexes for audits. Everything in the log is found by its position and by its event
-- stream already. These indexes are for other questions: which records belong to an
-- account, what an actor did, where an event occurs. Times need no index: positions
-- rise with them.

-- +goose Up
CREATE INDEX records_owner ON es.records (owner, position);
CREATE INDEX records_actor ON es.records ((meta ->> 'actor'), position);
CREATE INDEX records_name ON es.records (name, position);
