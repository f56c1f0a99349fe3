//go:build hosts

package hosts

import (
	"strings"
	"testing"
)

// twoDevices is a job whose device a is behind device b: were a taken for idle,
// the watermark would leap to b's, and a's next reading would be late.
type twoDevices struct {
	*running
	relay *relay
	a, b  *publisher
}

func startTwoDevices(t *testing.T, idleAfter string, args ...string) *twoDevices {
	t.Helper()
	m := startMosquitto(t, raised)
	d := &twoDevices{relay: newRelay(t, m.addr(), nil, nil)}
	text := strings.Replace(job(d.relay.url(), 1, true), "per: device", "per: device\n      idle_after: "+idleAfter, 1)
	d.running = run(t, "checkpoint: {interval: 100ms}\n"+text, args...)
	d.says(t, "subscribed")
	f := &fleet{}
	d.a = &publisher{fleet: f, name: "a", addr: m.addr(), qos: 1}
	d.b = &publisher{fleet: f, name: "b", addr: m.addr(), qos: 1}
	d.reading(t, d.a, 1_000)
	d.reading(t, d.b, 1_000)
	d.marker(t, d.a, 10_000)
	d.marker(t, d.b, 20_000)
	d.lines(t, "windows.jsonl", 2) // [0s, 10s) of both
	return d
}

func (d *twoDevices) reading(t *testing.T, p *publisher, ms int64) {
	t.Helper()
	d.put(t, p, message{ts: firstTime + ms, v: 1})
}

func (d *twoDevices) marker(t *testing.T, p *publisher, ms int64) {
	t.Helper()
	d.put(t, p, message{ts: firstTime + ms, marker: true})
}

func (d *twoDevices) put(t *testing.T, p *publisher, m message) {
	t.Helper()
	m.device, m.id = p.name, len(p.messages)
	p.messages = append(p.messages, m)
	if err := p.send(len(p.messages)); err != nil {
		t.Fatal(err)
	}
}

// afterwards: a's reading of the second window is not late, and the window
// counts it. While a was out of earshot, nothing was decided about it.
func (d *twoDevices) afterwards(t *testing.T) {
	t.Helper()
	d.catchUp(t)
	if got := d.stop(t); got.In != 8 || got.Late != 0 {
		t.Errorf("totals %+v", got)
	}
	d.compare(t)
}

// catchUp sends a's reading, which was missing, and waits for its window.
func (d *twoDevices) catchUp(t *testing.T) {
	t.Helper()
	d.reading(t, d.a, 15_000)
	d.marker(t, d.a, 20_000)
	d.reading(t, d.b, 25_000)
	d.marker(t, d.b, 30_000)
	d.lines(t, "windows.jsonl", 3)
}

func (d *twoDevices) compare(t *testing.T) {
	t.Helper()
	want := map[windowKey]window{
		{"a", firstTime}:          {"a", firstTime, firstTime + interval, 1, 1, 1},
		{"b", firstTime}:          {"b", firstTime, firstTime + interval, 1, 1, 1},
		{"a", firstTime + 10_000}: {"a", firstTime + 10_000, firstTime + 20_000, 1, 1, 1},
	}
	sameWindows(t, d.running, want, true)
}

// The way to the broker is gone, for longer than idle_after, and that is said:
// the time does not count as the devices' silence. What is heard before and after
// does: idle_after is long, so that a slow machine is not taken for a silent device.
func TestHostsNetworkRefused(t *testing.T) {
	t.Parallel()
	d := startTwoDevices(t, "15s")
	d.relay.away()
	d.says(t, "lost: .*next attempt in")
	d.says(t, `connecting \(attempt 8\)`) // the seven pauses before it last at least 15.8 s
	d.relay.mend()
	d.saysTimes(t, "subscribed", 2)
	d.afterwards(t)
}

// The cable is cut: the connection stands, and nothing comes through. The job
// says that it is deaf, nobody is declared idle, and it goes on, whether the
// connection outlives the cut or not.
func TestHostsNetworkCut(t *testing.T) {
	t.Parallel()
	d := startTwoDevices(t, "20s")
	d.relay.cut()
	d.says(t, "silent: ")
	d.relay.mend()
	d.says(t, "heard again")
	d.relay.cut()
	d.saysTimes(t, "silent: ", 2)
	d.says(t, "lost: .*next attempt in") // after 45 s: much later than idle_after
	d.relay.mend()
	d.saysTimes(t, "subscribed", 2)
	d.afterwards(t)
}
