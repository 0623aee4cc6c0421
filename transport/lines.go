package transport

import (
	"container/list"
	"iter"
)

// lines holds the connections that wait to be served. Each address has a line of its
// own, and the lines take turns.
type lines struct {
	count  int
	byHost map[string]*line
	turns  list.List // the lines, in the order of their turns
}

// line holds the waiting connections of one address.
type line struct {
	host string
	list.List
	turn *list.Element // its place in lines.turns
}

func newLines() lines { return lines{byHost: make(map[string]*line)} }

// of counts the waiting connections of one address.
func (ls *lines) of(host string) int {
	if l := ls.byHost[host]; l != nil {
		return l.Len()
	}
	return 0
}

// add puts s at the end of its line.
func (ls *lines) add(s *Stranger) {
	l := ls.byHost[s.host]
	if l == nil {
		l = &line{host: s.host}
		l.turn = ls.turns.PushBack(l)
		ls.byHost[s.host] = l
	}
	s.address = l.PushBack(s)
	ls.count++
}

// next removes and returns the first connection of the next line that may be served.
// It returns nil when no line may.
func (ls *lines) next(may func(host string) bool) *Stranger {
	for e := ls.turns.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*line); may(l.host) {
			s := l.Front().Value.(*Stranger)
			ls.turns.MoveToBack(e)
			ls.remove(s)
			return s
		}
	}
	return nil
}

// remove takes s out of its line, and tells whether it was in one.
func (ls *lines) remove(s *Stranger) bool {
	l := ls.byHost[s.host]
	if l == nil || s.all != nil || s.address == nil {
		return false
	}
	l.Remove(s.address)
	s.address = nil
	ls.count--
	if l.Len() == 0 {
		ls.turns.Remove(l.turn)
		delete(ls.byHost, s.host)
	}
	return true
}

// all returns all connections that wait.
func (ls *lines) all() iter.Seq[*Stranger] {
	return func(yield func(*Stranger) bool) {
		for _, l := range ls.byHost {
			for e := l.Front(); e != nil; e = e.Next() {
				if !yield(e.Value.(*Stranger)) {
					return
				}
			}
		}
	}
}
