package mqtt

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// A gate that shuts before the broker's answer to SUBSCRIBE is looked at stays shut: what
// waits in the socket is heard by nobody, until something was read again. One that the
// connection before shut at its end holds no longer than that.
func TestAShutGateIsHeardByNobody(t *testing.T) {
	r := &Reader{arrived: make(chan struct{}, 1), s: &session{e: &endpoint{Connection: Connection{Clock: sensors.Wall{}, Events: func(Event) {}}}}}
	r.in.lanes = make([]lane, 2)
	granted := func() {
		t.Helper()
		if _, err := r.grants(map[string]byte{"a/b": 0}); err != nil {
			t.Fatal(err)
		}
	}
	first, second := &conn{}, &conn{}
	r.link = &link{conn: first}
	if r.hold() == nil { // an inbox of no messages is full
		t.Fatal("the gate is open")
	}
	if granted(); r.in.hears() {
		t.Error("the gate is shut, and silence counts")
	}
	if r.heard(first, true); !r.in.hears() {
		t.Error("it was read again, and nothing is heard")
	}
	r.down(r.link)
	if r.hold(); r.in.hears() {
		t.Error("there is no connection, and silence counts")
	}
	r.room, r.link = nil, &link{conn: second} // Read has made room
	r.heard(second, false)
	if granted(); !r.in.hears() || r.held {
		t.Error("the gate of another connection is in the way")
	}
}
