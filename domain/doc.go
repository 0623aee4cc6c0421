// Package domain says what can happen in Tunnox: users, the clients they own,
// the mappings between those clients, and the quotas that bound all of it.
//
// Its duty is to decide. A [Command] is a wish; Decide turns it and the states
// of the event streams it reads into events, or into an [Error] that says why
// not. Apply folds an event into a state and never refuses, because an event is
// a fact. The same Apply serves the command path, the read models, a forwarder
// and an audit, so that they cannot disagree.
//
// Its limits: it imports the standard library only and has no clock, no random
// source, no goroutine and no I/O. Time, actor and new ids come in with the
// command. That is what makes a replay years later give the same answer.
//
// One aggregate is one file: rules in words, state, events, Apply, commands,
// Decide, in that order.
package domain
