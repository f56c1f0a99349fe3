package world

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Stream is an ordered stream between two processes, as the links have them.
// What is sent arrives in order or not at all. Where packets are lost, or an end
// stands still, it stalls, and breaks when it has been silent for too long; its
// ends hear of that at different times.
type Stream struct {
	w     *World
	ends  [2]*Proc
	over  [2]bool // the end was told that it broke, or closed it
	take  [2]func(any)
	lost  [2]func()
	last  [2]dataflow.Time // when the last message of an end arrives
	stall [2][]any         // messages of an end that are lost again and again
	watch bool             // a look at whether it is silent is due
}

// Open opens a stream of a kind to another process, which serves it. Who opened
// it has end 0.
func (p *Proc) Open(kind string, to *Proc) *Stream {
	w := p.W
	s := &Stream{w: w, ends: [2]*Proc{p, to}}
	live := w.streams[:0]
	for _, o := range w.streams {
		if !o.over[0] || !o.over[1] {
			live = append(live, o)
		}
	}
	clear(w.streams[len(live):])
	w.streams = append(live, s)
	to.serves[kind](s, p)
	return s
}

// At says what an end does with what comes, and when it breaks.
func (s *Stream) At(i int, take func(any), lost func()) { s.take[i], s.lost[i] = take, lost }

// Send sends from an end.
func (s *Stream) Send(i int, m any) {
	if s.over[i] {
		return
	}
	delay := s.w.way(s.ends[0].Node, s.ends[1].Node, ms/2)
	if s.ends[0] == s.ends[1] {
		delay = ms / 20
	}
	if s.w.Chance(50) {
		delay = min(20*delay, delay+10*s.w.Wan.Delay)
	}
	t := max(s.w.Soon(delay)+s.ends[i].Slow/8, s.last[i])
	s.last[i] = t
	s.w.At(t, func() { s.arrive(i, m) })
}

func (s *Stream) arrive(i int, m any) {
	to := 1 - i
	switch {
	case s.over[to]:
	case len(s.stall[i]) > 0 || !s.w.Hears(s.ends[i].ID, s.ends[to].ID):
		s.stall[i] = append(s.stall[i], m)
		s.look()
	default:
		s.give(to, m)
	}
}

func (s *Stream) give(to int, m any) {
	s.ends[to].Live(func() {
		if !s.over[to] {
			s.take[to](m)
		}
	})
}

// healed: what was lost arrives soon, and behind what is on its way, which then waits
// with it: nothing overtakes.
func (s *Stream) healed() {
	for i := range 2 {
		if len(s.stall[i]) == 0 || !s.w.Hears(s.ends[i].ID, s.ends[1-i].ID) {
			continue
		}
		s.last[i] = max(s.w.Soon(ms), s.last[i])
		s.w.At(s.last[i], func() { s.flush(i) })
	}
}

// flush gives an end what was lost, in order, unless it is lost again.
func (s *Stream) flush(i int) {
	if !s.w.Hears(s.ends[i].ID, s.ends[1-i].ID) {
		return
	}
	late := s.stall[i]
	s.stall[i] = nil
	for _, m := range late {
		s.give(1-i, m)
	}
}

// silentFor is when a stream breaks of which nothing is heard.
const silentFor = 2 * sec

// suspect: something has become of a node, so look whether the stream is silent.
func (s *Stream) suspect(id mesh.NodeID) {
	if s.ends[0].ID == id || s.ends[1].ID == id {
		s.look()
	}
}

func (s *Stream) look() {
	if s.watch || s.over[0] && s.over[1] {
		return
	}
	s.watch = true
	s.w.After(silentFor, func() {
		s.watch = false
		a, b := s.ends[0], s.ends[1]
		if !s.w.Linked(a.Node, b.Node) || a.P != a || b.P != b {
			s.breakOff()
		}
	})
}

// breakOff ends the stream; each end is told when it notices.
func (s *Stream) breakOff() {
	for i, p := range s.ends {
		s.w.After(10*ms, func() { p.Live(func() { s.broken(i) }) })
	}
}

func (s *Stream) broken(i int) {
	if !s.over[i] {
		s.over[i] = true
		s.lost[i]()
	}
}

// Close ends it from one end.
func (s *Stream) Close(i int) {
	if s.over[i] {
		return
	}
	s.over[i] = true
	o := s.ends[1-i]
	if s.w.Hears(s.ends[i].ID, o.ID) {
		t := max(s.w.Soon(ms), s.last[i])
		s.w.At(t, func() { o.Live(func() { s.broken(1 - i) }) })
		return
	}
	s.w.After(silentFor, func() { o.Live(func() { s.broken(1 - i) }) })
}

// died: the process of an end was killed.
func (s *Stream) died(p *Proc) {
	for i := range s.ends {
		if s.ends[i] != p {
			continue
		}
		s.over[i] = true
		wait := 20 * ms // its kernel says so
		if s.w.Chance(2) {
			wait = silentFor
		}
		o := s.ends[1-i]
		s.w.After(wait, func() { o.Live(func() { s.broken(1 - i) }) })
	}
}

// Close ends the streams of some that this process has an end of.
func (p *Proc) Close(streams []*Stream) {
	for _, s := range streams {
		for i := range s.ends {
			if s.ends[i] == p {
				s.Close(i)
			}
		}
	}
}

// Call asks another process something. Of answered and failed one is called, once,
// in this process.
func (p *Proc) Call(to mesh.NodeID, kind string, ask any, answered func(any), failed func(why string)) {
	w := p.W
	over := false
	end := func(f func()) {
		p.Live(func() {
			if !over {
				over = true
				f()
			}
		})
	}
	o := w.Node(to)
	if o == nil || !w.Linked(p.Node, o) {
		w.After(100*ms, func() { end(func() { failed("agent " + string(to) + " is not reached") }) })
		return
	}
	q := o.P
	w.After(3*sec, func() { end(func() { failed("agent " + string(to) + " does not answer") }) })
	w.After(w.way(p.Node, o, ms)+o.Slow/8, func() {
		if !w.Hears(p.ID, to) {
			return
		}
		q.Live(func() {
			q.answers[kind](ask, func(answer any) {
				w.After(w.way(p.Node, o, ms)+p.Slow/8, func() {
					if w.Hears(to, p.ID) {
						end(func() { answered(answer) })
					}
				})
			})
		})
	})
}
