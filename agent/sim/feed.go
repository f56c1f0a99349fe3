package sim

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// flog is a copy of a feed's log on a disk: what is there is durable. It stands
// for store/ingestlog.
type flog struct {
	id       [16]byte
	entries  []record // entry i has sequence number i
	placed   uint64   // the epoch to whose chain it was cut
	promised uint64   // nothing below it is taken
}

// record is a message in a log.
type record struct {
	epoch   uint64
	lane    int
	message int
	packet  uint16
	arrival dataflow.Time
}

func (l *flog) end() int64 { return int64(len(l.entries)) }

func (l *flog) copy() logepoch.Copy {
	c := logepoch.Copy{ID: l.id, End: l.end()}
	if n := len(l.entries); n > 0 {
		c.Epoch = l.entries[n-1].epoch
	}
	return c
}

// meaningful: where the log ends says where an epoch may start.
func (l *flog) meaningful(epoch uint64) bool { return l.end() == 0 || l.placed+1 >= epoch }

// now is what a process that starts says of a log.
func (l *flog) now(feed string) coordinator.LogNow {
	n := coordinator.LogNow{Feed: feed, Epoch: l.copy().Epoch, End: l.end()}
	if l.promised > l.placed {
		n.Epoch, n.Sealed = l.promised, l.meaningful(l.promised)
	}
	n.Epoch = max(n.Epoch, l.placed)
	return n
}

// feeds is what an agent does with the logs of feeds: agent/feed with the
// decisions of store/logepoch. What is asked of one feed is done in order.
type feeds struct {
	p      *proc
	queues map[string][]func(done func())
	owned  map[string]*owner
	copies map[string]*follower
	epochs map[string]uint64
}

func newFeeds(p *proc) *feeds {
	return &feeds{p: p, queues: make(map[string][]func(func())), owned: make(map[string]*owner), copies: make(map[string]*follower), epochs: make(map[string]uint64)}
}

// opened tells the worker what is on disk.
func (s *feeds) opened() {
	for _, name := range sortedKeys(s.p.n.disk.logs) {
		if now := s.p.n.disk.logs[name].now(name); now.Epoch > 0 {
			s.p.step(worker.Event{Log: &worker.LogEvent{Opened: &now}})
		}
	}
}

func (s *feeds) tell(e worker.LogEvent) { s.p.tell(worker.Event{Log: &e}) }

func (s *feeds) failed(feed string, epoch uint64, why string) {
	s.p.n.w.trace("%s: feed %s epoch %d failed: %s", s.p.n.id, feed, epoch, why)
	s.tell(worker.LogEvent{Failed: &worker.LogFailed{Feed: feed, Epoch: epoch, Why: why}})
}

func (s *feeds) do(e worker.Effect) {
	switch {
	case e.Own != nil:
		s.put(e.Own.Feed.Name, func(done func()) { s.own(e.Own, done) })
	case e.Follow != nil:
		s.put(e.Follow.Feed.Name, func(done func()) { s.follow(e.Follow, done) })
	case e.Seal != nil:
		s.put(e.Seal.Feed, func(done func()) { s.seal(e.Seal, done) })
	case e.Rest != nil:
		s.put(*e.Rest, func(done func()) { s.leave(*e.Rest, 0, "it rests"); done() })
	case e.Drop != nil:
		s.put(*e.Drop, func(done func()) {
			s.leave(*e.Drop, 0, "it is deleted")
			s.p.write(func() { delete(s.p.n.disk.logs, *e.Drop) }, func(error) { done() })
		})
	}
}

// put adds to what is to be done of a feed.
func (s *feeds) put(feed string, f func(done func())) {
	s.queues[feed] = append(s.queues[feed], f)
	if len(s.queues[feed]) == 1 {
		s.next(feed)
	}
}

func (s *feeds) next(feed string) {
	s.queues[feed][0](func() {
		s.queues[feed] = s.queues[feed][1:]
		if len(s.queues[feed]) > 0 {
			s.next(feed)
		}
	})
}

// leave ends the role that this agent has.
func (s *feeds) leave(feed string, epoch uint64, why string) {
	s.epochs[feed] = max(s.epochs[feed], epoch)
	if o := s.owned[feed]; o != nil {
		o.stop(why)
	}
	if f := s.copies[feed]; f != nil {
		delete(s.copies, feed)
		f.ended = true
		if f.stream != nil {
			f.stream.close(1)
		}
	}
}

// log is the copy on disk; a new one has its id from the world's generator.
func (s *feeds) log(feed string) *flog {
	if l := s.p.n.disk.logs[feed]; l != nil {
		return l
	}
	l := &flog{}
	for i := range l.id {
		l.id[i] = byte(s.p.n.w.rng.IntN(256))
	}
	return l
}

func (s *feeds) own(r *worker.LogRole, done func()) {
	name, e := r.Feed.Name, r.Epoch
	s.leave(name, e.Epoch, fmt.Sprintf("epoch %d begins", e.Epoch))
	l := s.log(name)
	cut, err := logepoch.Owns(&e, l.copy())
	if err == nil && l.promised > e.Epoch {
		err = fmt.Errorf("epoch %d was promised", l.promised)
	}
	if err != nil {
		s.failed(name, e.Epoch, err.Error())
		done()
		return
	}
	s.p.n.w.trace("%s owns %s in epoch %d, members %s, start %d, it has %d", s.p.n.id, name, e.Epoch, nodesText(e.Members), e.Start, cut)
	s.p.write(func() {
		l.entries = l.entries[:cut:cut]
		l.placed, l.promised = max(l.placed, e.Epoch), max(l.promised, e.Epoch)
		s.p.n.disk.logs[name] = l
	}, func(err error) {
		if err != nil {
			s.failed(name, e.Epoch, err.Error())
		} else {
			o := newOwner(s, name, e, l)
			s.owned[name] = o
			o.start()
		}
		done()
	})
}

func (s *feeds) follow(r *worker.LogRole, done func()) {
	name, e := r.Feed.Name, r.Epoch
	s.leave(name, e.Epoch, fmt.Sprintf("epoch %d is owned by %s", e.Epoch, e.Owner))
	l := s.log(name)
	keep := logepoch.Keeps(&e, l.copy())
	if s.p.n.w.cfg.Bugs.NoCut {
		keep = l.end()
	}
	s.p.write(func() {
		l.entries = l.entries[:keep:keep]
		l.placed, l.promised = max(l.placed, e.Epoch), max(l.promised, e.Epoch)
		s.p.n.disk.logs[name] = l
	}, func(err error) {
		if err != nil {
			s.failed(name, e.Epoch, err.Error())
		} else {
			s.p.n.w.trace("%s follows %s in epoch %d, it has %d", s.p.n.id, name, e.Epoch, l.end())
			s.copies[name] = &follower{s: s, name: name, epoch: e, log: l}
		}
		done()
	})
}

// seal promises durably to take nothing of an epoch below.
func (s *feeds) seal(e *coordinator.Seal, done func()) {
	if s.p.n.w.cfg.Bugs.SkipSeal {
		l := s.log(e.Feed)
		s.tell(worker.LogEvent{Sealed: &coordinator.Sealed{Feed: e.Feed, Epoch: e.Epoch, End: l.end()}})
		done()
		return
	}
	s.leave(e.Feed, e.Epoch, fmt.Sprintf("epoch %d is about to begin", e.Epoch))
	l := s.log(e.Feed)
	if l.promised > e.Epoch {
		s.failed(e.Feed, e.Epoch, "a later epoch was promised")
		done()
		return
	}
	s.p.write(func() {
		l.promised = e.Epoch
		s.p.n.disk.logs[e.Feed] = l
	}, func(err error) {
		switch {
		case err != nil:
			s.failed(e.Feed, e.Epoch, err.Error())
		case !l.meaningful(e.Epoch):
			s.failed(e.Feed, e.Epoch, fmt.Sprintf("its copy was not part of the epoch before: it knows up to %d", l.placed))
		default:
			s.p.n.w.trace("%s seals %s below %d at %d", s.p.n.id, e.Feed, e.Epoch, l.end())
			s.tell(worker.LogEvent{Sealed: &coordinator.Sealed{Feed: e.Feed, Epoch: e.Epoch, End: l.end()}})
		}
		done()
	})
}

// follower keeps the copy of a log that another agent owns.
type follower struct {
	s      *feeds
	name   string
	epoch  coordinator.LogEpoch
	log    *flog
	stream *stream
	ended  bool
}

// What an owner and a member say.
type (
	logHello struct {
		feed  string
		epoch uint64
		owner mesh.NodeID
	}
	logState struct {
		copy     logepoch.Copy
		promised uint64
	}
	logGroup struct {
		plan    *logepoch.Plan // first: what becomes of the copy
		id      [16]byte
		from    int64
		records []record
	}
	logAck    struct{ end int64 }
	logRefuse struct {
		sealed bool
		why    string
	}
)

// take takes a stream that an owner opened.
func (s *feeds) take(st *stream, h logHello) {
	f, known := s.copies[h.feed], s.epochs[h.feed]
	no := logRefuse{}
	switch {
	case h.epoch < known:
		no = logRefuse{true, fmt.Sprintf("epoch %d has begun, or is about to", known)}
	case f == nil:
		no.why = "it is no member, as far as it knows"
	case h.epoch > f.epoch.Epoch:
		no.why = fmt.Sprintf("it has not heard of epoch %d yet", h.epoch)
	case h.owner != f.epoch.Owner:
		no = logRefuse{true, "another agent owns it"}
	}
	if no.why != "" {
		st.at(1, func(any) {}, func() {})
		st.send(1, no)
		return
	}
	if f.stream != nil {
		f.stream.close(1)
	}
	f.stream = st
	st.at(1, func(m any) { f.obey(st, m.(logGroup)) }, func() {})
	st.send(1, logState{f.log.copy(), f.log.promised})
}

// obey writes what the owner sends.
func (f *follower) obey(st *stream, g logGroup) {
	if f.ended || f.stream != st {
		return
	}
	l := f.log
	if l.promised > f.epoch.Epoch {
		st.send(1, logRefuse{true, fmt.Sprintf("epoch %d was promised", l.promised)})
		return
	}
	f.s.p.write(func() {
		if p := g.plan; p != nil && p.Anew {
			l.id, l.entries = g.id, nil
		} else if p != nil && p.Cut && !f.s.p.n.w.cfg.Bugs.NoCut {
			l.entries = l.entries[:p.From:p.From]
		}
		if g.from == l.end() || f.s.p.n.w.cfg.Bugs.NoCut {
			l.entries = append(l.entries[:len(l.entries):len(l.entries)], g.records...)
		}
	}, func(err error) {
		switch {
		case f.ended || f.stream != st:
		case err != nil:
			st.send(1, logRefuse{false, err.Error()})
			f.stream = nil
			st.close(1)
		default:
			st.send(1, logAck{l.end()})
		}
	})
}
