package ingress

import (
	"net/http/httptest"
	"testing"
)

// ReverseProxy flushes from a timer before there is a body. The head of an answer of known
// length then waits for its first piece, so that a small answer takes one packet; each
// piece is sent at once, and so is a head without a length.
func TestHeadWaitsForFirstPiece(t *testing.T) {
	to := httptest.NewRecorder()
	a := &answer{ResponseWriter: to, length: 5}
	if a.Flush(); to.Flushed {
		t.Error("the head was sent without the first piece")
	}
	if _, err := a.Write([]byte("he")); err != nil {
		t.Fatal(err)
	}
	if a.Flush(); !to.Flushed {
		t.Error("the first piece was not sent")
	}

	to = httptest.NewRecorder()
	a = &answer{ResponseWriter: to, length: 5}
	if a.head(); !to.Flushed {
		t.Error("the head was not sent when it had waited")
	}

	to = httptest.NewRecorder()
	a = &answer{ResponseWriter: to, length: -1}
	if a.WriteHeader(200); !to.Flushed {
		t.Error("the head of an answer without a length was not sent")
	}
}
