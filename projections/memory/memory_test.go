package memory_test

import (
	"testing"

	"github.com/tunnox-net/tunnox/projections/memory"
	"github.com/tunnox-net/tunnox/projections/projectionstest"
	"github.com/tunnox-net/tunnox/test/services"
)

func TestMain(m *testing.M) { services.Main(m) }

func TestStore(t *testing.T) {
	projectionstest.Run(t, func(testing.TB) projectionstest.Backend {
		s := memory.New()
		return projectionstest.Backend{Store: s, Flush: s.Flush}
	})
}

func BenchmarkStore(b *testing.B) {
	projectionstest.Bench(b, func(testing.TB) projectionstest.Backend {
		s := memory.New()
		return projectionstest.Backend{Store: s, Flush: s.Flush}
	})
}
