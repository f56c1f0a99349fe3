package feed

import (
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// ownership is what a feed is in a mesh.
type ownership struct{ epoch coordinator.LogEpoch }

// copyOf is what a log is.
func copyOf(log *ingestlog.Log) logepoch.Copy {
	c := logepoch.Copy{ID: log.ID(), Promised: log.Promised()}
	c.First, _ = log.First()
	c.Epoch, c.End = log.End()
	return c
}

// lead makes the log that of the epoch's owner: what never belonged to it goes. A log
// of which nothing is left then, as it begins behind that, begins anew: a mirror of it
// takes all that its source keeps.
func (f *Feed) lead() error {
	e, c := &f.role.epoch, copyOf(f.log)
	plan, err := logepoch.Owns(e, c)
	switch {
	case err != nil:
	case plan.Anew:
		// First the promise: an empty log is not to look as if it had always been one.
		if err = f.log.Promise(e.Epoch); err == nil {
			err = f.log.Empty(e.Epoch)
		}
		if err == nil {
			f.emit(Event{Kind: Overtaken, Err: fmt.Errorf("of its log everything from entry %d on goes, and what is here begins with %d", logepoch.Keeps(e, c), c.First)})
		}
	case plan.Cut:
		_, err = f.log.CutTo(plan.From)
	}
	if err == nil {
		err = f.log.Lead(e.Epoch)
	}
	if err != nil {
		return err
	}
	f.replicas = newReplicas(f)
	f.expect(f.owner.o.MirroredAt(f.name))
	return nil
}

// gather brings all members up to date: before that nothing is appended, so that
// none of them ever has what this log has not.
func (f *Feed) gather() error {
	r := f.copies()
	r.start()
	_, end := f.log.End()
	if err := r.wait(end); err != nil {
		return err
	}
	f.log.Replicated(end)
	r.settle(end)
	return nil
}

// persist makes durable what was appended, on all members at the same time, and
// then visible.
func (f *Feed) persist() error {
	if f.role == nil {
		if err := f.log.Commit(); err != nil {
			return logError{err}
		}
		return nil
	}
	for {
		g, err := f.log.Stage()
		if g == nil || err != nil {
			return err
		}
		if err := f.write([]*ingestlog.Group{g}); err != nil {
			return err
		}
	}
}

// write makes durable what is staged, on all members at the same time.
func (f *Feed) write(staged []*ingestlog.Group) error {
	r := f.copies()
	r.offer(staged)
	next := staged[len(staged)-1].Next
	if err := f.log.Write(); err != nil {
		return logError{err}
	}
	if err := r.wait(next); err != nil {
		return err
	}
	f.log.Replicated(next)
	r.settle(next)
	return nil
}

// permitted waits until this agent may act on the world.
func (f *Feed) permitted() error {
	for said := false; ; said = true {
		err := sensors.Permitted(f.owner.o.Permit)
		if err == nil {
			return nil
		}
		if !said {
			f.emit(Event{Kind: Held, Err: err})
		}
		select {
		case <-f.ctx.Done():
			return f.ctx.Err()
		case <-f.owner.o.Clock.After(retryMin):
		}
	}
}

// ailing tells the leader that the feed has failed.
func (f *Feed) ailing(err error) {
	if f.role != nil {
		f.owner.o.Tell(worker.LogEvent{Failed: &worker.LogFailed{Feed: f.name, Epoch: f.role.epoch.Epoch, Why: err.Error()}})
	}
}

// ErrNotOwner is wrapped where a feed is to be read, and its log is owned by
// another agent, or by none.
var ErrNotOwner = errors.New("this agent does not own its log")

// lose ends the feed because the log is somebody else's now: the broker keeps
// the session, and readers are told why.
func (f *Feed) lose(why string) {
	f.fail(fmt.Errorf("%w any more: %s", ErrNotOwner, why))
	f.owner.fail(f)
	f.cancel()
	<-f.done
}
