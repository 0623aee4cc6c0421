-- What audits look for. Everything in the log is found by its position and by
-- its event stream already; these are for the other questions: what belongs to
-- an account, what an actor did, where an event occurs. Times need no index:
-- positions rise with them. An index ends with the position by itself.

-- +goose Up
CREATE INDEX records_owner ON records (owner);
CREATE INDEX records_actor ON records (meta ->> 'actor');
CREATE INDEX records_name ON records (name);
