package feed

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// follower keeps the copy of a log that another agent owns. It serves one stream
// at a time: a new one of the owner ends the one before.
//
// Full: it says so, the stream ends, and the owner comes again with what may be let
// go.
type follower struct {
	s     *Feeds
	name  string
	epoch coordinator.LogEpoch
	lanes int

	turn sync.Mutex     // held by who uses the log
	log  *ingestlog.Log // nil: it must be opened

	mu     sync.Mutex  // guards what follows
	stream mesh.Stream // the present one; nil: none
	ended  bool
	users  sync.WaitGroup // those who serve a stream
}

// stop ends the stream and closes the log.
func (f *follower) stop() error {
	f.mu.Lock()
	f.ended = true
	if f.stream != nil {
		_ = f.stream.Close()
	}
	f.mu.Unlock()
	f.users.Wait()
	if f.log == nil {
		return nil
	}
	return f.log.Close()
}

// open opens the log if it is not. The caller has the turn.
func (f *follower) open() (err error) {
	if f.log != nil {
		return nil
	}
	f.log, err = ingestlog.Open(ingestlog.Options{
		Dir: folder(f.s.o.Dir, f.name), Lanes: f.lanes, FS: f.s.o.FS, Events: f.s.hearCopy(f.name), OpenDB: f.s.o.log.OpenDB, SegmentBytes: f.s.o.log.SegmentBytes,
	})
	if err == nil {
		err = f.place()
	}
	if err != nil && f.log != nil {
		_ = f.log.Close()
		f.log = nil
	}
	return err
}

// place cuts the copy to the chain of epochs, so that where it ends means
// something to who asks (Seal) before its owner comes.
func (f *follower) place() error {
	c := copyOf(f.log)
	cut := logepoch.Keeps(&f.epoch, c)
	if cut < c.First {
		return nil // the owner makes it begin anew
	}
	if cut < c.End {
		if _, err := f.log.CutTo(cut); err != nil {
			return err
		}
	}
	return f.log.Place(f.epoch.Epoch)
}

// take serves a stream that the owner of a log, or of a mirror, has opened.
func (s *Feeds) take(st mesh.Stream) {
	defer func() { _ = st.Close() }()
	in := wire.NewReader(st, firstFrames()...)
	_ = st.SetDeadline(time.Now().Add(memberPatience))
	kind, b, err := in.Next()
	var h hello
	var m mirrorHello
	no := refusal{code: refusedLater}
	switch {
	case err != nil:
		return
	case (kind == frameMirror || kind == framePacking) && m.decode(kind, b) == nil:
		no = s.serveMirror(st, in, m)
	case kind == frameHello && h.decode(b) == nil:
		no = s.serveOwner(st, in, h)
	default:
		return
	}
	if no.code == 0 {
		return
	}
	// Closing at once could overtake what was written: the other end closes when it
	// has read it. Who does not hear it finds the stream ended.
	_ = st.SetDeadline(time.Now().Add(memberPatience))
	_, err = st.Write(no.append(nil))
	for _ = st.CloseWrite(); err == nil; {
		_, _, err = in.Next()
	}
}

// serveOwner does what the owner of a log says until the stream ends; with a code
// in what it returns it is refused.
func (s *Feeds) serveOwner(st mesh.Stream, in *wire.Reader, h hello) refusal {
	s.mu.Lock()
	f, known := s.copies[h.feed], s.epochs[h.feed]
	s.mu.Unlock()
	no := refusal{code: refusedLater}
	switch {
	case h.epoch < known:
		no = refusal{refusedSealed, fmt.Sprintf("epoch %d has begun, or is about to", known)}
	case f == nil:
		no.why = "it is no member of the log's epoch, as far as it knows"
	case h.epoch > f.epoch.Epoch:
		no.why = fmt.Sprintf("it has not heard of epoch %d yet", h.epoch)
	case st.Peer().Node != f.epoch.Owner:
		no = refusal{refusedSealed, fmt.Sprintf("epoch %d is owned by %s", h.epoch, f.epoch.Owner)}
	case f.join(st):
		no = f.serve(st, in)
		f.leave(st)
	default:
		no.why = "it is about to change its role"
	}
	return no
}

// join makes a stream the present one; false: no stream is taken any more.
func (f *follower) join(st mesh.Stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	if f.stream != nil {
		_ = f.stream.Close()
	}
	f.stream = st
	f.users.Add(1)
	return true
}

func (f *follower) leave(st mesh.Stream) {
	f.mu.Lock()
	if f.stream == st {
		f.stream = nil
	}
	f.mu.Unlock()
	f.users.Done()
}

// serve does what the owner says until the stream ends; with a code in what it
// returns it is the member that ends it.
func (f *follower) serve(st mesh.Stream, in *wire.Reader) refusal {
	f.turn.Lock()
	defer f.turn.Unlock()
	err := f.open()
	if err == nil {
		err = f.log.Promise(f.epoch.Epoch)
	}
	if err == nil {
		err = f.obey(st, in)
	}
	switch {
	case err == nil:
		return refusal{}
	case errors.Is(err, ingestlog.ErrSealed):
		return refusal{refusedSealed, err.Error()}
	}
	f.s.o.Events(Event{Kind: Copying, Feed: f.name, Err: err})
	full := errors.Is(err, store.ErrFull)
	if f.log != nil && (!full || f.log.Broken() != nil) {
		_ = f.log.Close() // opening it again finds out what is there
		f.log = nil
	}
	if full {
		return refusal{refusedFull, err.Error()}
	}
	return refusal{refusedFailing, err.Error()}
}

// obey reads frames. Its error is the log's; nil: the stream ended.
func (f *follower) obey(st mesh.Stream, in *wire.Reader) error {
	l := f.log
	s := copyState{id: l.ID(), promised: l.Promised()}
	s.epoch, s.end = l.End()
	s.first, _ = l.First()
	if _, err := st.Write(s.append(nil)); err != nil {
		return nil
	}
	_ = st.SetDeadline(time.Time{})
	c := &copying{f: f, most: ingestlog.MaxGroup}
	for {
		kind, b, err := in.Next()
		if err != nil {
			return nil
		}
		ack, err := c.frame(kind, b, in.Buffered())
		if err != nil {
			return err
		}
		if ack < 0 {
			continue
		}
		if _, err := st.Write(appendSeq(nil, frameAck, ack)); err != nil {
			return nil
		}
	}
}

// blockCost is what a block takes in memory beside its bytes.
const blockCost = 64

// copying is what has come of a stream and is not on disk yet: at most a group
// more than copyPiece.
type copying struct {
	f      *follower
	most   int                    // bytes of a group; one with more ends the stream
	blocks []ingestlog.GroupBlock // of a group whose end has not come
	open   int                    // bytes of them
	groups []*ingestlog.Group
	bytes  int
}

// frame takes a frame; more says that another one is there already. It returns
// up to where the log is durable, if that is to be said, or -1.
func (c *copying) frame(kind byte, b []byte, more bool) (ack int64, err error) {
	l, by := c.f.log, c.f.epoch.Epoch
	switch kind {
	case frameBlock:
		if c.open += len(b) + blockCost; c.open > c.most {
			return -1, fmt.Errorf("%w: a group of more than %d bytes", errFrame, c.most)
		}
		block, err := decodeBlock(b)
		c.blocks = append(c.blocks, block)
		return -1, err
	case frameGroup:
		g, err := decodeGroup(b, c.blocks)
		if err != nil {
			return -1, err
		}
		c.blocks, c.open = nil, 0
		c.groups = append(c.groups, g)
		if c.bytes += g.Size(); more && c.bytes < copyPiece {
			return -1, nil
		}
		return c.write()
	case frameReplicated:
		seq, floor, err := decodeReplicated(b)
		if err != nil {
			return -1, err
		}
		l.Replicated(seq)
		if err := l.LetGo(floor); err != nil || more {
			return -1, err
		}
		return c.write()
	case frameCut:
		seq, err := decodeSeq(b)
		if err == nil {
			seq, err = l.CutTo(seq)
		}
		return seq, err
	case frameAnew:
		err := l.BeginAnew(by, b)
		if err == nil {
			err = l.Place(by)
		}
		_, end := l.End()
		return end, err
	}
	return -1, fmt.Errorf("%w: kind %d", errFrame, kind)
}

// write makes durable what has gathered.
func (c *copying) write() (int64, error) {
	if len(c.groups) == 0 {
		return -1, nil
	}
	if err := c.f.log.Take(c.f.epoch.Epoch, c.groups...); err != nil {
		return -1, err
	}
	end := c.groups[len(c.groups)-1].Next
	c.groups, c.bytes = c.groups[:0], 0
	return end, nil
}

func (s *Feeds) hearCopy(name string) func(ingestlog.Event) {
	return func(e ingestlog.Event) {
		if e.Kind == ingestlog.Damaged || e.Kind == ingestlog.Cleaned {
			s.o.Events(Event{Kind: Log, Feed: name, Log: e})
		}
	}
}
