package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tunnox-net/tunnox/eventstore"
)

// failure adds the operation to an error of the database. The result is the context's
// error if that was the cause, an [eventstore.ErrUnavailable] if a later try may
// succeed, and a plain error if the program and the database disagree.
func failure(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || passing(pgErr.Code) {
		// An error that is not an answer of the server means that the server was not
		// reached.
		return fmt.Errorf("%w: %s: %w", eventstore.ErrUnavailable, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// passing reports whether the failure may pass by itself.
func passing(code string) bool {
	switch code {
	case "55P03", // lock_timeout
		"57014", // statement_timeout
		"25P03", // idle_in_transaction_session_timeout
		"25006": // read-only: a standby, or a failover in progress
		return true
	}
	switch code[:2] {
	case "08", "53", "57", "58", "40": // connection, resources, shutdown, I/O, rolled back
		return true
	}
	return false
}

// otherState reports that es.append found another state than the plan's.
func otherState(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "ES001" || pgErr.Code == "23505")
}

// badData reports that the database refused to store a value. This is the fault of one
// append, and the other appends of the batch must not fail with it.
func badData(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code[:2] == "22" || pgErr.Code[:2] == "54")
}
