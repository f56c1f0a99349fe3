package simulate

import (
	"math/bits"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// message is one message of a device; times in µs.
type message struct {
	at     int64
	ts     int64
	centi  int64 // hundredths of a °C
	seq    int64
	marker bool
	fault  Fault
}

const maxHeld = 4 // readings a device holds back at a time; with more it sends on time

// device is one sensor's script. Its clock shows true time + offset.
type device struct {
	name, topic string
	random      uint64
	wrong       Fault // Ahead, Behind or OK
	offset      int64
	silent      bool

	msg     message // the next to be sent
	again   bool    // msg goes out a second time
	reading int64   // own time of the next reading
	grid    int64   // own time of its place on the grid of Every
	marker  int64   // own time of the next marker
	mute    int64   // true time at which it falls silent
	join    int64   // sending time of the first message since it joined
	joined  bool
	over    bool
	claimed int64 // the last marker's own time
	seq     int64
	held    [maxHeld]message // held back; at: when they are due
	holds   int

	base, centi, peak int64 // temperature in hundredths: normal, now, of the warm spell
	spell             int   // readings left of the warm spell
}

const farAway = int64(dataflow.MaxTime)

func (d *device) begin(c *Config, i int) {
	d.name = Name(i)
	d.topic = "plant/" + d.name + "/telemetry"
	d.random = mix(c.Seed ^ mix(uint64(i)))
	switch u := d.unit(); {
	case u < c.Ahead:
		d.wrong, d.offset = Ahead, int64(c.AheadBy)
	case u < c.Ahead+c.Behind:
		d.wrong, d.offset = Behind, -int64(c.BehindBy)
	}
	d.silent = d.chance(c.Silent)
	d.base = 250 + d.below(300)
	d.grid = int64(c.Start) + d.offset + wholeMs(d.below(int64(c.Every)))
	d.claimed = -farAway
	d.rejoin(c)
}

// rejoin starts a time of talking with the reading that is next on the grid.
func (d *device) rejoin(c *Config) {
	d.jitter(c)
	d.marker = ceil(d.reading, int64(c.Interval))
	d.mute = farAway
	if d.silent {
		d.mute = d.reading - d.offset + d.within(c.Talk)
	}
	d.joined = false
	d.centi, d.spell = d.base, 0
}

func (d *device) jitter(c *Config) { d.reading = d.grid + wholeMs(d.below(int64(c.Every)/4+1)) }

// prepare makes the next message; false: the device will send no more.
func (d *device) prepare(c *Config) bool {
	if d.again {
		d.again = false
		d.msg.fault |= Duplicate
		d.msg.at += d.below(int64(c.Every)/8 + 1)
		return true
	}
	if d.joined && !d.msg.marker && d.sendHeld() {
		return true
	}
	for !d.over {
		if d.step(c) {
			d.again = d.chance(c.Duplicates)
			return true
		}
	}
	return false
}

// sendHeld sends a reading that was held back and is due, directly after one
// on time, so that no device comes back from silence with it.
func (d *device) sendHeld() bool {
	if d.msg.fault&Late != 0 {
		return false
	}
	for i, h := range d.held[:d.holds] {
		if h.at > d.msg.at {
			continue
		}
		h.at = d.msg.at
		d.msg = h
		d.holds--
		d.held[i] = d.held[d.holds]
		return true
	}
	return false
}

// step goes on to the next reading or marker; false: it gave no message.
func (d *device) step(c *Config) bool {
	end := farAway
	if c.Duration > 0 {
		end = int64(c.Start.Add(c.Duration))
	}
	next := min(d.reading, d.marker) - d.offset
	switch {
	case next >= d.mute && d.mute < end-int64(c.Silence.Min):
		d.fallSilent(c)
		return false
	case d.reading <= d.marker && next < end:
		return d.read(c)
	case d.marker < d.reading && next <= end:
		return d.flush(c, d.marker, next)
	}
	d.over = true
	last := end
	if d.wrong == Ahead {
		last += d.offset
	}
	if !d.joined || last <= d.claimed {
		return false
	}
	return d.flush(c, last, end) // nothing follows: so this is true by a clock that is behind, too
}

func (d *device) fallSilent(c *Config) {
	if d.chance(c.Gone) {
		d.over = true
		return
	}
	until := d.mute + d.within(c.Silence)
	d.grid += ceil(max(0, until+d.offset-d.grid), int64(c.Every))
	d.rejoin(c)
}

// send fills in what all messages share. when is the true time of its making.
func (d *device) send(c *Config, m message, when int64) {
	m.at = max(d.msg.at, when+d.below(int64(c.Delay)+1))
	m.fault |= d.wrong
	d.msg = m
	if !d.joined {
		d.joined, d.join = true, m.at
	}
}

func (d *device) flush(c *Config, ts, when int64) bool {
	d.marker = ts + int64(c.Interval)
	d.claimed = ts
	d.seq++
	d.send(c, message{ts: ts, marker: true, seq: d.seq}, when)
	return true
}

func (d *device) read(c *Config) bool {
	ts := d.reading
	d.grid += int64(c.Every)
	d.jitter(c)
	settled := d.joined && ts >= d.join+int64(c.Settle)
	d.warm(c, settled)
	d.seq++
	m := message{ts: ts, centi: d.centi, seq: d.seq}
	if settled && d.holds < maxHeld && d.chance(c.Late) {
		m.at, m.fault = ts-d.offset+d.within(c.LateBy), Late|d.wrong
		d.held[d.holds] = m
		d.holds++
		return false
	}
	d.send(c, m, ts-d.offset)
	return true
}

// warm moves the temperature by one reading: noise around the normal value,
// and now and then a warm spell with a door left open.
func (d *device) warm(c *Config, settled bool) {
	if d.spell == 0 && settled && d.chance(c.Excursions) {
		d.spell = 3 + int(d.below(18))
		d.peak = 900 + d.below(500)
	}
	target, pull := d.base, int64(8)
	if d.spell > 0 {
		d.spell--
		target, pull = d.peak, 2
	}
	d.centi += (target-d.centi)/pull + d.below(31) - 15
	if !settled {
		d.centi = min(d.centi, 700)
	}
}

func (d *device) next() uint64 {
	d.random += 0x9e3779b97f4a7c15
	return mix(d.random)
}

// below draws from 0..n-1, n > 0.
func (d *device) below(n int64) int64 {
	hi, _ := bits.Mul64(d.next(), uint64(n))
	return int64(hi)
}

func (d *device) unit() float64 { return float64(d.next()>>11) / (1 << 53) }

func (d *device) chance(p float64) bool { return d.unit() < p }

func (d *device) within(s Span) int64 { return int64(s.Min) + d.below(int64(s.Max-s.Min)+1) }

// mix is the finisher of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func wholeMs(t int64) int64 { return t - t%int64(dataflow.Millisecond) }

// ceil is the least multiple of n that is not below t.
func ceil(t, n int64) int64 { return -floor(-t, n) }

// floor is the largest multiple of n that is not above t.
func floor(t, n int64) int64 {
	r := t % n
	if r < 0 {
		r += n
	}
	return t - r
}
