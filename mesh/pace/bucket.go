package pace

import "time"

// Class is what bytes are for. Those of a lower class go first.
type Class uint8

// The classes.
const (
	Control Class = iota // questions, answers
	Log                  // entries of logs
	Parts                // parts of checkpoints
	classes
)

// share is the least that a class gets while others before it take all: one byte for
// so many of theirs. So nothing waits for ever.
const share = 16

// Ticket is a wish to send, as Ask numbers them.
type Ticket uint64

// Bucket grants wishes, at most rate bytes a second on the average. After a pause it
// grants up to burst bytes at once. It has one caller at a time, whose now never goes
// back and may begin anywhere.
type Bucket struct {
	rate  int64
	burst time.Duration // as the time that it takes at that rate
	paid  time.Duration // when what was granted is through
	last  Ticket
	wait  [classes][]wish // oldest first
	owed  [classes]int64  // bytes that a class may send before those of lower ones
}

type wish struct {
	ticket Ticket
	bytes  int
}

// New is a bucket of so many bytes a second, which must be more than 0.
func New(rate, burst int64, now time.Duration) *Bucket {
	b := &Bucket{rate: rate}
	b.burst = b.lasts(burst)
	b.paid = now - b.burst
	return b
}

// lasts is how long bytes take.
func (b *Bucket) lasts(bytes int64) time.Duration {
	return time.Duration(float64(bytes) / float64(b.rate) * float64(time.Second))
}

// Ask wishes to send bytes of a class, behind the wishes of it before. They should be
// few: they are granted as one.
func (b *Bucket) Ask(c Class, bytes int) Ticket {
	b.last++
	b.wait[c] = append(b.wait[c], wish{b.last, bytes})
	return b.last
}

// Forget takes back a wish that was not granted.
func (b *Bucket) Forget(c Class, t Ticket) {
	for i, w := range b.wait[c] {
		if w.ticket == t {
			b.remove(c, i)
			return
		}
	}
}

func (b *Bucket) remove(c Class, i int) {
	b.wait[c] = append(b.wait[c][:i:i], b.wait[c][i+1:]...)
	if len(b.wait[c]) == 0 {
		b.owed[c] = 0
	}
}

// Grant is the wish that is granted now; false: none is, or none yet.
func (b *Bucket) Grant(now time.Duration) (Ticket, bool) {
	c, ok := b.next()
	if !ok || b.paid > now {
		return 0, false
	}
	w := b.wait[c][0]
	b.paid = max(b.paid, now-b.burst) + b.lasts(int64(w.bytes))
	b.owed[c] = max(0, b.owed[c]-int64(w.bytes))
	b.remove(c, 0)
	for d := c + 1; d < classes; d++ {
		if len(b.wait[d]) > 0 {
			b.owed[d] += max(1, int64(w.bytes)/share)
		}
	}
	return w.ticket, true
}

// next is the class whose turn it is: the lowest with a wish, or one that has waited
// for its share.
func (b *Bucket) next() (Class, bool) {
	first, ok := Class(0), false
	for c := Control; c < classes; c++ {
		switch {
		case len(b.wait[c]) == 0:
		case !ok:
			first, ok = c, true
		case b.owed[c] >= int64(b.wait[c][0].bytes):
			return c, true
		}
	}
	return first, ok
}

// Wait is how long nothing is granted from now on; false: nobody asks.
func (b *Bucket) Wait(now time.Duration) (time.Duration, bool) {
	_, ok := b.next()
	return max(0, b.paid-now), ok
}
