//go:build hosts

package hosts

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// long tells whether the tests take the time that outages take outside.
func long() bool { return os.Getenv("TIDEMARK_LONG") != "" }

// durable starts a crashJob in dir, on the state that is there.
func durable(t *testing.T, dir, broker string, qos byte) *running {
	t.Helper()
	return runIn(t, dir, nil, crashJob(broker, qos), "--state", "state")
}

// kill is kill -9.
func (r *running) kill(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGKILL)
	r.exit(t)
}

// stopDurable stops a durable job with a savepoint.
func (r *running) stopDurable(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGTERM)
	if code := r.exit(t); code != 0 {
		t.Fatalf("after SIGTERM: exit code %d\n%s", code, tail(r.output()))
	}
}

// middle waits until k of n parts of all messages are with the broker.
func (f *fleet) middle(t *testing.T, s scale, k, n int) {
	t.Helper()
	await(t, "publishers to be in the middle", func() bool { return f.acked.Load() > int64(k*s.messages()/n) }, func() string { return fmt.Sprint(f.acked.Load()) })
}

// countedOnce: every copy of a reading that came in is in its window or among
// the late ones, once.
func countedOnce(t *testing.T, r *running) {
	t.Helper()
	want := make(map[windowKey]int64)
	key := func(a arrival) windowKey { return windowKey{a.Device, a.Ts - a.Ts%interval} }
	for _, a := range rows[arrival](t, r, "raw.jsonl") {
		if a.Kind == "reading" {
			want[key(a)]++
		}
	}
	for _, a := range rows[arrival](t, r, "late.jsonl") {
		want[key(a)]--
	}
	for _, w := range rows[window](t, r, "windows.jsonl") {
		want[windowKey{w.Device, w.Start}] -= w.N
	}
	wrong := 0
	for k, n := range want {
		if n != 0 {
			if wrong++; wrong <= 10 {
				t.Errorf("window %v: %d readings more came in than are counted", k, n)
			}
		}
	}
}

func TestHostsDurableBrokerRestartedQoS1(t *testing.T) { durableBrokerRestarted(t, 1) }

func TestHostsDurableBrokerRestartedQoS2(t *testing.T) { durableBrokerRestarted(t, 2) }

// A broker that keeps its sessions is stopped and started again while eight
// publishers send; the job lives on, or is killed with it, or while it is away.
// What the broker acknowledged came once; what it did not, once or not at all.
func durableBrokerRestarted(t *testing.T, qos byte) {
	t.Parallel()
	s := scale{publishers: 8, devices: 5, intervals: 30, readings: 24}
	m := startMosquitto(t, raised+persistent)
	f := newFleet(s, m.url(), qos)
	dir := t.TempDir()
	r := durable(t, dir, m.url(), qos)
	r.says(t, "subscribed")
	f.hello(t, s)

	total := s.messages() / s.publishers
	wait := f.sending(total - s.devices*(s.readings+1)) // the last interval when all is well again
	restarts := []func(){
		func() {
			m.end(t, syscall.SIGTERM)
			r.says(t, "lost")
			m.start(t)
			r.saysTimes(t, "subscribed", 2)
		},
		func() {
			r.kill(t)
			m.end(t, syscall.SIGTERM)
			m.start(t)
			r = durable(t, dir, m.url(), qos)
			r.says(t, "subscribed")
		},
		func() {
			m.end(t, syscall.SIGTERM)
			r.kill(t)
			r = durable(t, dir, m.url(), qos)
			r.says(t, "unreachable")
			r.kill(t)
			r = durable(t, dir, m.url(), qos)
			m.start(t)
			r.says(t, "subscribed")
		},
	}
	for k, restart := range restarts {
		f.middle(t, s, k+1, len(restarts)+2)
		restart()
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	f.send(t, total)
	r.lastWindows(t, s)
	r.stopDurable(t)

	came := arrivals(t, r)
	again, unknown := 0, 0
	f.each(func(msg *message) {
		for i, try := range msg.tries {
			switch n := came[sentID{msg.id, i}]; {
			case n > 1:
				t.Errorf("message %d, try %d came %d times", msg.id, i, n)
			case n == 0 && try.acked >= 0:
				t.Errorf("message %d, try %d was acknowledged and did not come", msg.id, i)
			case n == 1 && try.acked < 0:
				unknown++
			}
			if i > 0 {
				again++
			}
		}
	})
	sameWindows(t, r, f.windows(func(*message) bool { return true }), false)
	countedOnce(t, r)
	t.Logf("%d messages, %d published again, %d came that were not acknowledged", s.messages(), again, unknown)
}

// The broker is killed, and the job with it. What the broker loses of what it
// had not saved is the broker's; all else came once.
func TestHostsDurableBrokerKilled(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 8, devices: 5, intervals: 30, readings: 24}
	m := startMosquitto(t, raised+persistent)
	f := newFleet(s, m.url(), 1)
	dir := t.TempDir()
	r := durable(t, dir, m.url(), 1)
	r.says(t, "subscribed")
	f.hello(t, s)

	total := s.messages() / s.publishers
	wait := f.sending(total / 2)
	f.middle(t, s, 1, 3)
	f.epoch.Store(saving)
	m.save(t)
	f.epoch.Store(saved)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	wait = f.sending(total - s.devices*(s.readings+1)) // so many remain, however fast the publishers were meanwhile
	mark := f.acked.Load()
	await(t, "publishers to go on", func() bool { return f.acked.Load() > mark+int64(s.messages()/10) }, m.output)
	f.epoch.Store(killed)
	m.end(t, syscall.SIGKILL)
	r.kill(t)
	m.start(t)
	f.epoch.Store(restarted)
	r = durable(t, dir, m.url(), 1)
	r.says(t, "subscribed")
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	f.send(t, total)
	r.lastWindows(t, s)
	r.stopDurable(t)

	lost, doubled := f.compareKilled(t, arrivals(t, r))
	countedOnce(t, r)
	t.Logf("%d messages: the broker lost %d that it had acknowledged, and brought %d twice", s.messages(), lost, doubled)
}

// The cable is cut for some time, the job is killed behind the cut, and another
// client takes over the client id and takes messages with it, which it does not
// acknowledge: each message came once.
func TestHostsDurableNetworkAndThief(t *testing.T) {
	for qos := range byte(2) {
		t.Run(fmt.Sprintf("qos %d", qos+1), func(t *testing.T) {
			t.Parallel()
			networkAndThief(t, qos+1)
		})
	}
}

func networkAndThief(t *testing.T, qos byte) {
	s := scale{publishers: 4, devices: 5, intervals: 60, readings: 11}
	outage := 2 * time.Second
	if long() {
		s.intervals, outage = 1200, time.Minute
	}
	m := startMosquitto(t, raised)
	net := newRelay(t, m.addr(), nil, nil)
	f := newFleet(s, m.url(), qos)
	dir := t.TempDir()
	r := durable(t, dir, net.url(), qos)
	r.says(t, "subscribed")
	f.hello(t, s)
	total := s.messages() / s.publishers
	part := func(k int) { f.send(t, total*k/8) }

	wait := f.sending(total / 8)
	net.cut()
	<-time.After(outage)
	net.mend()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	net.cut()
	part(2)
	r.kill(t)
	net.mend()
	r = durable(t, dir, net.url(), qos)
	r.says(t, "subscribed")
	wait = f.sending(total * 3 / 8)
	net.drop()
	r.saysTimes(t, "subscribed", 2)
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	for k := 4; k < 8; k++ {
		wait := f.sending(total * k / 8)
		f.middle(t, s, 2*k-1, 16)
		if k%2 == 0 {
			before := strings.Count(r.output(), "subscribed")
			steal(t, m.addr(), "crash/readings")
			r.saysTimes(t, "subscribed", before+1)
		} else {
			r.kill(t)
			steal(t, m.addr(), "crash/readings")
			r = durable(t, dir, net.url(), qos)
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
	}
	f.send(t, total)
	r.lastWindows(t, s)
	r.stopDurable(t)
	f.compareAll(t, r, s)
}

// steal connects with somebody else's client id, takes what comes at first, and
// goes without having acknowledged anything.
func steal(t *testing.T, addr, id string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion, hello.CleanSession, hello.ClientIdentifier = "MQTT", 4, false, id
	if err := hello.Write(c); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	answer, err := packets.ReadPacket(in)
	if a, ok := answer.(*packets.ConnackPacket); err != nil || !ok || !a.SessionPresent {
		t.Fatalf("the thief was answered %v, %v", answer, err)
	}
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // there may be nothing to take
	for range 200 {
		if _, err := packets.ReadPacket(in); err != nil {
			return
		}
	}
}
