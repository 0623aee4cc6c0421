package httpapi_test

import (
	"testing"
)

// BenchmarkCreateMapping is a POST from request to answer without a disk below
// it: what this package costs a command.
func BenchmarkCreateMapping(b *testing.B) {
	w := newWorld(b)
	user := w.user("ann")
	source, target := w.client(user, "a"), w.client(user, "b")
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 && i > 0 { // the log in memory folds by walking: keep it short
			b.StopTimer()
			w = newWorld(b)
			user = w.user("ann")
			source, target = w.client(user, "a"), w.client(user, "b")
			b.StartTimer()
		}
		w.do("POST", path("mappings"), rule(user, source, target, 1+i%1000)).want(201)
	}
}

// BenchmarkGetMapping reads one mapping from the read model in memory.
func BenchmarkGetMapping(b *testing.B) {
	w := newWorld(b)
	user := w.user("ann")
	source, target := w.client(user, "a"), w.client(user, "b")
	one := path("mappings", w.mapping(user, source, target, 80))
	w.do("GET", one, nil).want(200)
	b.ReportAllocs()
	for b.Loop() {
		w.do("GET", one, nil).want(200)
	}
}
