// Package queries is what sqlc makes of usage/sqlite/queries.sql.
package queries
