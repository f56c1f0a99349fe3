package work

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// topicOf is what a feed subscribes; the leader reads the rest of its config.
func topicOf(f *coordinator.Feed) world.Topic {
	var c struct {
		Topic world.Topic `json:"topic"`
	}
	_ = json.Unmarshal(f.Config, &c)
	return c.Topic
}

// feeds is what an agent does with the logs of feeds: agent/feed with the
// decisions of store/logepoch. What is asked of one feed is done in order.
type feeds struct {
	p      *Agent
	queues map[string][]func(done func())
	owned  map[string]*owner
	copies map[string]*follower
	epochs map[string]uint64
}

func newFeeds(p *Agent) *feeds {
	return &feeds{p: p, queues: make(map[string][]func(func())), owned: make(map[string]*owner), copies: make(map[string]*follower), epochs: make(map[string]uint64)}
}

// logs are those on disk, as a process that starts says it.
func (s *feeds) logs() (all []coordinator.LogNow) {
	for _, name := range slices.Sorted(maps.Keys(s.p.Disk.Logs)) {
		if now := logNow(name, s.p.Disk.Logs[name]); now.Epoch > 0 {
			all = append(all, now)
		}
	}
	return all
}

// copyOf is a copy as the decisions see it.
func copyOf(l *world.Log) logepoch.Copy {
	c := logepoch.Copy{ID: l.ID, End: l.End(), Promised: l.Promised}
	if n := len(l.Entries); n > 0 {
		c.Epoch = l.Entries[n-1].Epoch
	}
	return c
}

// meaningful: where the log ends says where an epoch may start.
func meaningful(l *world.Log, epoch uint64) bool { return l.End() == 0 || l.Placed+1 >= epoch }

func logNow(feed string, l *world.Log) coordinator.LogNow {
	n := coordinator.LogNow{Feed: feed, Epoch: copyOf(l).Epoch, End: l.End()}
	if l.Promised > l.Placed {
		n.Epoch, n.Sealed = l.Promised, meaningful(l, l.Promised)
	}
	n.Epoch = max(n.Epoch, l.Placed)
	return n
}

func (s *feeds) tell(e worker.LogEvent) { s.p.Tell(worker.Event{Log: &e}) }

func (s *feeds) failed(feed string, epoch uint64, why string) {
	s.p.W.Tell("%s: feed %s epoch %d failed: %s", s.p.ID, feed, epoch, why)
	s.tell(worker.LogEvent{Failed: &worker.LogFailed{Feed: feed, Epoch: epoch, Why: why}})
}

func (s *feeds) do(e worker.Effect) {
	switch {
	case e.Own != nil:
		s.put(e.Own.Feed.Name, func(done func()) { s.own(e.Own, done) })
	case e.Follow != nil:
		s.put(e.Follow.Feed.Name, func(done func()) { s.follow(e.Follow, done) })
	case e.Seal != nil:
		s.put(e.Seal.Feed.Name, func(done func()) { s.seal(e.Seal, done) })
	case e.Rest != nil:
		s.put(*e.Rest, func(done func()) { s.leave(*e.Rest, 0, "it rests"); done() })
	case e.Drop != nil:
		s.put(*e.Drop, func(done func()) {
			s.leave(*e.Drop, 0, "it is deleted")
			s.p.Write(func() { delete(s.p.Disk.Logs, *e.Drop) }, func(error) { done() })
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
		s.tell(worker.LogEvent{Done: &feed})
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
			f.stream.Close(1)
		}
	}
}

// log is the copy on disk; a new one has its id from the world's generator.
func (s *feeds) log(feed string) *world.Log {
	if l := s.p.Disk.Logs[feed]; l != nil {
		return l
	}
	l := &world.Log{}
	for i := range l.ID {
		l.ID[i] = byte(s.p.W.Rand.IntN(256))
	}
	return l
}

func (s *feeds) own(r *worker.LogRole, done func()) {
	name, e := r.Feed.Name, r.Epoch
	s.leave(name, e.Epoch, fmt.Sprintf("epoch %d begins", e.Epoch))
	l := s.log(name)
	plan, err := logepoch.Owns(&e, copyOf(l))
	cut := plan.From
	if err == nil && l.Promised > e.Epoch {
		err = fmt.Errorf("epoch %d was promised", l.Promised)
	}
	if err != nil {
		s.failed(name, e.Epoch, err.Error())
		done()
		return
	}
	s.p.W.Tell("%s owns %s in epoch %d, members %s, start %d, it has %d", s.p.ID, name, e.Epoch, judge.NodesText(e.Members), e.Start, cut)
	s.p.Write(func() {
		l.Entries = l.Entries[:cut:cut]
		l.Placed, l.Promised = max(l.Placed, e.Epoch), max(l.Promised, e.Epoch)
		s.p.Disk.Logs[name] = l
	}, func(err error) {
		if err != nil {
			s.failed(name, e.Epoch, err.Error())
		} else {
			o := newOwner(s, name, topicOf(r.Feed), e, l)
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
	keep := logepoch.Keeps(&e, copyOf(l))
	if s.p.W.Bugs.NoCut {
		keep = l.End()
	}
	s.p.Write(func() {
		l.Entries = l.Entries[:keep:keep]
		l.Placed, l.Promised = max(l.Placed, e.Epoch), max(l.Promised, e.Epoch)
		s.p.Disk.Logs[name] = l
	}, func(err error) {
		if err != nil {
			s.failed(name, e.Epoch, err.Error())
		} else {
			s.p.W.Tell("%s follows %s in epoch %d, it has %d", s.p.ID, name, e.Epoch, l.End())
			s.copies[name] = &follower{s: s, name: name, epoch: e, log: l}
		}
		done()
	})
}

// seal cuts the copy to the chain, and promises durably to take nothing of the
// epoch, or of one below.
func (s *feeds) seal(r *worker.LogRole, done func()) {
	name, next := r.Feed.Name, r.Epoch.Epoch+1
	if s.p.W.Bugs.SkipSeal {
		s.tell(worker.LogEvent{Sealed: &coordinator.Sealed{Feed: name, Epoch: next, End: s.log(name).End()}})
		done()
		return
	}
	s.leave(name, next, fmt.Sprintf("epoch %d is about to begin", next))
	l := s.log(name)
	if l.Promised > next || l.Placed >= next {
		s.failed(name, next, "a later epoch was promised")
		done()
		return
	}
	end := logepoch.End(&r.Epoch, copyOf(l)).From
	if s.p.W.Bugs.NoCut {
		end = l.End()
	}
	s.p.Write(func() {
		l.Entries = l.Entries[:end:end]
		l.Placed, l.Promised = r.Epoch.Epoch, next
		s.p.Disk.Logs[name] = l
	}, func(err error) {
		if err != nil {
			s.failed(name, next, err.Error())
		} else {
			s.p.W.Tell("%s seals %s below %d at %d", s.p.ID, name, next, end)
			s.tell(worker.LogEvent{Sealed: &coordinator.Sealed{Feed: name, Epoch: next, End: end}})
		}
		done()
	})
}

// follower keeps the copy of a log that another agent owns.
type follower struct {
	s      *feeds
	name   string
	epoch  coordinator.LogEpoch
	log    *world.Log
	stream *world.Stream
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
		records []world.Record
	}
	logAck    struct{ end int64 }
	logRefuse struct {
		sealed bool
		why    string
	}
)

// take takes a stream that an owner opened.
func (s *feeds) take(st *world.Stream, h logHello) {
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
		st.At(1, func(any) {}, func() {})
		st.Send(1, no)
		return
	}
	if f.stream != nil {
		f.stream.Close(1)
	}
	f.stream = st
	st.At(1, func(m any) { f.obey(st, m.(logGroup)) }, func() {})
	st.Send(1, logState{copyOf(f.log), f.log.Promised})
}

// obey writes what the owner sends.
func (f *follower) obey(st *world.Stream, g logGroup) {
	if f.ended || f.stream != st {
		return
	}
	l := f.log
	if l.Promised > f.epoch.Epoch {
		st.Send(1, logRefuse{true, fmt.Sprintf("epoch %d was promised", l.Promised)})
		return
	}
	f.s.p.Write(func() {
		if p := g.plan; p != nil && p.Anew {
			l.ID, l.Entries = g.id, nil
		} else if p != nil && p.Cut && !f.s.p.W.Bugs.NoCut {
			l.Entries = l.Entries[:p.From:p.From]
		}
		if g.from == l.End() || f.s.p.W.Bugs.NoCut {
			l.Entries = append(l.Entries, g.records...)
		}
	}, func(err error) {
		switch {
		case f.ended || f.stream != st:
		case err != nil:
			st.Send(1, logRefuse{false, err.Error()})
			f.stream = nil
			st.Close(1)
		default:
			st.Send(1, logAck{l.End()})
		}
	})
}
