package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tunnox-net/tunnox/wire/wirepb"
)

func controls() map[string]*wirepb.Control {
	bytes32 := bytes.Repeat([]byte{7}, 32)
	return map[string]*wirepb.Control{
		"challenge": {Message: &wirepb.Control_Challenge{Challenge: &wirepb.Challenge{MinVersion: 1, MaxVersion: 1, Nonce: bytes32}}},
		"hello": {Message: &wirepb.Control_Hello{Hello: &wirepb.Hello{Version: 1, ClientId: 600000000, Instance: "i", AgentVersion: "v1",
			Signature: bytes.Repeat([]byte{9}, 64), ConfigVersion: 7, ConfigDigest: bytes32}}},
		"welcome": {Message: &wirepb.Control_Welcome{Welcome: &wirepb.Welcome{Version: 1, ClientId: 600000000, Session: "s", Node: "node-001", PingSeconds: 5, DeadSeconds: 15}}},
		"refused": RefusedMessage(Refuse(Superseded)),
		"assign": {Message: &wirepb.Control_Assign{Assign: &wirepb.Assign{Version: 9, Full: true,
			Listeners: []*wirepb.Listener{{MappingId: 1001, Protocol: "tcp", Host: "127.0.0.1", Port: 8080, Version: 2, Name: "web"}}, Withdraw: []int64{1002}}}},
		"ack":     {Message: &wirepb.Control_Ack{Ack: &wirepb.Ack{Version: 9, Failures: []*wirepb.Failure{{MappingId: 1001, Code: string(AddressInUse)}}}}},
		"ping":    {Message: &wirepb.Control_Ping{Ping: &wirepb.Ping{Id: 3}}},
		"pong":    {Message: &wirepb.Control_Pong{Pong: &wirepb.Pong{Id: 3}}},
		"go_away": GoAwayMessage(ShuttingDown),
	}
}

// The bytes that other implementations have to write. A change here is a change
// of the protocol.
func TestGoldenBytes(t *testing.T) {
	for name, want := range map[string]string{
		"ping":    "00000004" + "3a020803",
		"pong":    "00000004" + "42020803",
		"welcome": "0000001b" + "1a19" + "0801" + "10808c8d9e02" + "1a0173" + "22086e6f64652d303031" + "2805" + "300f",
		"ack":     "00000019" + "3217" + "0809" + "1213" + "08e907" + "120e" + hex.EncodeToString([]byte("address_in_use")),
	} {
		b, err := AppendControl(nil, controls()[name])
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	open, err := AppendOpen(nil, &wirepb.Open{MappingId: 1001, Peer: "a:1"})
	if got := hex.EncodeToString(open); err != nil || got != "0008"+"08e907"+"1203613a31" {
		t.Errorf("open is %s, %v", got, err)
	}
	if got := AppendOpened(nil); !bytes.Equal(got, []byte{0, 0}) {
		t.Errorf("opened is %x", got)
	}
	var no bytes.Buffer
	if err := WriteOpened(&no, TargetOffline); err != nil {
		t.Fatal(err)
	}
	if want := "\x00\x34\x0a\x0etarget_offline\x12\x22" + TargetOffline.Sentence(); no.String() != want {
		t.Errorf("refused is %q, want %q", no.String(), want)
	}
}

func TestControlRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	all := controls()
	for _, m := range all {
		buf.Reset()
		if err := WriteControl(&buf, m); err != nil {
			t.Fatal(err)
		}
		buf.WriteString("rest")
		got, err := ReadControl(iotest.OneByteReader(&buf), MaxHandshake)
		if err != nil || !proto.Equal(got, m) {
			t.Fatalf("got %v, %v, want %v", got, err, m)
		}
		if buf.String() != "rest" {
			t.Fatalf("the reader left %q", buf.String())
		}
	}
}

// A header may arrive in any two pieces, and data may be right behind it.
func TestHeaderSplitAtEveryByte(t *testing.T) {
	open := &wirepb.Open{MappingId: 1001, Peer: "192.0.2.1:5", Service: "127.0.0.1:80", Trace: "t"}
	header, err := AppendOpen(nil, open)
	if err != nil {
		t.Fatal(err)
	}
	header = AppendOpened(header)
	whole := append(header, "data"...)
	for at := range len(whole) + 1 {
		r := io.MultiReader(bytes.NewReader(whole[:at]), bytes.NewReader(whole[at:]))
		got, err := ReadOpen(r)
		if err != nil || !proto.Equal(got, open) {
			t.Fatalf("split at %d: %v, %v", at, got, err)
		}
		if err := ReadOpened(r); err != nil {
			t.Fatalf("split at %d: %v", at, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "data" {
			t.Fatalf("split at %d: data is %q", at, rest)
		}
	}
	for at := range len(header) - 3 {
		_, err := ReadOpen(bytes.NewReader(header[:at]))
		want := io.ErrUnexpectedEOF
		if at == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Fatalf("cut at %d: %v, want %v", at, err, want)
		}
	}
}

func TestLimits(t *testing.T) {
	sized := func(n int) *wirepb.Control { // a Control whose body has exactly n bytes
		m := &wirepb.Control{Message: &wirepb.Control_GoAway{GoAway: &wirepb.GoAway{}}}
		m.GetGoAway().Message = strings.Repeat("x", n)
		over := proto.Size(m) - n
		m.GetGoAway().Message = strings.Repeat("x", n-over)
		return m
	}
	for _, limit := range []int{MaxHandshake, MaxControl} {
		b, err := AppendControl(nil, sized(limit))
		if err != nil || len(b) != controlPrefix+limit {
			t.Fatalf("at the limit: %d bytes, %v", len(b), err)
		}
		if _, err := ReadControl(bytes.NewReader(b), limit); err != nil {
			t.Fatalf("at the limit: %v", err)
		}
		if _, err := ReadControl(bytes.NewReader(b), limit-1); !errors.Is(err, Malformed) {
			t.Fatalf("one over the limit: %v", err)
		}
	}
	if _, err := AppendControl([]byte("kept"), sized(MaxControl+1)); err == nil {
		t.Fatal("a message over the limit was written")
	}
	if _, err := AppendOpen(nil, &wirepb.Open{Peer: strings.Repeat("x", MaxOpen)}); err == nil {
		t.Fatal("an Open over the limit was written")
	}
	// A length alone must not make the reader allocate or wait for a body.
	if _, err := ReadControl(strings.NewReader("\xff\xff\xff\xff"), MaxControl); !errors.Is(err, Malformed) {
		t.Fatalf("a length of 4 GiB: %v", err)
	}
	if _, err := ReadOpen(strings.NewReader("\xff\xff")); !errors.Is(err, Malformed) {
		t.Fatalf("an Open of 64 KiB: %v", err)
	}
}

func TestUnknownFieldsAndMessagesAreIgnored(t *testing.T) {
	body, _ := proto.Marshal(&wirepb.Open{MappingId: 1001})
	body = protowire.AppendTag(body, 999, protowire.BytesType)
	body = protowire.AppendString(body, "from the future")
	open, err := ReadOpen(bytes.NewReader(append([]byte{0, byte(len(body))}, body...)))
	if err != nil || open.MappingId != 1001 {
		t.Fatalf("%v, %v", open, err)
	}
	body = protowire.AppendTag(nil, 500, protowire.BytesType)
	body = protowire.AppendString(body, "x")
	m, err := ReadControl(bytes.NewReader(append([]byte{0, 0, 0, byte(len(body))}, body...)), MaxHandshake)
	if err != nil || m.Message != nil {
		t.Fatalf("%v, %v", m, err)
	}
	if err := Unexpected(m, "Hello"); !errors.Is(err, Malformed) {
		t.Fatalf("got the error %v, want %v", err, Malformed)
	}
}

func TestOpenedCarriesTheCode(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		code    Code
		message string
	}{
		"yes":           {nil, "", ""},
		"code":          {DialRefused, DialRefused, DialRefused.Sentence()},
		"refusal":       {&Refusal{Code: PolicyDenied, Message: "no"}, PolicyDenied, "no"},
		"without code":  {errors.New("secret detail"), Internal, Internal.Sentence()},
		"endless text":  {&Refusal{Code: Internal, Message: strings.Repeat("ü", MaxOpen)}, Internal, strings.Repeat("ü", MaxOpen/8)},
		"unknown code":  {Code("made_up"), "made_up", Code("made_up").Sentence()},
		"empty message": {&Refusal{Code: DialTimeout}, DialTimeout, DialTimeout.Sentence()},
	} {
		var buf bytes.Buffer
		if err := WriteOpened(&buf, c.err); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err := ReadOpened(&buf)
		if CodeOf(err) != c.code {
			t.Fatalf("%s: %v", name, err)
		}
		var r *Refusal
		if errors.As(err, &r) && r.Message != c.message {
			t.Fatalf("%s: message %q", name, r.Message)
		}
	}
}

func FuzzReadControl(f *testing.F) {
	for _, m := range controls() {
		b, _ := AppendControl(nil, m)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadControl(bytes.NewReader(b), MaxHandshake)
		if err != nil {
			return
		}
		again, err := AppendControl(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ReadControl(bytes.NewReader(again), MaxControl)
		if err != nil || !proto.Equal(m, back) {
			t.Fatalf("%v became %v, %v", m, back, err)
		}
	})
}

func FuzzReadOpen(f *testing.F) {
	b, _ := AppendOpen(nil, &wirepb.Open{MappingId: 1, Peer: "p", Service: "s", Trace: "t"})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ReadOpen(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := AppendOpen(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ReadOpen(bytes.NewReader(again)); err != nil || !proto.Equal(m, back) {
			t.Fatalf("%v became %v, %v", m, back, err)
		}
	})
}

func FuzzReadOpened(f *testing.F) {
	for _, err := range []error{nil, TargetOffline, Code("made_up")} {
		var buf bytes.Buffer
		_ = WriteOpened(&buf, err)
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := ReadOpened(bytes.NewReader(b))
		var r *Refusal
		if !errors.As(err, &r) {
			return
		}
		var buf bytes.Buffer
		if err := WriteOpened(&buf, r); err != nil && len(r.Code) < MaxOpen/4 {
			t.Fatal(err)
		}
	})
}
