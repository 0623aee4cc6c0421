package forwarder

import "github.com/tunnox-net/tunnox/wait"

// backoff is the pause between tries of something that keeps failing: from 5 ms,
// doubled each time, to a second.
type backoff = wait.Backoff
