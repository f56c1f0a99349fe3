package sim

import (
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// stream is an ordered stream between two processes, as the links have them.
// What is sent arrives in order or not at all. Where packets are lost, or an end
// stands still, it stalls, and breaks when it has been silent for too long; its
// ends hear of that at different times.
type stream struct {
	w     *World
	what  string
	ends  [2]*proc
	over  [2]bool // the end was told that it broke, or closed it
	take  [2]func(any)
	lost  [2]func()
	last  [2]dataflow.Time // when the last message of an end arrives
	stall [2][]any         // messages of an end that are lost again and again
	watch bool             // a look at whether it is silent is due
	sent  int
}

func (w *World) newStream(what string, a, b *proc) *stream {
	s := &stream{w: w, what: what, ends: [2]*proc{a, b}}
	live := w.streams[:0]
	for _, o := range w.streams {
		if !o.over[0] || !o.over[1] {
			live = append(live, o)
		}
	}
	clear(w.streams[len(live):])
	w.streams = append(live, s)
	return s
}

// at says what an end does with what comes, and when it breaks. End 0 opened it.
func (s *stream) at(i int, take func(any), lost func()) { s.take[i], s.lost[i] = take, lost }

// send sends from an end.
func (s *stream) send(i int, m any) {
	if s.over[i] {
		return
	}
	s.sent++
	delay := ms / 2
	if s.ends[0] == s.ends[1] {
		delay = ms / 20
	}
	if s.w.chance(50) {
		delay *= 20
	}
	t := max(s.w.soon(delay)+s.ends[i].n.slow/8, s.last[i])
	s.last[i] = t
	s.w.at(t, func() { s.arrive(i, m) })
}

func (s *stream) arrive(i int, m any) {
	to := 1 - i
	switch {
	case s.over[to]:
	case len(s.stall[i]) > 0 || !s.w.hears(s.ends[i].n.id, s.ends[to].n.id):
		s.stall[i] = append(s.stall[i], m)
		s.look()
	default:
		s.ends[to].live(func() {
			if !s.over[to] {
				s.take[to](m)
			}
		})
	}
}

// healed: what was lost arrives now.
func (s *stream) healed() {
	for i := range 2 {
		if !s.w.hears(s.ends[i].n.id, s.ends[1-i].n.id) {
			continue
		}
		late := s.stall[i]
		s.stall[i] = nil
		for _, m := range late {
			t := max(s.w.soon(ms), s.last[i])
			s.last[i] = t
			s.w.at(t, func() { s.arrive(i, m) })
		}
	}
}

// silentFor is when a stream breaks of which nothing is heard.
const silentFor = 2 * sec

// suspect: something has become of a node, so look whether the stream is silent.
func (s *stream) suspect(id mesh.NodeID) {
	if s.ends[0].n.id == id || s.ends[1].n.id == id {
		s.look()
	}
}

func (s *stream) look() {
	if s.watch || s.over[0] && s.over[1] {
		return
	}
	s.watch = true
	s.w.after(silentFor, func() {
		s.watch = false
		a, b := s.ends[0], s.ends[1]
		if !s.w.linked(a.n, b.n) || a.n.p != a || b.n.p != b {
			s.breakOff()
		}
	})
}

// breakOff ends the stream; each end is told when it notices.
func (s *stream) breakOff() {
	for i, p := range s.ends {
		s.w.after(10*ms, func() { p.live(func() { s.broken(i) }) })
	}
}

func (s *stream) broken(i int) {
	if !s.over[i] {
		s.over[i] = true
		s.lost[i]()
	}
}

// close ends it from one end.
func (s *stream) close(i int) {
	if s.over[i] {
		return
	}
	s.over[i] = true
	o := s.ends[1-i]
	if s.w.hears(s.ends[i].n.id, o.n.id) {
		t := max(s.w.soon(ms), s.last[i])
		s.w.at(t, func() { o.live(func() { s.broken(1 - i) }) })
		return
	}
	s.w.after(silentFor, func() { o.live(func() { s.broken(1 - i) }) })
}

// died: the process of an end was killed.
func (s *stream) died(p *proc) {
	for i := range s.ends {
		if s.ends[i] != p {
			continue
		}
		s.over[i] = true
		wait := 20 * ms // its kernel says so
		if s.w.chance(2) {
			wait = silentFor
		}
		o := s.ends[1-i]
		s.w.after(wait, func() { o.live(func() { s.broken(1 - i) }) })
	}
}

// call asks another agent something; done is called once, in this process, with
// an error if nothing came of it. The reply runs what it is given in the caller.
func (p *proc) call(to mesh.NodeID, serve func(q *proc, reply func(func())), failed func(why string)) {
	w := p.n.w
	over := false
	end := func(f func()) {
		p.live(func() {
			if !over {
				over = true
				f()
			}
		})
	}
	o := w.node(to)
	if o == nil || !w.linked(p.n, o) {
		w.after(100*ms, func() { end(func() { failed("agent " + string(to) + " is not reached") }) })
		return
	}
	q := o.p
	w.after(3*sec, func() { end(func() { failed("agent " + string(to) + " does not answer") }) })
	w.after(ms+o.slow/8, func() {
		if !w.hears(p.n.id, to) {
			return
		}
		q.live(func() {
			serve(q, func(f func()) {
				w.after(ms+p.n.slow/8, func() {
					if w.hears(to, p.n.id) {
						end(f)
					}
				})
			})
		})
	})
}
