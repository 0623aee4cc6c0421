package agent

import (
	"encoding/json"
	"time"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

// options are those options of a mapping that a source agent must know. It does not look at
// the others.
type options struct {
	IdleSeconds int `json:"idle_seconds"`
	Socks       *struct {
		Username string `json:"username"`
		Password string `json:"password"` // its hash
	} `json:"socks"`

	// Of the listener, beside its options.
	encryption string
	protocol   string
	target     int64 // client
	version    uint64
}

// sealed tells whether connections must be encrypted from end to end. A value that this
// agent does not know is taken for yes, so that nothing is sent in plain by mistake.
func (o *options) sealed() bool { return o.encryption != "" && o.encryption != "transport" }

// defaultIdle is for a mapping that does not say after how long a silent flow ends.
const defaultIdle = time.Minute

// optionsOf reads the options of a listener. The forwarder has checked them, so an option
// that cannot be read is of a kind that this agent does not know. It is left out.
func optionsOf(l *wirepb.Listener) (o options) {
	text := []byte(l.GetOptions())
	if len(text) > 0 && json.Unmarshal(text, &o) != nil {
		o = options{}
	}
	// Read by itself, so that no other option can take it away.
	var demand struct {
		Encryption string `json:"encryption"`
	}
	if len(text) > 0 && json.Unmarshal(text, &demand) != nil {
		demand.Encryption = "unreadable"
	}
	o.encryption, o.protocol, o.target, o.version = demand.Encryption, l.GetProtocol(), l.GetTargetClient(), l.GetVersion()
	return o
}

// idle is after how long a silent flow ends.
func (o options) idle() time.Duration {
	if o.IdleSeconds <= 0 {
		return defaultIdle
	}
	return time.Duration(o.IdleSeconds) * time.Second
}
