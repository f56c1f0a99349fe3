package feed

import (
	"context"
	"errors"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store"
)

const (
	// readMax is how many messages one read of the session takes at most.
	readMax = 4096
	// gather is how many bytes one commit takes at most, so that the broker does
	// not wait for its acknowledgements for long.
	gather    = 1 << 20
	perRecord = 64 // what one counts beside its texts: time alone must not gather for ever
	// The log is tried again after retryMin, doubling to retryMax.
	retryMin = 100 * dataflow.Millisecond
	retryMax = 5 * dataflow.Second
	// recalled is how many messages a session gets back at most; a broker may
	// have 65,535 open.
	recalled = 65536
)

// logError is an error of the log, which may pass.
type logError struct{ error }

func (e logError) Unwrap() error { return e.error }

// run is the pump. Its order of acts is what nothing is lost by:
//
//	Read -> Append -> Commit (one fsync for all that has come) -> Ack
//
// In a mesh Commit ends when all members of the log's epoch have done the same.
// While the log takes nothing nothing is read: the session's inbox fills, QoS 1
// and 2 wait at the broker, QoS 0 is shed and counted there.
func (f *Feed) run(ctx context.Context) {
	err := f.pump(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	if err != nil {
		f.fail(err)
		f.owner.fail(f)
		f.ailing(err)
	}
	f.cancel()
	f.mu.Lock()
	session := f.session
	f.mu.Unlock()
	if session != nil {
		err = errors.Join(err, session.Close())
	}
	f.mirrors.stop()
	if r := f.copies(); r != nil {
		r.stop()
	}
	err = errors.Join(err, f.log.Close())
	if err != nil {
		f.emit(Event{Kind: Failed, Err: err})
	} else {
		f.emit(Event{Kind: Closed})
	}
	f.owner.gone(f)
	close(f.done)
}

func (f *Feed) pump(ctx context.Context) error {
	if f.role != nil {
		if err := f.gather(); err != nil {
			return err
		}
		close(f.gathered)
		if f.role.epoch.Mirror != nil {
			return f.mirror(ctx)
		}
	}
	if f.role != nil && f.role.epoch.Held { // the log must not grow
		<-ctx.Done()
		return ctx.Err()
	}
	if f.session == nil {
		if err := f.insist(ctx, f.begin); err != nil {
			return err
		}
	}
	ready, gathers := f.session.(interface{ Ready() bool })
	for {
		bytes, some := 0, false
		for first := true; first || gathers && bytes < gather && ready.Ready(); first = false {
			if err := f.session.Read(ctx, &f.rec, readMax); err != nil {
				return err
			}
			if f.idle() {
				continue
			}
			if err := f.insist(ctx, f.put); err != nil {
				return err
			}
			some = true
			f.deaf[f.rec.Split] = f.rec.Deaf || f.rec.Len() == 0 && len(f.rec.Notes) > 0 && f.deaf[f.rec.Split]
			f.dirty[f.rec.Split] = f.rec.Next
			f.pending += int64(f.rec.Len())
			bytes += len(f.rec.Payloads) + len(f.rec.Topics) + perRecord
		}
		if !some {
			continue
		}
		if err := f.insist(ctx, f.commit); err != nil {
			return err
		}
	}
}

// idle tells whether what was read need not be kept: time that passes while
// nobody reads, and deafness that is known. Nothing of it is acknowledged.
func (f *Feed) idle() bool {
	if f.rec.Len() > 0 || len(f.rec.Notes) > 0 {
		return false
	}
	deaf := f.deaf[f.rec.Split]
	return f.rec.Deaf && deaf || !f.rec.Deaf && !deaf && f.reading.Load() == 0
}

func (f *Feed) put() error {
	_, err := f.log.Append(&f.rec)
	if errors.Is(err, store.ErrFull) {
		// What came before it can still be made safe, and room may be made.
		if err := f.commit(); err != nil {
			return err
		}
		if err = f.log.MakeRoom(f.owner.o.Clock.Now()); err == nil {
			_, err = f.log.Append(&f.rec)
		}
	}
	if err != nil {
		return logError{err}
	}
	return nil
}

// commit makes durable what was appended, and only then acknowledges it.
func (f *Feed) commit() error {
	if err := f.persist(); err != nil {
		return err
	}
	f.commits.Add(1)
	f.appended.Add(f.pending)
	f.pending = 0
	if err := f.permitted(); err != nil {
		return err
	}
	for lane, next := range f.dirty {
		if next >= 0 {
			f.session.Ack(sensors.Position{Split: lane, Offset: next})
			f.dirty[lane] = -1
		}
	}
	return nil
}

// insist does what needs the log until the log takes it, or do gives up. While it has
// taken nothing since then it is not tried more often than before.
func (f *Feed) insist(ctx context.Context, do func() error) error {
	wait := retryMin
	if f.full.Load() {
		wait = retryMax
	}
	for {
		err := do()
		if !errors.As(err, new(logError)) {
			if f.full.Load() && err == nil {
				f.full.Store(false)
				f.emit(Event{Kind: Room})
			}
			return err
		}
		e := Event{Kind: Failing, Err: err, RetryIn: wait}
		if errors.Is(err, store.ErrFull) {
			e.Kind = Full
			if wait > retryMin {
				// The clock of a log that takes nothing stands still.
				_ = f.log.MakeRoom(f.owner.o.Clock.Now()) // its error is what do will say again
			}
		}
		f.full.Store(true)
		f.emit(e)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.owner.o.Clock.After(wait):
		}
		wait = min(2*wait, retryMax)
	}
}
