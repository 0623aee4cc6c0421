// Package examples runs the programs of the folder examples against the real ones.
package examples
