package transport

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// The frames of a WebSocket (RFC 6455, section 5.2). A session needs a small part of the
// protocol: binary frames whose borders mean nothing, ping, pong and close. No extension
// is agreed on.
//
// These frames are ours and not a library's, because the bytes of a session pass here.
// coder/websocket masks in pieces of 4 KiB, each of which becomes a TLS record and a
// system call, keeps 8 KiB of buffers and a goroutine for an idle connection, and cannot
// say whether a write would wait. The tests use it as the other end.

// Kinds of frames.
const (
	wsContinuation = 0x0
	wsText         = 0x1
	wsBinary       = 0x2
	wsClose        = 0x8
	wsPing         = 0x9
	wsPong         = 0xa
)

const (
	wsFin  = 0x80 // of the first byte: the last frame of its message
	wsMask = 0x80 // of the second byte: a key follows, with which the payload is masked

	wsHeaderMost  = 14  // bytes of the longest header
	wsControlMost = 125 // bytes of the longest payload of ping, pong and close
)

// errWebSocket means that the peer broke the rules for frames.
var errWebSocket = errors.New("the peer broke the WebSocket protocol")

// wsHeader is what stands before a frame's payload.
type wsHeader struct {
	kind   byte
	fin    bool
	masked bool
	key    [4]byte
	length uint64
}

// wsHeaderSize is how many bytes the header has that begins with these two bytes.
func wsHeaderSize(first [2]byte) int {
	size := 2
	switch first[1] &^ wsMask {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if first[1]&wsMask != 0 {
		size += 4
	}
	return size
}

// parseWSHeader reads a header. raw has exactly wsHeaderSize bytes.
func parseWSHeader(raw []byte) (h wsHeader, err error) {
	h.kind, h.fin, h.masked = raw[0]&0x0f, raw[0]&wsFin != 0, raw[1]&wsMask != 0
	rest := raw[2:]
	switch n := raw[1] &^ wsMask; n {
	case 126:
		h.length, rest = uint64(binary.BigEndian.Uint16(rest)), rest[2:]
	case 127:
		h.length, rest = binary.BigEndian.Uint64(rest), rest[8:]
	default:
		h.length = uint64(n)
	}
	copy(h.key[:], rest)
	switch control := h.kind >= wsClose; {
	case raw[0]&0x70 != 0:
		return h, fmt.Errorf("%w: an extension that nobody agreed on", errWebSocket)
	case h.kind != wsContinuation && h.kind != wsBinary && h.kind != wsClose && h.kind != wsPing && h.kind != wsPong:
		return h, fmt.Errorf("%w: a frame of kind %d", errWebSocket, h.kind)
	case control && (!h.fin || h.length > wsControlMost):
		return h, fmt.Errorf("%w: a control frame of %d bytes, or in parts", errWebSocket, h.length)
	case h.length > 1<<62:
		return h, fmt.Errorf("%w: a frame of %d bytes", errWebSocket, h.length)
	}
	return h, nil
}

// appendWSHeader appends the header to b.
func appendWSHeader(b []byte, h wsHeader) []byte {
	first, mask := h.kind, byte(0)
	if h.fin {
		first |= wsFin
	}
	if h.masked {
		mask = wsMask
	}
	switch {
	case h.length < 126:
		b = append(b, first, mask|byte(h.length))
	case h.length < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, first, mask|126), uint16(h.length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, first, mask|127), h.length)
	}
	if h.masked {
		b = append(b, h.key[:]...)
	}
	return b
}

// wsKey masks payloads, and takes the mask off. The zero value changes nothing.
type wsKey struct {
	key [4]byte
	set bool
	at  int // the byte of key that is next
	// wide is the key, many times. crypto/subtle then does 32 bytes at a time.
	wide [256]byte
	full bool // wide is of this key
}

// begin sets the key of the next payload.
func (k *wsKey) begin(h wsHeader) { k.key, k.set, k.at, k.full = h.key, h.masked, 0, false }

// apply writes the payload's next bytes, masked, to dst. dst may be src.
func (k *wsKey) apply(dst, src []byte) {
	if !k.set {
		if len(src) > 0 && &dst[0] != &src[0] {
			copy(dst, src)
		}
		return
	}
	if len(src) >= len(k.wide) && !k.full {
		k.full = true
		for i := range k.wide {
			k.wide[i] = k.key[i&3]
		}
	}
	for k.full && len(src) > 0 {
		n := subtle.XORBytes(dst, src, k.wide[k.at:]) // at most len(wide)-3, a number that need not be a multiple of 4
		dst, src, k.at = dst[n:], src[n:], (k.at+n)&3
	}
	for i, b := range src {
		dst[i] = b ^ k.key[k.at]
		k.at = (k.at + 1) & 3
	}
}
