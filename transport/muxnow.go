package transport

import "io"

// A stream of the multiplexer is a Prompt too, for ends of other packages that stand on
// it and whose bytes are not its own, such as those of package seal. Splice moves its
// segments instead.
var _ Prompt = (*muxStream)(nil)

// ReadNow reads bytes that have come already.
func (st *muxStream) ReadNow(b []byte) (int, error) {
	st.s.mu.Lock()
	defer st.s.release(nil)
	switch {
	case st.readErr() != nil:
		return 0, st.readErr()
	case len(b) == 0:
		return 0, nil
	case st.in.size > 0:
		n := st.in.read(b)
		st.consume(n)
		return n, nil
	case st.wasReset:
		return 0, ErrReset
	case st.finGot:
		return 0, io.EOF
	}
	return 0, nil
}

// WriteNow queues as many bytes as there is room for.
func (st *muxStream) WriteNow(pieces [][]byte) (n int, err error) {
	st.s.mu.Lock()
	defer st.s.release(nil)
	if err := st.writeErr(); err != nil {
		return 0, err
	}
	for _, b := range pieces {
		for len(b) > 0 {
			room := min(st.room(), len(b), maxBody)
			if room <= 0 {
				st.starved = true
				if n > 0 {
					st.s.queue(st)
				}
				return n, nil
			}
			seg := newSegment(room)
			seg.append(b[:room])
			st.credit -= room
			st.out.give(seg)
			n, b = n+room, b[room:]
		}
	}
	if n > 0 {
		st.s.queue(st)
	}
	return n, nil
}

// Watch sets the functions that are called when ReadNow and WriteNow can make progress.
func (st *muxStream) Watch(onRead, onRoom func()) {
	var read, room hook
	if onRead != nil {
		read = &calls{onRead}
	}
	if onRoom != nil {
		room = &calls{onRoom}
	}
	st.watch(read, room)
}

// calls is a hook that calls a function.
type calls struct{ do func() }

func (c *calls) wake(*later) { c.do() }
