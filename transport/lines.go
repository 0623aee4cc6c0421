package transport

import (
	"container/list"
	"iter"
)

// lines are connections that wait to be served: a line for each address, of which
// each has its turn.
type lines struct {
	count  int
	byHost map[string]*line
	turns  list.List // of lines
}

// line is of one address.
type line struct {
	host string
	list.List
	turn *list.Element // of lines.turns
}

func newLines() lines { return lines{byHost: make(map[string]*line)} }

// of counts those of one address.
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

// next takes out the first of the line whose turn it is, of those that may; nil when
// none may.
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

// remove takes s out of its line, if it is in it.
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

// all gives everybody who waits.
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
