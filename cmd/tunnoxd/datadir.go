package main

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tunnox-net/tunnox/control"
	"github.com/tunnox-net/tunnox/wholefile"
)

// dataDir is the folder of one server: database, API key, identity, addresses. It is
// locked for the life of the process.
type dataDir struct {
	path  string
	lock  *os.File
	fresh bool // no server has started here before
}

// openDataDir makes the folder (0700) if it is missing, and locks it. Two servers with
// one folder would be one node to others, and in the embedded form they would not see
// each other's appends.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		fault := fmt.Errorf("lock data directory %s: %w", path, err)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			fault = fmt.Errorf("the data directory %s is used by another tunnoxd", path)
		}
		return nil, errors.Join(fault, lock.Close())
	}
	d := &dataDir{path: path, lock: lock}
	if err := d.checkFiles(os.Geteuid()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	d.fresh = true
	for _, name := range []string{"server.key", "agents.pem", "join-token"} { // each role leaves one of these files
		if _, err := os.Stat(d.file(name)); !errors.Is(err, fs.ErrNotExist) {
			d.fresh = false
		}
	}
	return d, nil
}

// checkFiles refuses a folder whose content others can read, change or have put there:
// who can read the files can act as the server.
func (d *dataDir) checkFiles(uid int) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	var faults []error
	if info, err := os.Stat(d.path); err == nil && info.Mode().Perm()&0o002 != 0 {
		faults = append(faults, fmt.Errorf("everybody on this machine can write to %s; run chmod o-w %s", d.path, d.path))
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() && !slices.Contains(publicFiles, entry.Name()) {
			faults = append(faults, private(d.file(entry.Name()), uid))
		}
	}
	return errors.Join(faults...)
}

// publicFiles are files of the folder that tell no secret.
var publicFiles = []string{"addresses.json", auditPublicFile, "server.crt", "cluster-ca.pem"}

// private refuses a file of another account, or one that everybody can read or write.
// Root may own files that are mounted, and a group may read them: so Kubernetes gives
// secrets to a process.
func private(path string, uid int) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("%s is open to everybody on this machine (mode %#o); run chmod o-rwx %s", path, mode, path)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != uid {
		return fmt.Errorf("%s belongs to another account (uid %d, this process runs as %d); run chown %d %s", path, owner.Uid, uid, uid, path)
	}
	return nil
}

// file gives the path of a file in the folder.
func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// close releases the folder for another server. The lock also ends with the process.
func (d *dataDir) close() error { return d.lock.Close() }

// writeAddresses writes the bound addresses for scripts, also for port 0. It is the
// last step of a start before traffic: when the file is there, connections work.
func (d *dataDir) writeAddresses(addresses map[string]string) error {
	b, err := json.MarshalIndent(addresses, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Write(d.file("addresses.json"), append(b, '\n'), 0o644)
}

// removeAddresses removes the file of writeAddresses: a script must not read the ports
// of a process that has ended, or of an earlier start.
func (d *dataDir) removeAddresses() error {
	err := os.Remove(d.file("addresses.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// nodeKey gives a random name that stays with the folder. A node id is leased under it,
// so that a restarted server gets its id back at once.
func (d *dataDir) nodeKey() (string, error) {
	path := d.file("node-key")
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read node key: %w", err)
	}
	key := rand.Text()
	return key, wholefile.Write(path, []byte(key+"\n"), 0o600)
}

// markRevoked keeps this folder's node from joining again under another id as soon as it
// is restarted.
func (d *dataDir) markRevoked() error {
	return wholefile.Write(d.file("revoked"), []byte("This node was revoked. Remove this file to let it join as a new node.\n"), 0o600)
}

// wasRevoked reports the mark.
func (d *dataDir) wasRevoked() error {
	switch _, err := os.Stat(d.file("revoked")); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil: // a mark that cannot be read may be there
		return fmt.Errorf("look whether this node was revoked: %w", err)
	}
	return fmt.Errorf("this node was revoked; to let it join as a new node, remove %s", d.file("revoked"))
}

// forgetNodeKey makes this a new node, for a process whose id is another node's.
func (d *dataDir) forgetNodeKey() error {
	for _, name := range []string{"node-key", "node-id"} {
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget node key: %w", err)
		}
	}
	return nil
}

// hasNodeCertificate reports whether this folder has had a certificate for a node.
func (d *dataDir) hasNodeCertificate(node string) bool {
	cert, err := tls.LoadX509KeyPair(d.file("node.pem"), d.file("node.pem"))
	return err == nil && control.FitsNode(node)(cert.Leaf)
}

// nodeID gives the last id of this node, "" when it had none.
func (d *dataDir) nodeID() (string, error) {
	b, err := os.ReadFile(d.file("node-id"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read node id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// keepNodeID stores the id, for a start after Redis has lost the leases.
func (d *dataDir) keepNodeID(id string) error {
	if had, err := d.nodeID(); err == nil && had == id {
		return nil
	}
	return wholefile.Write(d.file("node-id"), []byte(id+"\n"), 0o600)
}
