package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// A sink without room tries again after firstRetry, then twice as long, up to
// lastRetry.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// commitTimer fires when the next commit is due; nil, which never fires, when
// nothing is pending.
func (d *driver) commitTimer() (c <-chan time.Time, stop func()) {
	if !d.dirty {
		return nil, func() {}
	}
	t := time.NewTimer(max(0, d.commitAt.Sub(d.job.opt.Now())))
	return t.C, func() { t.Stop() }
}

func (d *driver) commitIfDue(ctx context.Context) error {
	if !d.dirty || d.job.opt.Now().Before(d.commitAt) {
		return nil
	}
	return d.commit(ctx)
}

// commit makes what was written since the last commit visible.
func (d *driver) commit(ctx context.Context) error {
	if !d.dirty {
		return nil
	}
	return d.commitAll(ctx)
}

// commitAll commits all sinks of the subtask, also those without a new row: at
// the end an empty result is a result, with its header. While a sink has no
// room it waits here, and so holds back everything upstream.
func (d *driver) commitAll(ctx context.Context) error {
	for i, w := range d.writers {
		if w == nil {
			continue
		}
		if err := d.whileFull(ctx, i, func() error { return w.Commit(ctx) }); err != nil {
			return fmt.Errorf("sink %q: %w", d.sub.Config.Links[i].ID, err)
		}
	}
	d.dirty = false
	return nil
}

// whileFull does a write or commit of a sink, again and again while there is no
// room; the task waits here, and that is the back-pressure.
func (d *driver) whileFull(ctx context.Context, link int, act func() error) error {
	ev := Event{Subtask: d.sub.Config.ID, Sink: d.sub.Config.Links[link].ID}
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		err := act()
		if !errors.Is(err, sensors.ErrFull) {
			if err == nil && wait != firstRetry {
				ev.Kind, ev.Err = SinkResumed, nil
				d.job.event(ev)
			}
			return err
		}
		ev.Kind, ev.Err = SinkFull, err
		d.job.event(ev)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("rows not written: %w", err)
		}
	}
}
