package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tunnox-net/tunnox/agent"
	"github.com/tunnox-net/tunnox/seal"
)

// sealKeyFile is where an agent keeps the key with which it encrypts from end to end,
// named as its socket is.
func sealKeyFile(state string, clientID int64) string {
	return strings.TrimSuffix(socketPath(state, clientID), ".sock") + ".key"
}

// parsePeerKeys reads what --peer-key was given.
func parsePeerKeys(texts []string) (agent.PinnedKeys, error) {
	keys := agent.PinnedKeys{}
	for _, text := range texts {
		client, key, _ := strings.Cut(text, "=")
		id, err := strconv.ParseInt(strings.TrimSpace(client), 10, 64)
		if err != nil || id <= 0 {
			return nil, fmt.Errorf("--peer-key %q: want CLIENT=KEY, such as 600000002=tnxk_...", text)
		}
		parsed, err := seal.ParsePublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("--peer-key of client %d: %w", id, err)
		}
		if was, twice := keys[id]; twice && was != parsed {
			return nil, fmt.Errorf("--peer-key names client %d twice, with different keys", id)
		}
		keys[id] = parsed
	}
	return keys, nil
}

// sealing gives what the agent encrypts from end to end with. Its key is made at the
// first start. The state is locked.
func (o *agentOptions) sealing() (*agent.Sealing, error) {
	file := sealKeyFile(o.state, o.clientID)
	keys, err := agent.OpenKeyring(file)
	if err != nil {
		return nil, err
	}
	if o.peerOnly {
		return &agent.Sealing{Keys: keys, Peers: o.peers}, nil
	}
	return &agent.Sealing{Keys: keys, Pinned: o.peers, Log: strings.TrimSuffix(file, ".key") + ".log.json"}, nil
}

// sealKeyCommand prints the public half of an agent's key, or a phrase of two.
func sealKeyCommand(s surroundings) *cobra.Command {
	var state, peer string
	var client int64
	var rotate bool
	cmd := &cobra.Command{Use: "key", Short: "Print the key with which this machine's agent encrypts from end to end", Args: cobra.NoArgs,
		Long: `Print the public half of the key with which this machine's agent encrypts the
connections of mappings with the encryption e2e. The agent makes the key at its first
start, and announces it to its server. Other agents take it from there, with a proof.
With --rotate the running agent takes another key, and prints it when it counts.

Who does not want to rely on proofs tells the agent at the other end the key by hand:

  tunnox agent --peer-key 600000001=tnxk_...

With --phrase KEY print eight groups of digits from both keys. The other machine shows
the same if nobody stands in between. "tunnox agent verify" does that for all keys
that the running agent knows.`}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if rotate {
			return (&localFlags{surroundings: s, state: state, clientID: client, timeout: 30 * time.Second}).rotateKey(cmd)
		}
		state, err := stateDir(s, state)
		if err != nil {
			return err
		}
		key, err := seal.LoadKey(sealKeyFile(state, client))
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("there is no key in %s: start the agent once, or give its --state and --client-id", state)
		}
		if err != nil {
			return err
		}
		text := key.Public().String()
		if peer != "" {
			other, err := seal.ParsePublicKey(peer)
			if err != nil {
				return usageError("--phrase: %v", err)
			}
			text = seal.Phrase(key.Public(), other)
		}
		_, err = fmt.Fprintln(s.stdout, text)
		return err
	}
	cmd.Flags().StringVar(&state, "state", "", "`directory` of the agent (environment: TUNNOX_STATE)")
	cmd.Flags().Int64Var(&client, "client-id", 0, "`id` of the client, for an agent that was started with --client-id")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "have the running agent take another key")
	cmd.Flags().StringVar(&peer, "phrase", "", "print the phrase of this key and the other end's `key`")
	cmd.MarkFlagsMutuallyExclusive("rotate", "phrase")
	return cmd
}
