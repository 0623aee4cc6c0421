// Watch runs a command and then says whether the machine did other work at the same
// time. A test that failed because the machine was slow looks like a test that failed
// because the code is slow.
//
//	watch make test
//
// It ends with the command's status and does not affect the command. The use by other
// programs is known on Linux only. How long a fixed piece of work takes, before and
// after, is measured everywhere.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/test/pace"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// muchOther is the fraction of the cores that others may use before a run counts as
// disturbed. The programs of an idle system stay well below.
const muchOther = 0.1

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprintln(stderr, "watch: give the command to run, for example: watch make test")
		return 2
	}
	slowBefore := pace.Now()
	fmt.Fprintf(stderr, "watch: %d cores; everything takes %.1f times as long as on a calm machine\n", runtime.NumCPU(), slowBefore)
	before, beforeErr := cores()
	began := time.Now()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	err := cmd.Run()
	took := time.Since(began)
	after, afterErr := cores()
	status := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status = max(1, exit.ExitCode()) // a command that a signal killed has -1
	case err != nil:
		fmt.Fprintln(stderr, "watch:", err)
		return 127
	}
	fmt.Fprintf(stderr, "watch: %s took %v", strings.Join(args, " "), took.Round(time.Second))
	if errors.Join(beforeErr, afterErr) == nil {
		total := took.Seconds() * float64(runtime.NumCPU())
		own := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
		fmt.Fprintln(stderr, "; "+verdict(own/total, max(0, (after.busy-before.busy).Seconds()-own)/total, (after.stolen-before.stolen).Seconds()/total))
	} else {
		fmt.Fprintln(stderr)
	}
	fmt.Fprintf(stderr, "watch: everything takes %.1f times as long as on a calm machine now, %.1f before\n", pace.Now(), slowBefore)
	return status
}

// verdict says what the cores did, in fractions of all of them: for the command, for
// other programs, and for other machines on the same hardware.
func verdict(own, others, stolen float64) string {
	s := fmt.Sprintf("of the cores' time it used %.0f %%, other programs %.0f %%, other machines %.0f %%", 100*own, 100*others, 100*stolen)
	if others+stolen > muchOther {
		return s + ": THE MACHINE WAS SLOW, a test that is late may be well"
	}
	return s + ": the machine was calm"
}

// usage is what the cores have done since the machine started.
type usage struct{ busy, stolen time.Duration }

// cores reads the first line of /proc/stat: user, nice, system, idle, iowait, irq,
// softirq, steal, in hundredths of a second.
func cores() (usage, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	return parse(string(text))
}

func parse(text string) (usage, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return usage{}, fmt.Errorf("read /proc/stat: %q is not the line of all cores", line)
	}
	var ticks [8]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return usage{}, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks[i] = time.Duration(n) * 10 * time.Millisecond
	}
	return usage{busy: ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6], stolen: ticks[7]}, nil
}
