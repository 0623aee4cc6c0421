package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/tunnox-net/tunnox/seal"
)

// Keyring holds the key with which an agent encrypts from end to end, and while that is
// being changed the next one. One key counts at a time: the present one until the server's
// log is proven to have the next, and then only that. So no peer is left that knows neither,
// and a key that its owner has given up opens nothing any more.
type Keyring struct {
	file  string // "": the keys end with the process
	party atomic.Pointer[seal.Party]

	mu      sync.Mutex
	present seal.Key // guarded by mu
	next    seal.Key // guarded by mu; not valid: there is none
}

// OpenKeyring reads the key from a file, and makes one if there is none. The next key is in
// a file beside it. "" is a key that ends with the process.
func OpenKeyring(file string) (*Keyring, error) {
	k := &Keyring{file: file}
	var err error
	if file == "" {
		k.present, err = seal.NewKey()
	} else {
		k.present, err = seal.LoadOrCreateKey(file)
	}
	if err != nil {
		return nil, err
	}
	if file != "" {
		if k.next, err = seal.LoadKey(k.nextFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	k.party.Store(seal.NewParty(k.present))
	return k, nil
}

func (k *Keyring) nextFile() string { return k.file + ".next" }

// Party makes handshakes with the present key.
func (k *Keyring) Party() *seal.Party { return k.party.Load() }

// Public is the public half of the present key.
func (k *Keyring) Public() seal.PublicKey { return k.Party().Public() }

// wanted is the key that the log should have: the next one if there is one.
func (k *Keyring) wanted() seal.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next.Valid() {
		return k.next.Public()
	}
	return k.present.Public()
}

// has tells whether a key is one of this agent.
func (k *Keyring) has(key seal.PublicKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return key == k.present.Public() || k.next.Valid() && key == k.next.Public()
}

// rotate makes the next key, unless there is one, and gives its public half.
func (k *Keyring) rotate() (seal.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next.Valid() {
		return k.next.Public(), nil
	}
	var next seal.Key
	var err error
	if k.file == "" {
		next, err = seal.NewKey()
	} else {
		next, err = seal.LoadOrCreateKey(k.nextFile())
	}
	if err != nil {
		return seal.PublicKey{}, err
	}
	k.next = next
	return next.Public(), nil
}

// proven is told that the log has a key of this agent as the newest. If it is the next key,
// that becomes the present one. The key before is gone then.
func (k *Keyring) proven(key seal.PublicKey) (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.next.Valid() || k.next.Public() != key {
		return false, nil
	}
	if k.file != "" {
		if err := os.Rename(k.nextFile(), k.file); err != nil {
			return false, fmt.Errorf("take the next key: %w", err)
		}
	}
	k.present, k.next = k.next, seal.Key{}
	k.party.Store(seal.NewParty(k.present))
	return true, nil
}
