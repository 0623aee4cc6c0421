// Package queries is what sqlc makes of usage/postgres/queries.sql.
package queries
