package world

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Wan is what is between machines of different places (Node.Place): it is slow,
// and can lose everything in one or both directions. Streams over it stall and
// break as others do; letters are also lost, repeated and overtaken one by one.
type Wan struct {
	// Delay is how long a packet takes at least; twice that at most, most of the time.
	Delay dataflow.Time
	// Bad: of letters one in Bad is lost, one comes twice, and one comes seconds late.
	// 0: none.
	Bad int

	w   *World
	off map[[2]string]bool // nothing of the first place reaches the second
}

// Cut loses everything from one place to another.
func (n *Wan) Cut(from, to string) {
	n.off[[2]string{from, to}] = true
	for _, s := range n.w.streams {
		if s.ends[0].Place != s.ends[1].Place {
			s.look()
		}
	}
}

// Join ends what Cut began.
func (n *Wan) Join(from, to string) {
	delete(n.off, [2]string{from, to})
	n.w.healed()
}

// Carries tells whether packets of a place reach another one.
func (n *Wan) Carries(from, to string) bool { return !n.off[[2]string{from, to}] }

// Letter has something come to another place, once, twice or never, at any time:
// f is called each time that it comes there.
func (n *Wan) Letter(from *Proc, to string, f func()) {
	times, late := 1, dataflow.Time(0)
	if n.Bad > 0 {
		switch n.w.Rand.IntN(n.Bad) {
		case 0:
			return
		case 1:
			times = 2
		case 2:
			late = dataflow.Time(n.w.Rand.Int64N(int64(3 * sec)))
		}
	}
	for i := range times {
		n.w.After(n.Delay+from.Slow/8+late+dataflow.Time(i)*300*ms, func() {
			if n.Carries(from.Place, to) {
				f()
			}
		})
	}
}

// way is how long something small takes between two machines at least.
func (w *World) way(a, b *Node, near dataflow.Time) dataflow.Time {
	if a.Place != b.Place {
		return w.Wan.Delay
	}
	return near
}
