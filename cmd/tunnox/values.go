package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// lifetime is the value of a flag that says how long something is valid. In addition to
// Go's durations it accepts days and weeks. Zero means not given.
type lifetime time.Duration

var (
	_ pflag.Value = (*lifetime)(nil)
	_ pflag.Value = (*count)(nil)

	longUnits = regexp.MustCompile(`^(?:(\d{1,5})w)?(?:(\d{1,6})d)?(.*)$`)
)

// Set implements [pflag.Value].
func (l *lifetime) Set(text string) error {
	wrong := errors.New("must be more than 0, for example 30m, 36h, 2d or 1w")
	parts := longUnits.FindStringSubmatch(text)
	weeks, _ := strconv.ParseInt("0"+parts[1], 10, 64) // only digits
	days, _ := strconv.ParseInt("0"+parts[2], 10, 64)
	whole := time.Duration(7*weeks+days) * 24 * time.Hour
	var rest time.Duration
	if parts[3] != "" {
		var err error
		if rest, err = time.ParseDuration(parts[3]); err != nil {
			return wrong
		}
	}
	if text == "" || rest < 0 || whole < 0 || whole+rest <= 0 {
		return wrong
	}
	*l = lifetime(whole + rest)
	return nil
}

// String implements [pflag.Value].
func (l *lifetime) String() string {
	if *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

// Type implements [pflag.Value].
func (*lifetime) Type() string { return "duration" }

// end gives the end of a time that begins now; nil when the flag was not given.
func (l *lifetime) end() *time.Time {
	if *l == 0 {
		return nil
	}
	at := time.Now().Add(time.Duration(*l)).UTC().Truncate(time.Second)
	return &at
}

// count is the value of a flag: a number, 0 or more.
type count int

// Set implements [pflag.Value].
func (c *count) Set(text string) error {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return fmt.Errorf("must be a number, 0 or more")
	}
	*c = count(n)
	return nil
}

// String implements [pflag.Value].
func (c *count) String() string { return strconv.Itoa(int(*c)) }

// Type implements [pflag.Value].
func (*count) Type() string { return "number" }

// limitFlag declares --limit of a list.
func limitFlag(flags *pflag.FlagSet) *count {
	var limit count
	flags.Var(&limit, "limit", "print at most this `number` (0 = all)")
	return &limit
}
