// Package queries is what sqlc makes of eventstore/postgres/queries.sql.
package queries
