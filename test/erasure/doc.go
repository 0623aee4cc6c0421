// Package erasure sees that nothing of an erased user is left anywhere.
package erasure
