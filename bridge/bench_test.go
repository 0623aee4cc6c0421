package bridge

import (
	"io"
	"testing"
)

func BenchmarkStreamThroughput(b *testing.B) {
	two := startTwo(b, nil)
	p := two.open(b)
	const size = 64 << 10
	b.SetBytes(size)
	b.ReportAllocs()
	done := make(chan int64)
	go func() {
		var total int64
		buf := make([]byte, size)
		for {
			n, err := p.taker.Read(buf)
			total += int64(n)
			if err != nil {
				if err != io.EOF { b.Error(err) }
				done <- total
				return
			}
		}
	}()
	buf := make([]byte, size)
	b.ResetTimer()
	for range b.N {
		if _, err := p.opener.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = p.opener.CloseWrite()
	if got := <-done; got != int64(b.N)*size {
		b.Fatal(got)
	}
}
