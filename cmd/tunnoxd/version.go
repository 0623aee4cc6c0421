package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version is set by the Makefile (-ldflags -X main.version=...). A build without it
// shows what the Go toolchain recorded.
var version string

// shortVersion gives one word, for messages to agents and for /version.
func shortVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()")
}

// buildVersion gives one line for people about the build.
func buildVersion() string {
	revision, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = " " + s.Value[:min(12, len(s.Value))]
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = " with changes"
			}
		}
	}
	return fmt.Sprintf("tunnoxd %s%s%s %s %s/%s", shortVersion(), revision, dirty, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
