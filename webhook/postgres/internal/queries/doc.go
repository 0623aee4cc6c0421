// Package queries is what sqlc makes of webhook/postgres/queries.sql.
package queries
