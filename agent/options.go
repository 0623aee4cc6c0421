package agent

import (
	"encoding/json"
	"time"
)

// options are what a source agent must know of a mapping's options. Others are not its
// business, and it does not look at them.
type options struct {
	IdleSeconds int `json:"idle_seconds"`
	Socks       *struct {
		Username string `json:"username"`
		Password string `json:"password"` // its hash
	} `json:"socks"`
}

// defaultIdle is for a mapping that does not say after how long a silent flow ends.
const defaultIdle = time.Minute

// optionsOf reads the options of a listener. What cannot be read stands for none: the
// forwarder has checked them, so it is of a kind that this agent does not know.
func optionsOf(text string) (o options) {
	if text != "" && json.Unmarshal([]byte(text), &o) != nil {
		return options{}
	}
	return o
}

// idle is after how long a silent flow ends.
func (o options) idle() time.Duration {
	if o.IdleSeconds <= 0 {
		return defaultIdle
	}
	return time.Duration(o.IdleSeconds) * time.Second
}
