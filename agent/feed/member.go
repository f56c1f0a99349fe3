package feed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// errSilent is why a stream was given up.
var errSilent = fmt.Errorf("it owed an answer for %v", memberPatience)

// link is the owner's end of a stream to a member. One goroutine writes, one
// reads the answers.
type link struct {
	r  *replicas
	m  *member
	st mesh.Stream
	in *wire.Reader

	buf    []byte
	sent   int64 // under r.mu: what was written to the stream, up to this entry
	shown  int64 // what the member knows of
	floor  int64
	broken chan struct{} // closed when the reader has ended
	why    error         // of that
}

// serve opens a stream to a member, brings its copy up to date and keeps it so,
// until the stream breaks. Its error says why.
func (r *replicas) serve(m *member) error {
	ctx, cancel := context.WithTimeout(r.ctx, memberPatience)
	st, err := r.transport.Open(ctx, m.node, mesh.Log)
	cancel()
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	stop := context.AfterFunc(r.ctx, func() { _ = st.Close() })
	defer stop()
	k := &link{r: r, m: m, st: st, in: wire.NewReader(st, memberFrames()...), broken: make(chan struct{})}
	at, err := k.greet()
	if err != nil {
		return err
	}
	r.mu.Lock()
	k.sent, m.acked = at, at
	r.mu.Unlock()
	_ = st.SetDeadline(time.Time{})
	go k.listen()
	err = k.feed(at)
	_ = st.Close()
	<-k.broken
	if err == nil {
		err = k.why
	}
	return err
}

// greet asks what the member has and tells it what to do away with. It returns
// from where it is to be sent entries.
func (k *link) greet() (int64, error) {
	r := k.r
	_ = k.st.SetDeadline(time.Now().Add(memberPatience))
	if err := k.write(hello{r.name, r.epoch.Epoch, r.log.ID()}.append(nil)); err != nil {
		return 0, err
	}
	b, err := k.expect(frameState)
	if err != nil {
		return 0, err
	}
	var s copyState
	if err := s.decode(b); err != nil {
		return 0, err
	}
	p := r.plan(s)
	switch {
	case p.Anew:
		first, head := r.log.First()
		p.From = first
		err = k.write(wire.Append(nil, frameAnew, head))
	case p.Cut:
		// A cut may want room too. What the owner does not keep is before it.
		r.mu.Lock()
		floor := min(r.floor, p.From)
		r.mu.Unlock()
		err = k.write(appendSeq(appendReplicated(nil, 0, floor), frameCut, p.From))
	default:
		return p.From, nil
	}
	if err != nil {
		return 0, err
	}
	// Much may have to be deleted.
	_ = k.st.SetDeadline(time.Now().Add(12 * memberPatience))
	if b, err = k.expect(frameAck); err != nil {
		return 0, err
	}
	end, err := decodeSeq(b)
	if err == nil && (end > p.From || p.Anew && end != p.From) {
		err = fmt.Errorf("its copy ends at %d, and was to end at %d", end, p.From)
	}
	return end, err
}

func (k *link) write(b []byte) error {
	_, err := k.st.Write(b)
	return err
}

// expect reads a frame of one kind, or why the member refuses.
func (k *link) expect(kind byte) ([]byte, error) {
	is, b, err := k.in.Next()
	switch {
	case err != nil:
		return nil, err
	case is == kind:
		return b, nil
	case is != frameRefused:
		return nil, fmt.Errorf("%w: kind %d, not %d", errFrame, is, kind)
	}
	var no refusal
	if err := no.decode(b); err != nil {
		return nil, err
	}
	err = fmt.Errorf("it takes nothing: %s", no.why)
	switch no.code {
	case refusedSealed:
		err = fmt.Errorf("%w: %s", ingestlog.ErrSealed, no.why)
	case refusedFull:
		err = store.Full(err)
	}
	return nil, err
}

// listen takes the member's answers.
func (k *link) listen() {
	defer close(k.broken)
	for {
		b, err := k.expect(frameAck)
		var seq int64
		if err == nil {
			seq, err = decodeSeq(b)
		}
		if err != nil {
			k.why = err
			k.r.mu.Lock()
			if k.late() {
				k.why = errSilent
			}
			k.r.change()
			k.r.mu.Unlock()
			return
		}
		r := k.r
		r.mu.Lock()
		if seq > k.sent || seq < k.m.acked {
			k.why = fmt.Errorf("%w: it has %d, and was sent %d", errFrame, seq, k.sent)
			r.change()
			r.mu.Unlock()
			return
		}
		k.m.acked = seq
		k.owes()
		r.change()
		r.mu.Unlock()
	}
}

// late tells whether the member owed an answer. The lock is held.
func (k *link) late() bool { return errors.Is(k.why, os.ErrDeadlineExceeded) && k.m.acked < k.sent }

// owes sets until when the member must say more. The lock is held.
func (k *link) owes() {
	if k.m.acked < k.sent {
		_ = k.st.SetDeadline(time.Now().Add(memberPatience))
	} else {
		_ = k.st.SetDeadline(time.Time{})
	}
}

// feed sends the member what it lacks from at on: groups from disk, then those
// that are offered. nil: the stream broke.
func (k *link) feed(at int64) error {
	r := k.r
	flying := 0 // bytes that were read from disk since all was acknowledged
	for {
		_, end := r.log.End()
		r.mu.Lock()
		changed, o := r.changed, r.offered
		acked := k.m.acked
		if acked == at {
			flying = 0
		}
		if !k.m.live && acked >= end {
			k.m.live, k.m.why, k.m.since, k.m.told = true, nil, 0, false
			r.change()
			changed = r.changed
		}
		mine := o != nil && o.seq == at
		if mine {
			o.users++
			k.sent = o.next
			k.owes()
		}
		shown, floor := r.shown, r.floor
		r.mu.Unlock()
		k.buf = k.buf[:0]
		// What it may let go comes before groups: it may have no room for them else.
		if shown > k.shown && mine || floor > k.floor {
			k.buf = appendReplicated(k.buf, min(shown, at), floor)
			k.shown, k.floor = shown, floor
		}
		switch {
		case mine:
			err := k.both(o.frames)
			r.mu.Lock()
			o.users--
			r.mu.Unlock()
			if err != nil {
				return k.ended(err)
			}
			at = o.next
			continue
		case at < end && flying < copyAhead:
			n, err := k.copy(&at)
			if flying += n; err != nil {
				return k.ended(err)
			}
			continue
		case len(k.buf) > 0:
			if err := k.write(k.buf); err != nil {
				return k.ended(err)
			}
		}
		select {
		case <-k.broken:
			return nil
		case <-changed:
		}
	}
}

// both writes what is in buf and a group.
func (k *link) both(frames []byte) error {
	if len(k.buf) > 0 {
		if err := k.write(k.buf); err != nil {
			return err
		}
	}
	return k.write(frames)
}

// copy sends groups from disk.
func (k *link) copy(at *int64) (int, error) {
	groups, err := k.r.log.ReadGroups(*at, copyPiece)
	if err != nil {
		return 0, err
	}
	next := *at
	for _, g := range groups {
		k.buf = appendGroup(k.buf, g)
		next = g.Next
	}
	k.r.mu.Lock()
	k.sent = next
	k.owes()
	k.r.mu.Unlock()
	*at = next
	return len(k.buf), k.write(k.buf)
}

// ended is the error of a write: nil if the reader knows better.
func (k *link) ended(err error) error {
	select {
	case <-k.broken:
		return nil
	default:
		return err
	}
}
