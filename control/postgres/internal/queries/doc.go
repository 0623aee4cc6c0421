// Package queries is what sqlc makes of control/postgres/queries.sql.
package queries
