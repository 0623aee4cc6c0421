package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tunnox-net/tunnox/wholefile"
	"github.com/tunnox-net/tunnox/wire"
)

// Identity is who an agent is: a client id and the credential that proves it. An
// identity with a credential and without an id has yet to be registered.
type Identity struct {
	ClientID   int64
	Credential wire.Credential
}

// identityFile is the form of an identity on disk.
type identityFile struct {
	ClientID int64  `json:"client_id"`
	AuthCode string `json:"auth_code"`
	Server   string `json:"server,omitempty"` // who gave the id, for people

	Joined *Joined `json:"joined,omitempty"` // with an id only
}

// Joined is where an agent belongs that was invited: what its owner would have to say
// at every start otherwise.
type Joined struct {
	Servers []string `json:"servers"`
	Pins    []string `json:"pins,omitempty"`
	// API is the URL of the REST API as the server told it first, "" = it did not.
	API string `json:"api,omitempty"`
}

// State keeps the identity of an anonymous agent in a file that only its owner
// can read. Nil is a State that keeps nothing.
type State struct {
	// File is the path, usually DIR/client.json.
	File string
	// Joined is kept beside the identity, from when it has an id. Load reads it.
	Joined *Joined
}

// Load reads the identity. The zero Identity means that there is none yet.
func (s *State) Load() (Identity, error) {
	if s == nil {
		return Identity{}, nil
	}
	data, err := os.ReadFile(s.File)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, nil
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	info, err := os.Stat(s.File)
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Identity{}, fmt.Errorf("read identity: %s holds a secret and is open to others (mode %#o); run chmod 600 %s", s.File, mode, s.File)
	}
	var f identityFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Identity{}, fmt.Errorf("read identity: %s is not valid JSON; restore it, or delete it to register anew", s.File)
	}
	credential, err := wire.ParseAuthCode(f.AuthCode)
	if err != nil || f.ClientID < 0 {
		return Identity{}, fmt.Errorf("read identity: %s holds no identity; restore it, or delete it to register anew", s.File)
	}
	if f.Joined != nil {
		s.Joined = f.Joined
	}
	return Identity{ClientID: f.ClientID, Credential: credential}, nil
}

// Save writes the identity, so that after a crash at any moment the file holds
// either the old one or the new one.
func (s *State) Save(id Identity, server string) (err error) {
	if s == nil {
		return nil
	}
	content := identityFile{ClientID: id.ClientID, AuthCode: id.Credential.AuthCode(), Server: server}
	if id.ClientID != 0 {
		// A key without an id may still come to nothing: an agent that found a server
		// beside it would register there as nobody's.
		content.Joined = s.Joined
	}
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.File), 0o700); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := wholefile.Write(s.File, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}
