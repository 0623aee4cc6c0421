package logproof

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// maxRecord bounds the content of a leaf that is read here, in bytes. The record of a key
// has a few hundred.
const maxRecord = 16 << 10

// errRecord says that the content of a leaf is not the record of a key.
var errRecord = errors.New("it is not the record of a client's key")

// recordOf reads the content of a leaf: ten lines, and the bytes of data and metadata
// behind them. It gives the record's event stream, its event and the event's data.
func recordOf(content []byte) (stream, name string, data []byte, err error) {
	if len(content) > maxRecord {
		return "", "", nil, errRecord
	}
	var lines [10]string
	rest := content
	for i := range lines {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return "", "", nil, errRecord
		}
		lines[i], rest = string(line), after
	}
	length, err1 := strconv.Atoi(lines[8])
	meta, err2 := strconv.Atoi(lines[9])
	if lines[0] != "tunnox-record 1" || err1 != nil || err2 != nil || length < 0 || meta < 0 || length > len(rest) || len(rest)-length != meta {
		return "", "", nil, errRecord
	}
	return lines[1], lines[4], rest[:length], nil
}

// keyOf reads the key and its number from the record in which a client announced it.
func keyOf(content []byte, clientID int64) (key []byte, number int64, err error) {
	stream, name, data, err := recordOf(content)
	if err != nil {
		return nil, 0, err
	}
	if want := "client-" + strconv.FormatInt(clientID, 10); stream != want || name != "client_key_announced" {
		return nil, 0, fmt.Errorf("%w: it is %.60q of %.60q", errRecord, name, stream)
	}
	var event struct {
		StaticKey []byte `json:"static_key"`
		Number    int64  `json:"number"`
	}
	if err := json.Unmarshal(data, &event); err != nil || len(event.StaticKey) != 32 || event.Number < 1 {
		return nil, 0, errRecord
	}
	return event.StaticKey, event.Number, nil
}
