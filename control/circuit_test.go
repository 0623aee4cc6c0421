package control

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestCircuitOpensAndHalfOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCircuit(circuitOptions{failures: 3, pause: time.Second, longest: 4 * time.Second})
		fail := func(n int) {
			for range n {
				if !c.allow() {
					t.Fatal("not allowed while closed")
				}
				c.report(false)
			}
		}
		fail(2)
		c.report(true) // failures in a row count, not failures
		fail(3)
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second} {
			if c.allow() {
				t.Fatal("allowed while open")
			}
			c.report(false) // of a try that began before it opened: changes nothing
			time.Sleep(pause - time.Millisecond)
			if c.allow() {
				t.Fatalf("allowed before %v", pause)
			}
			time.Sleep(time.Millisecond)
			if !c.allow() {
				t.Fatalf("not allowed after %v", pause)
			}
			if c.allow() {
				t.Fatal("two tries at once while half open")
			}
			c.report(false)
		}
		time.Sleep(4 * time.Second)
		if !c.allow() {
			t.Fatal("not allowed to try")
		}
		c.abandon() // the caller left: the next may try
		if !c.allow() {
			t.Fatal("a try that was given up keeps it open")
		}
		// A try that never ends does not keep it open either.
		time.Sleep(5 * time.Second)
		if !c.allow() {
			t.Fatal("a try that never ended keeps it open")
		}
		c.report(true)
		if c.isOpen() {
			t.Fatal("open after a success")
		}
		fail(3)
		time.Sleep(time.Second) // the pause has begun anew
		if !c.allow() {
			t.Fatal("the pause did not begin anew")
		}
	})
}
