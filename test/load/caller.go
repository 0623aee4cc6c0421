package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// callLimit bounds one request. It is long, because on a busy machine a second is
// nothing.
const callLimit = 30 * time.Second

// Caller is one connection to an API with one key. It speaks only as much HTTP/1.1 as
// it needs: on two cores that the server uses too, net/http's client would cost half of
// the measured time.
type Caller struct {
	conn    net.Conn
	reader  *bufio.Reader
	headers []byte // the lines that every request has after its first line
	request []byte
	answer  []byte
}

// Dial connects to an address, host:port.
func Dial(address, key string) (*Caller, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &Caller{conn: conn, reader: bufio.NewReaderSize(conn, 4<<10),
		headers: []byte(" HTTP/1.1\r\nHost: " + address + "\r\nAuthorization: Bearer " + key + "\r\n")}, nil
}

// Close ends the connection.
func (c *Caller) Close() error { return c.conn.Close() }

// Do makes one request and gives the answer, which is valid until the next request.
func (c *Caller) Do(method, path string, body []byte) (status int, answer []byte, err error) {
	b := append(c.request[:0], method...)
	b = append(append(b, ' '), path...)
	b = append(b, c.headers...)
	if body != nil {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	}
	b = append(append(b, "\r\n"...), body...)
	c.request = b
	if err := c.conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(b); err != nil {
		return 0, nil, err
	}
	return c.read()
}

var contentLength = []byte("Content-Length: ")

func (c *Caller) read() (status int, answer []byte, err error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, nil, fmt.Errorf("answer begins with %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("answer begins with %q", line)
	}
	length := 0
	for {
		if line, err = c.reader.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		if text, ok := bytes.CutPrefix(line, contentLength); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
				return 0, nil, fmt.Errorf("answer has %q", line)
			}
		}
	}
	if cap(c.answer) < length {
		c.answer = make([]byte, 2*length)
	}
	c.answer = c.answer[:length]
	_, err = io.ReadFull(c.reader, c.answer)
	return status, c.answer, err
}
