package datagram

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver takes the datagrams of a socket, many with one call. While none come the
// socket has no buffer: those are for the moment only, and shared by all sockets.
type receiver struct {
	raw  syscall.RawConn
	conn *net.UDPConn
}

// batchSize is how many datagrams one call takes.
const batchSize = 16

const controlSpace = 64 // for the address a datagram came in at

// batch is what one call fills.
type batch struct {
	headers [batchSize]header
	vectors [batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet6
	control [batchSize][controlSpace]byte
	buffer  [batchSize][MaxPayload + 1]byte
}

// header is struct mmsghdr.
type header struct {
	unix.Msghdr
	length uint32
	_      [4]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func (r *receiver) open(conn *net.UDPConn) (err error) {
	r.conn = conn
	r.raw, err = conn.SyscallConn()
	return err
}

// receive waits for datagrams and hands those on that have come.
func (r *receiver) receive(several, _ bool, each func(from netip.AddrPort, to netip.Addr, payload []byte)) error {
	var b *batch
	n, failure := 0, syscall.Errno(0)
	err := r.raw.Read(func(fd uintptr) bool {
		b = batches.Get().(*batch)
		n, failure = b.fill(fd, several)
		if failure == syscall.EAGAIN || failure == syscall.EINTR {
			batches.Put(b)
			b = nil
			return failure == syscall.EINTR
		}
		return true
	})
	if b == nil {
		return err
	}
	defer batches.Put(b)
	if failure != 0 {
		return failure
	}
	for i := range n {
		from, ok := source4or6(&b.names[i])
		if !ok {
			continue
		}
		var to netip.Addr
		if several {
			to = destination(b.control[i][:min(int(b.headers[i].Controllen), controlSpace)])
		}
		each(from, to, b.buffer[i][:b.headers[i].length])
	}
	return err
}

// fill takes what has come, without waiting.
func (b *batch) fill(fd uintptr, several bool) (int, syscall.Errno) {
	for i := range b.headers {
		h := &b.headers[i]
		b.vectors[i].Base = &b.buffer[i][0]
		b.vectors[i].SetLen(len(b.buffer[i]))
		h.Iov, h.Iovlen = &b.vectors[i], 1
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), uint32(unsafe.Sizeof(b.names[i]))
		h.Control = nil
		h.SetControllen(0)
		if several {
			h.Control = &b.control[i][0]
			h.SetControllen(controlSpace)
		}
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// source4or6 reads whose a datagram is.
func source4or6(name *unix.RawSockaddrInet6) (netip.AddrPort, bool) {
	port := (*[2]byte)(unsafe.Pointer(&name.Port)) // in the order of the network
	number := binary.BigEndian.Uint16(port[:])
	switch name.Family {
	case unix.AF_INET:
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), number), true
	case unix.AF_INET6:
		address := netip.AddrFrom16(name.Addr)
		if name.Scope_id != 0 {
			address = address.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
		}
		return unmapped(netip.AddrPortFrom(address, number)), true
	}
	return netip.AddrPort{}, false
}

// destination finds the address at which a datagram came in among its control messages;
// invalid if it is not there.
func destination(control []byte) netip.Addr {
	const head = unix.SizeofCmsghdr
	for len(control) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < head || size > len(control) {
			break
		}
		data := control[head:size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[4:8])) // the address of this machine, behind the index
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data[:16])).Unmap()
		}
		if size = unix.CmsgSpace(size - head); size > len(control) {
			break
		}
		control = control[size:]
	}
	return netip.Addr{}
}
