// Package queries is what sqlc makes of eventstore/sqlite/queries.sql.
package queries
