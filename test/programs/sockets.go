package programs

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// States of a TCP socket, as the kernel writes them into /proc/net/tcp.
const (
	Established = 0x01
	Listening   = 0x0A
)

// Socket is a TCP socket over IPv4, as the kernel sees it.
type Socket struct {
	Local, Remote netip.AddrPort
	State         int
	inode         string
}

// Sockets reads the kernel's table of this network namespace.
func Sockets() ([]Socket, error) {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	var all []Socket
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[0] == "sl" {
			continue
		}
		local, err1 := kernelAddress(fields[1])
		remote, err2 := kernelAddress(fields[2])
		state, err3 := strconv.ParseInt(fields[3], 16, 32)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, fmt.Errorf("/proc/net/tcp: %w in %q", err, line)
		}
		all = append(all, Socket{Local: local, Remote: remote, State: int(state), inode: fields[9]})
	}
	return all, nil
}

// kernelAddress reads ADDRESS:PORT, in hexadecimal and the machine's byte order.
func kernelAddress(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b) != 4 {
		return netip.AddrPort{}, fmt.Errorf("address %q", s)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	var ip [4]byte
	binary.NativeEndian.PutUint32(ip[:], binary.BigEndian.Uint32(b))
	return netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(number)), err
}

// ConnectionsTo counts the established connections that were accepted at addresses.
func ConnectionsTo(addresses ...string) (n int, err error) {
	sockets, err := Sockets()
	for _, s := range sockets {
		if s.State == Established && slices.Contains(addresses, s.Local.String()) {
			n++
		}
	}
	return n, err
}

// Listens gives the addresses that the process listens on, sorted.
func (p *Process) Listens() ([]netip.AddrPort, error) {
	sockets, err := Sockets()
	if err != nil {
		return nil, err
	}
	dir := fmt.Sprintf("/proc/%d/fd", p.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed since
		}
		if err != nil {
			return nil, err
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var addresses []netip.AddrPort
	for _, s := range sockets {
		if s.State == Listening && own[s.inode] {
			addresses = append(addresses, s.Local)
		}
	}
	slices.SortFunc(addresses, netip.AddrPort.Compare)
	return addresses, nil
}
