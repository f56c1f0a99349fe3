package mqtt

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors"
)

var errLease = errors.New("the lease is over")

// asks is a permit for so many acts.
type asks struct{ left int }

func (a *asks) Err() error {
	if a.left == 0 {
		return errLease
	}
	a.left--
	return nil
}

// sink takes every byte.
type sink struct {
	net.Conn
	got int
}

func (s *sink) Write(p []byte) (int, error) { s.got += len(p); return len(p), nil }

// A write goes out a step at a time, each with a permit of its own; after the
// first that has none nothing goes out, also if there is a permit again.
func TestEveryStepOfAWriteIsPermitted(t *testing.T) {
	const bytes = 5*permitStep + 7
	for n := range 8 {
		s := &sink{}
		a := &asks{n}
		c := (&endpoint{Connection: Connection{Permit: a}}).permit(s)
		k, err := c.Write(make([]byte, bytes))
		want := min(n*permitStep, bytes)
		if k != want || s.got != want {
			t.Errorf("%d permits: %d bytes, told %d", n, s.got, k)
		}
		if n < 6 && (!errors.Is(err, sensors.ErrNotPermitted) || !errors.Is(err, errLease)) || n >= 6 && err != nil {
			t.Errorf("%d permits: %v", n, err)
		}
		a.left = 1
		if _, again := c.Write([]byte{1}); (again == nil) != (err == nil) || err != nil && s.got != want {
			t.Errorf("%d permits: the next write: %v, %d bytes", n, again, s.got)
		}
	}
	if s := (&sink{}); (&endpoint{}).permit(s) != net.Conn(s) {
		t.Error("a connection without a permit to ask is another one")
	}
}

// Nothing is dialled without a permit, whatever the scheme.
func TestNothingIsDialledWithoutAPermit(t *testing.T) {
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		e, err := Connection{Broker: scheme + "://127.0.0.1:1", Permit: &asks{}}.resolve()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.dial(context.Background()); !errors.Is(err, sensors.ErrNotPermitted) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

// An entry of the journal in a site, as docs/MQTT.md has it.
func TestJournalOfASiteGolden(t *testing.T) {
	slot, err := encodeProgress(&progress{Seq: 7, QoS: 2, Piece: pieceKey{Epoch: 1, Site: "north", Attempt: 3, Counter: 7, Piece: 2}, Half: 1, Stage: released, Holder: &holder{1, "north", 3}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"seq":7,"qos":2,"piece":{"epoch":1,"site":"north","attempt":3,"counter":7,"piece":2},"half":1,"stage":"released","holder":{"epoch":1,"site":"north","attempt":3}}`
	if got := string(slot[slotHead : slotHead+len(want)]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
