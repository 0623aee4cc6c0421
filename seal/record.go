package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// A record has the form of TLS 1.3 application data (RFC 8446, 5.2):
//
//	0     1     3        5                          5+n      6+n      22+n
//	+-----+-----+--------+--------------------------+--------+--------+
//	| 23  |0x303| 17 + n |  content, n bytes        |  kind  |  tag   |
//	+-----+-----+--------+--------------------------+--------+--------+
//	                     |<------- encrypted ---------------->|
//
// The nonce is the number of the record in its direction, from 0, combined with the
// direction's IV. The header is authenticated with it.
const (
	headerSize = 5
	tagSize    = 16
	overhead   = headerSize + 1 + tagSize
	// maxContent bounds the content of a record that is received.
	maxContent = 16 << 10
	// sentContent bounds that of a record that is made of a longer write: the record
	// is then one frame of a session.
	sentContent = 16354
	maxRecord   = overhead + maxContent
)

// kind says what a record is. It is encrypted.
type kind byte

const (
	kindData  kind = 23 // content: bytes of the stream, at least one
	kindEnd   kind = 1  // no content: the direction ends here
	kindReset kind = 2  // content: a code of 4 bytes; the direction ends early
	kindAck   kind = 3  // kept for streams that survive their carrier; refused
	kindMove  kind = 4  // no content: the next record of this direction comes on the lane
	kindRekey kind = 22 // content: keyUpdate; the next record has the next key and the number 0
)

// keyUpdate is the content of a rekey record: TLS's KeyUpdate, which asks for nothing.
const keyUpdate = "\x18\x00\x00\x01\x00"

const (
	// rekeyAfter is how many records a sender makes with one key: 16 GiB.
	rekeyAfter = 1 << 20
	// mostRecords is how many a receiver takes. Below 2^24.5 the confidentiality of
	// AES-GCM has the margin that RFC 8446, 5.5, wants.
	mostRecords = 1 << 24
)

// ErrRecord is the error of a record that the peer has not made, or not as the next one:
// it was changed, dropped, repeated or moved on its way, or it is not one that this
// version takes. Nothing of it was used.
var ErrRecord = errors.New("seal: a record is not the peer's next one")

// direction has the key of one direction of a stream.
type direction struct {
	secret [32]byte
	aes    bool
	aead   cipher.AEAD
	iv     [12]byte
	number uint64
	nonce  [12]byte // here, so that it is not allocated for each record
}

func newDirection(secret [32]byte, aes bool) (*direction, error) {
	d := &direction{secret: secret, aes: aes}
	return d, d.key()
}

// key makes cipher and IV of the secret.
func (d *direction) key() error {
	key, err := hkdf.Expand(sha256.New, d.secret[:], "tunnox seal key", 32)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	iv, err := hkdf.Expand(sha256.New, d.secret[:], "tunnox seal iv", len(d.iv))
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	copy(d.iv[:], iv)
	d.number = 0
	if !d.aes {
		d.aead, err = chacha20poly1305.New(key)
		return err
	}
	block, err := aes.NewCipher(key)
	if err == nil {
		d.aead, err = cipher.NewGCM(block)
	}
	return err
}

// next replaces the secret by one from which it cannot be computed.
func (d *direction) next() error {
	secret, err := hkdf.Expand(sha256.New, d.secret[:], "tunnox seal next", len(d.secret))
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	copy(d.secret[:], secret)
	return d.key()
}

// count gives the nonce of the next record.
func (d *direction) count() []byte {
	d.nonce = d.iv
	n := binary.BigEndian.Uint64(d.nonce[4:]) ^ d.number
	binary.BigEndian.PutUint64(d.nonce[4:], n)
	d.number++
	return d.nonce[:]
}

// seal appends a record to b, which does not overlap content.
func (d *direction) seal(b []byte, k kind, content []byte) []byte {
	start, size := len(b), len(content)+1+tagSize
	b = slices.Grow(b, headerSize+size)
	b = append(b, 23, 3, 3, byte(size>>8), byte(size))
	body := append(append(b, content...), byte(k))
	d.aead.Seal(body[start+headerSize:start+headerSize], d.count(), body[start+headerSize:], body[start:start+headerSize])
	return body[:len(body)+tagSize]
}

// size gives the length of the record whose header this is.
func size(header []byte) (int, error) {
	n := int(binary.BigEndian.Uint16(header[3:]))
	if header[0] != 23 || header[1] != 3 || header[2] != 3 || n < 1+tagSize || n > maxContent+1+tagSize {
		return 0, ErrRecord
	}
	return headerSize + n, nil
}

// open decrypts a whole record to b, which has room for its content and one byte more
// and begins where the record's body does or does not overlap with it.
func (d *direction) open(b, record []byte) (kind, []byte, error) {
	if d.number >= mostRecords {
		return 0, nil, ErrRecord
	}
	plain, err := d.aead.Open(b[:0], d.count(), record[headerSize:], record[:headerSize])
	if err != nil {
		return 0, nil, ErrRecord
	}
	last := len(plain) - 1
	return kind(plain[last]), plain[:last], nil
}
