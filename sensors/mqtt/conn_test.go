package mqtt

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func pair(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(a, time.Minute)
	t.Cleanup(func() { _ = c.Close(); _ = b.Close() })
	return c, b
}

// What was handed over before Close arrives.
func TestConnCloseFlushes(t *testing.T) {
	c, peer := pair(t)
	c.start()
	want := strings.Repeat("0123456789", 50_000)
	for i := 0; i < len(want); i += 10_000 {
		if _, err := c.Write([]byte(want[i : i+10_000])); err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan struct{})
	go func() { _ = c.Close(); close(closed) }()
	got, err := io.ReadAll(peer)
	if err != nil || string(got) != want {
		t.Errorf("%d bytes arrived, error %v; want %d", len(got), err, len(want))
	}
	<-closed
	if _, ok := c.offer([]byte("x")); ok {
		t.Error("takes more after Close")
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("writes after Close")
	}
}

// Paho takes the error of a closed socket for its own doing, and says nothing;
// so a failure must read otherwise, whenever Read meets it.
func TestConnFailureIsTold(t *testing.T) {
	why := errors.New("the reason")
	for _, live := range []bool{false, true} {
		c, _ := pair(t)
		c.start()
		c.live.Store(live)
		got := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			got <- err
			_, err = c.Read(make([]byte, 1))
			got <- err
		}()
		c.fail(why)
		for range 2 {
			if err := <-got; !errors.Is(err, why) {
				t.Errorf("live %v: Read returned %v", live, err)
			}
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, why) {
			t.Errorf("live %v: Write returned %v", live, err)
		}
	}
}

// A shut gate is left by failing and by closing.
func TestConnGate(t *testing.T) {
	why := errors.New("the reason")
	for name, end := range map[string]func(c *conn){
		"fail":  func(c *conn) { c.fail(why) },
		"close": func(c *conn) { _ = c.Close() },
	} {
		c, _ := pair(t)
		shut := make(chan struct{}, 1)
		c.hold = func() <-chan struct{} { shut <- struct{}{}; return make(chan struct{}) }
		c.live.Store(true)
		c.start()
		got := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			got <- err
		}()
		<-shut
		end(c)
		if err := <-got; err == nil || name == "fail" && !errors.Is(err, why) {
			t.Errorf("%s: Read returned %v", name, err)
		}
	}
}

// stalled is a connection whose peer does not read: a Write waits for Close.
type stalled struct {
	net.Conn
	writing, closed chan struct{}
	once            *sync.Once
}

func (s stalled) Write([]byte) (int, error) {
	close(s.writing)
	<-s.closed
	return 0, net.ErrClosed
}

func (s stalled) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

// A peer that does not read: offer says so, Write waits, send gives it up.
func TestConnFull(t *testing.T) {
	nc, peer := net.Pipe()
	dead := stalled{Conn: nc, writing: make(chan struct{}), closed: make(chan struct{}), once: new(sync.Once)}
	c := newConn(dead, time.Minute)
	t.Cleanup(func() { _ = c.Close(); _ = peer.Close() })
	c.start()
	// Once the flusher hangs in its first Write nothing takes from the buffer.
	if _, ok := c.offer([]byte("x")); !ok {
		t.Fatal("no room for the first byte")
	}
	<-dead.writing
	chunk := make([]byte, 256<<10)
	for ok := true; ok; {
		_, ok = c.offer(chunk)
	}
	wrote := make(chan error)
	go func() {
		_, err := c.Write([]byte("x"))
		wrote <- err
	}()
	c.send([]byte("x"))
	if err := <-wrote; !errors.Is(err, errStuck) {
		t.Errorf("Write returned %v", err)
	}
	<-c.done
}

// The count of bytes that offer returns is the one that flushed is told when
// they are written.
func TestConnCountsWhatIsWritten(t *testing.T) {
	c, peer := pair(t)
	done := make(chan int64, 100)
	c.flushed = func(total int64) { done <- total }
	c.start()
	if _, err := c.Write([]byte("connect")); err != nil {
		t.Fatal(err)
	}
	end, ok := c.offer([]byte("publish"))
	if !ok || end != 14 {
		t.Fatalf("offer: %d, %v", end, ok)
	}
	for total := int64(0); total < end; {
		total = <-done
		if total > end {
			t.Errorf("%d bytes written of %d", total, end)
		}
	}
	if _, err := io.ReadFull(peer, make([]byte, end)); err != nil {
		t.Error(err)
	}
}

// Each part of a message that is read is a sign of life, the answer to a ping is
// none: it says nothing of what else the broker does.
func TestConnCountsWhatComes(t *testing.T) {
	c, peer := pair(t)
	c.start()
	pong := []byte{0xD0, 0}
	message := appendPublish(nil, 0, false, 0, []byte("t"), make([]byte, 1000))
	for _, step := range []struct {
		wire  []byte
		signs bool
	}{{pong, false}, {message[:3], true}, {message[3:10], true}, {message[10:], true}, {pong, false}} {
		before := c.came.Load()
		if _, err := peer.Write(step.wire); err != nil {
			t.Fatal(err)
		}
		for range step.wire { // a byte at a time, as paho reads headers
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if signs := c.came.Load() != before; signs != step.signs {
			t.Errorf("after %d bytes: %v", len(step.wire), signs)
		}
	}
}
