package bridge

import (
	"net"
	"sync/atomic"

	"google.golang.org/grpc/mem"

	"github.com/tunnox-net/tunnox/bridge/bridgepb"
	"github.com/tunnox-net/tunnox/transport"
)

// Write returns when all of b is on its way. It does not wait until b is read.
func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.unlock()
	rest := [][]byte{b}
	for wrote := 0; ; s.writable.Wait() {
		n, err := s.write(rest, len(b)-wrote)
		wrote += n
		if err != nil || wrote == len(b) {
			return wrote, err
		}
	}
}

// write sends as much of the pieces as there is room for, and cuts the sent bytes from
// them. The caller holds the lock; write releases it while it sends.
func (s *stream) write(pieces [][]byte, size int) (n int, err error) {
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case s.err != nil:
			return n, s.err
		case s.cut != nil:
			return n, s.cut
		case s.peerClosed:
			return n, transport.ErrStopped
		case s.writeBy.Passed():
			return n, s.writeBy.Err()
		}
		part := min(size-n, maxData, s.credit)
		if part <= 0 || s.sending || !s.room(roomForData, &s.starved) {
			return n, nil
		}
		s.credit -= part
		pieces = s.sendData(pieces, part)
		n += part
	}
}

// room reports whether less than limit is unsent. If not, it sets waits, so that Put
// tells the caller when there is room. The caller holds the lock until it waits, so
// that it does not miss that.
func (s *stream) room(limit int64, waits *atomic.Bool) bool {
	if s.unsent.Load() < limit {
		return true
	}
	waits.Store(true)
	return s.unsent.Load() < limit
}

// sendData sends a frame of size bytes from the pieces and gives the remaining pieces.
// Then it sends what else is due. The caller holds the lock; sendData releases it while
// it sends.
func (s *stream) sendData(pieces [][]byte, size int) [][]byte {
	s.sending = true
	s.mu.Unlock()
	s.count.sent.Add(uint64(size))
	buffers := make(mem.BufferSlice, 0, 1+size/partSize)
	buffer := frameBuffer(size + dataHead)
	*buffer = appendDataHead(*buffer, size)
	for size > 0 {
		if len(pieces[0]) == 0 {
			pieces = pieces[1:]
			continue
		}
		n := min(size, len(pieces[0]), cap(*buffer)-len(*buffer))
		*buffer, pieces[0] = append(*buffer, pieces[0][:n]...), pieces[0][n:]
		if size -= n; size > 0 && len(*buffer) == cap(*buffer) {
			buffers = append(buffers, s.outgoing(buffer))
			buffer = frameBuffer(size)
		}
	}
	s.send(append(buffers, s.outgoing(buffer)))
	s.mu.Lock()
	s.sending = false
	s.flush()
	s.hasRoom() // it is the next writer's turn
	return pieces
}

// flush sends the grant and the end that are due, and half-closes the RPC when nothing
// more will be sent. If another goroutine is sending, that goroutine does it
// afterwards. The caller holds the lock; flush releases it while it sends.
func (s *stream) flush() {
	if s.sending {
		return
	}
	s.sending = true
	acted := false
	for !s.gone {
		s.finished = s.finished || s.err == nil && s.eof && s.sent >= bridgepb.End_END_WRITE
		var act func()
		switch {
		case s.endDue() || s.grantDue():
			if !s.room(roomForControl, &s.late) {
				break // Put calls flush again
			}
			control := s.outgoing(s.controlFrame())
			act = func() { s.send(mem.BufferSlice{control}) }
		case s.finished && !s.hungUp && s.hangUp != nil:
			s.hungUp = true
			act = func() { _ = s.hangUp() }
		}
		if act == nil {
			break
		}
		s.mu.Unlock()
		act()
		s.mu.Lock()
		acted = true
	}
	s.sending = false
	if acted {
		s.hasRoom() // a Write may have waited for its turn
	}
}

// endDue and grantDue report what is to be sent. The caller holds the lock.
func (s *stream) endDue() bool {
	return s.due > s.sent && !s.finished && (s.err == nil || s.due >= bridgepb.End_END_RESET)
}

func (s *stream) grantDue() bool {
	return s.owed >= grantAt && !s.finished && s.err == nil && !s.eof && !s.closed && !s.wasReset
}

// controlFrame encodes the end or the grant that is due. The caller holds the lock.
func (s *stream) controlFrame() *[]byte {
	b := frameBuffer(0)
	if s.endDue() {
		s.sent = s.due
		*b = appendEnd(*b, s.due)
	} else {
		*b = appendGrant(*b, s.owed)
		s.owed = 0
	}
	return b
}

// outgoing counts a buffer as unsent.
func (s *stream) outgoing(buffer *[]byte) mem.Buffer {
	s.unsent.Add(int64(len(*buffer) + frameHead))
	return mem.NewBuffer(buffer, (*sentBuffers)(s))
}

// send hands one frame to gRPC. Its error is not used: gRPC gives the receiver an error
// too, which says more.
func (s *stream) send(buffers mem.BufferSlice) { _ = s.rpc.SendMsg(outgoing{buffers}) }

// sentBuffers is told when a buffer is on the connection, or lost with the connection.
type sentBuffers stream

func (*sentBuffers) Get(n int) *[]byte { return frameBuffer(n) }

// Put is called by gRPC's writer, which must not wait.
func (b *sentBuffers) Put(buffer *[]byte) {
	s := (*stream)(b)
	s.unsent.Add(-int64(len(*buffer) + frameHead))
	recycle(buffer)
	if s.starved.Load() && s.starved.Swap(false) {
		s.mu.Lock()
		s.hasRoom()
		if s.tellRoom && s.onRoom != nil {
			s.tellRoom = false
			go s.onRoom()
		}
		s.mu.Unlock()
	}
	if s.late.Load() && s.late.Swap(false) {
		go func() {
			s.mu.Lock()
			defer s.unlock()
			s.flush()
		}()
	}
}
