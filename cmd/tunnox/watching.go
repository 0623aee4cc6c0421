package main

import (
	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/inspector"
)

// watching is the inspector as the agent asks for it.
type watching struct{ *inspector.Server }

// Record implements [agent.Inspector].
func (w watching) Record(mapping int64) { w.Inspector.Begin(mapping) }

// Requests implements [agent.Inspector].
func (w watching) Requests(mapping int64, most int) (latest []agent.Request) {
	for _, x := range w.Latest(mapping, most) {
		latest = append(latest, agent.Request{At: x.Started.UTC(), Method: x.Method, Target: x.Target, Status: x.Status, Millis: x.Done, From: x.Visitor, Error: x.Error})
	}
	return latest
}
