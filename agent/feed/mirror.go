package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// This file is the owner of a feed that is a mirror: in place of a session it has
// a stream to whoever owns the log at the source's site. What comes is appended as
// it is, copied to the members like anything, and counts when all have it.

// upstream is where a mirror takes its log from.
type upstream struct {
	mu   sync.Mutex // guards what follows
	of   coordinator.MirrorOf
	next mesh.NodeID // that was named as the owner; empty: nobody was
	turn int         // of Options.Sources
}

// errAnew: the mirror must begin anew with head.
type errAnew struct{ head []byte }

func (errAnew) Error() string { return "the mirror begins anew" }

// errNoRoom: what the source sends is refused for want of room, and was for a while.
type errNoRoom struct{ error }

func (e errNoRoom) Unwrap() error { return e.error }

// noRoomMax is how long a mirror without room waits at most until it asks again: each
// time the source may send what cannot be kept, up to copyAhead.
const noRoomMax = dataflow.Minute

// mirror takes what the source has until ctx ends. Its error is one of the log
// that does not pass.
func (f *Feed) mirror(ctx context.Context) error {
	wait, room := retryMin, retryMax
	for {
		_, before := f.log.End()
		err := f.takeMirror(ctx)
		if anew := (errAnew{}); errors.As(err, &anew) {
			if err = f.replace(anew.head); err == nil {
				continue
			}
			if !errors.As(err, new(errNoRoom)) {
				return err
			}
		}
		if errors.As(err, new(logError)) || errors.Is(err, ingestlog.ErrSealed) || ctx.Err() != nil {
			return err
		}
		if _, end := f.log.End(); end > before {
			wait, room = retryMin, retryMax
		}
		pause := wait
		wait = min(2*wait, retryMax)
		if errors.As(err, new(errNoRoom)) {
			pause = room
			room = min(2*room, noRoomMax)
		}
		f.upstream.lost(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.owner.o.Clock.After(pause):
		}
	}
}

func (u *upstream) lost(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.of.Node, u.of.Why = "", err.Error()
}

// status is what a status says of the source.
func (u *upstream) status() *coordinator.MirrorOf {
	u.mu.Lock()
	defer u.mu.Unlock()
	return new(u.of)
}

// ask is the agent to ask next.
func (u *upstream) ask(all []mesh.NodeID) (mesh.NodeID, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if node := u.next; node != "" {
		u.next = ""
		return node, nil
	}
	if len(all) == 0 {
		return "", errors.New("no agent of that site is known")
	}
	u.turn++
	return all[u.turn%len(all)], nil
}

// replace has the mirror begin where its source does, and then its members. errNoRoom:
// it is as it was.
func (f *Feed) replace(head []byte) error {
	_, end := f.log.End()
	f.copies().stop()
	if err := f.anew(head); errors.Is(err, store.ErrFull) {
		if err := f.copyAgain(); err != nil {
			return err
		}
		return errNoRoom{err}
	} else if err != nil {
		return err
	}
	if first, _ := f.log.First(); end > 0 {
		f.upstream.mu.Lock()
		f.upstream.of.Lost += first - end
		f.upstream.mu.Unlock()
		f.emit(Event{Kind: Overtaken, Err: fmt.Errorf("entries %d to %d were not kept any more at site %s when they were needed", end, first-1, f.role.epoch.Mirror.Site)})
	}
	return f.copyAgain()
}

// copyAgain brings the members, which were stopped, to where the log is now.
func (f *Feed) copyAgain() error {
	f.mu.Lock()
	f.replicas = newReplicas(f)
	f.mu.Unlock()
	return f.gather()
}

// copies are the members' at present.
func (f *Feed) copies() *replicas {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.replicas
}

// takeMirror takes one stream of the source, until it breaks. Its error says why.
func (f *Feed) takeMirror(ctx context.Context) error {
	o, of := &f.owner.o, f.role.epoch.Mirror
	node, err := f.upstream.ask(o.Sources(*of))
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, memberPatience)
	st, err := o.Transport.Open(opening, node, mesh.Log)
	cancel()
	if err != nil {
		return fmt.Errorf("agent %s: %w", node, err)
	}
	defer func() { _ = st.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer stop()
	if st.Peer().Site != of.Site {
		return fmt.Errorf("agent %s is of site %q, not %q", node, st.Peer().Site, of.Site)
	}
	in := wire.NewReader(st, sourceFrames()...)
	if err := f.greetSource(st, in); err != nil {
		return fmt.Errorf("agent %s: %w", node, err)
	}
	f.upstream.mu.Lock()
	f.upstream.of.Node, f.upstream.of.Why = node, ""
	f.upstream.mu.Unlock()
	t := &taking{f: f, st: st, most: ingestlog.MaxGroup, moved: make(chan struct{}, 1), came: make(chan struct{}, 1), room: make(chan struct{}, 1), ended: make(chan struct{})}
	var helpers sync.WaitGroup
	helpers.Go(t.beat)
	helpers.Go(func() { t.read(in) })
	err = t.run(ctx)
	_ = st.Close()
	close(t.ended)
	helpers.Wait()
	return fmt.Errorf("agent %s: %w", node, err)
}

// greetSource says what is here. errAnew is the answer to begin anew, where
// anything is to be done for that.
func (f *Feed) greetSource(st mesh.Stream, in *wire.Reader) error {
	_ = st.SetDeadline(time.Now().Add(mirrorPatience))
	h := mirrorHello{feed: f.role.epoch.Mirror.Feed, as: f.name, id: f.log.ID(), packs: f.owner.o.Packs(st.Peer().Node)}
	if r := f.role.epoch.Reign; r != nil {
		h.reign = *r
	}
	_, h.end = f.log.End()
	if _, err := st.Write(h.append(nil)); err != nil {
		return err
	}
	kind, b, err := in.Next()
	switch {
	case err != nil:
		return err
	case kind == frameAnew:
		return f.plan(&h, b)
	case kind == frameFrom:
		from, err := decodeSeq(b)
		if err == nil && from != h.end {
			err = fmt.Errorf("%w: it sends from %d on, and %d is lacking", errFrame, from, h.end)
		}
		return err
	case kind != frameRefused:
		return fmt.Errorf("%w: kind %d", errFrame, kind)
	}
	var no refusal
	if err := no.decode(b); err != nil {
		return err
	}
	if no.code == refusedElsewhere {
		node := mesh.NodeID(no.why)
		if slices.Contains(f.owner.o.Sources(*f.role.epoch.Mirror), node) {
			f.upstream.mu.Lock()
			f.upstream.next = node
			f.upstream.mu.Unlock()
		}
		return fmt.Errorf("agent %s owns the log there", strings.ToValidUTF8(no.why, "?"))
	}
	return fmt.Errorf("it gives nothing: %s", strings.ToValidUTF8(no.why, "?"))
}

// plan is what is done where the source says that its log begins with head: errAnew,
// or nothing, if that is how it is here.
func (f *Feed) plan(h *mirrorHello, head []byte) error {
	id, first, lanes, err := ingestlog.Head(head)
	if err != nil {
		return err
	}
	mine, _ := f.log.First()
	switch {
	case lanes != f.log.Lanes():
		return fmt.Errorf("its log has %d lanes, this one %d", lanes, f.log.Lanes())
	case id == h.id && first == h.end && mine == h.end:
		return nil
	case h.end > 0 && (id != h.id || first < h.end):
		return errors.New("its log is another one of that name")
	}
	return errAnew{slices.Clone(head)}
}

// taking is a stream of the source. One goroutine reads, one makes durable what
// came, one says how far that is.
//
// Full, or a member away: what the source sends waits here, which is copyAhead, and
// a group; then nothing is read.
type taking struct {
	f      *Feed
	st     mesh.Stream
	most   int                    // bytes of a group; one with more ends the stream
	blocks []ingestlog.GroupBlock // of a group whose end has not come
	open   int                    // bytes of them
	raw    []byte                 // for what was packed
	moved  chan struct{}          // 1: more is durable
	came   chan struct{}          // 1: a group, or the end
	room   chan struct{}          // 1: some were taken
	ended  chan struct{}          // closed when nobody takes any more

	mu     sync.Mutex // guards what follows
	groups []*ingestlog.Group
	bytes  int
	why    error // the stream ended
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// beat says what all members have, when that moves and now and then.
func (t *taking) beat() {
	for {
		if _, err := t.st.Write(appendSeq(nil, frameAck, t.f.log.Shown())); err != nil {
			return
		}
		select {
		case <-t.ended:
			return
		case <-t.moved:
		case <-t.f.owner.o.Clock.After(mirrorBeat):
		}
	}
}

// read reads frames until the stream ends.
func (t *taking) read(in *wire.Reader) {
	for {
		_ = t.st.SetDeadline(time.Now().Add(mirrorPatience))
		kind, b, err := in.Next()
		if err == nil {
			err = t.frame(kind, b)
		}
		if err != nil {
			t.mu.Lock()
			t.why = err
			t.mu.Unlock()
			signal(t.came)
			return
		}
	}
}

func (t *taking) frame(kind byte, b []byte) error {
	switch kind {
	case frameBlock:
		if t.open += len(b) + blockCost; t.open > t.most {
			return fmt.Errorf("%w: a group of more than %d bytes", errFrame, t.most)
		}
		block, err := decodeBlock(b)
		t.blocks = append(t.blocks, block)
		return err
	case frameGroup:
		g, err := decodeGroup(b, t.blocks)
		if err != nil {
			return err
		}
		t.blocks, t.open = nil, 0
		return t.put(g)
	case framePacked:
		raw, err := unpacked(t.raw, b, t.f.owner.o.Packer, t.frame)
		t.raw = raw
		return err
	case frameStand:
		var s stand
		if err := s.decode(b); err != nil {
			return err
		}
		u := &t.f.upstream
		u.mu.Lock()
		u.of.End, u.of.Payload, u.of.Clock, u.of.Heard = s.end, s.payload, s.time(), t.f.owner.o.Clock.Now()
		u.mu.Unlock()
		return nil
	}
	return fmt.Errorf("%w: kind %d", errFrame, kind)
}

// put lets a group wait, and waits for room for more.
func (t *taking) put(g *ingestlog.Group) error {
	t.mu.Lock()
	t.groups = append(t.groups, g)
	t.bytes += g.Size()
	full := t.bytes > copyAhead
	t.mu.Unlock()
	signal(t.came)
	for full {
		_ = t.st.SetDeadline(time.Time{}) // it is not the source that is slow
		select {
		case <-t.ended:
			return ErrClosed
		case <-t.room:
		}
		t.mu.Lock()
		full = t.bytes > copyAhead
		t.mu.Unlock()
	}
	return nil
}

// take is the groups that are made durable with one commit; none: the stream has
// ended.
func (t *taking) take(ctx context.Context) ([]*ingestlog.Group, error) {
	for {
		t.mu.Lock()
		n, bytes := 0, 0
		for n < len(t.groups) && bytes < copyPiece {
			bytes += t.groups[n].Size()
			n++
		}
		some, why := slices.Clone(t.groups[:n]), t.why
		t.groups = slices.Delete(t.groups, 0, n)
		t.bytes -= bytes
		t.mu.Unlock()
		if n > 0 {
			signal(t.room)
			return some, nil
		}
		if why != nil {
			return nil, why
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.came:
		}
	}
}

// run makes durable what comes until the stream ends. Its error is why.
func (t *taking) run(ctx context.Context) error {
	for {
		groups, err := t.take(ctx)
		if err == nil {
			err = t.f.keep(ctx, groups)
		}
		if err != nil {
			return err
		}
		signal(t.moved)
		t.f.owner.o.Moved(t.f.name)
	}
}

// keep makes groups of the source durable, here and on all members. Where they are
// refused for want of room it tries for about retryMax: errNoRoom, and nothing of them is
// here. The room may only come when the mirror begins anew, and it must ask for that.
func (f *Feed) keep(ctx context.Context, groups []*ingestlog.Group) error {
	var staged []*ingestlog.Group
	since := dataflow.MaxTime // nothing was refused yet
	err := f.insist(ctx, func() error {
		err := f.stage(&staged, groups)
		if err == nil {
			err = f.write(staged)
		}
		if full := (logError{}); errors.Is(err, store.ErrFull) && errors.As(err, &full) {
			now := f.owner.o.Clock.Now()
			if since = min(since, now); now >= since.Add(retryMax) {
				return errNoRoom(full)
			}
		}
		return err
	})
	if err == nil {
		f.commits.Add(1)
	}
	if errors.As(err, new(errNoRoom)) && staged != nil {
		f.copies().stop()
		f.log.Unstage()
		if err := f.copyAgain(); err != nil {
			return err
		}
	}
	return err
}

// stage has the log adopt groups, once.
func (f *Feed) stage(staged *[]*ingestlog.Group, groups []*ingestlog.Group) (err error) {
	if *staged != nil {
		return nil
	}
	*staged, err = f.log.Adopt(groups...)
	if errors.Is(err, store.ErrFull) && f.log.MakeRoom(f.owner.o.Clock.Now()) == nil {
		*staged, err = f.log.Adopt(groups...)
	}
	if errors.Is(err, store.ErrFull) {
		return logError{err}
	}
	return err
}
