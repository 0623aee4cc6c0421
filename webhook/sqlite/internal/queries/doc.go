// Package queries is what sqlc makes of webhook/sqlite/queries.sql.
package queries
