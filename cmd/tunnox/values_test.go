package main

import (
	"testing"
	"time"
)

// How long something is good is said in days as well, and never comes to nothing.
func TestLifetimes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2d": 48 * time.Hour, "1w": 168 * time.Hour, "1w2d3h4m": 219*time.Hour + 4*time.Minute, "36h": 36 * time.Hour, "90s": 90 * time.Second,
		"": 0, "0": 0, "-2d": 0, "-1h": 0, "0d": 0, "d": 0, "2": 0, "2 d": 0, "tomorrow": 0, "1d-25h": 0, "99999999w": 0, "99999w999999d": 0,
	} {
		var l lifetime
		err := l.Set(text)
		if time.Duration(l) != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(l), err, want)
		}
	}
}
