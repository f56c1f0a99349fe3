package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// A sender whose receiver is full commits what completes.
func TestSenderThatIsBlockedCommitsWhatCompletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox(1)
		table := sensortest.NewTable("numbers", number)
		commits := 0
		table.Fail(func(op string) error {
			if op == "commit" {
				commits++
			}
			return nil
		})
		w := table.Writer(0, 1)
		if err := w.Recover(t.Context(), nil, func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		committed := make(chan dataflow.CheckpointID, 1)
		j := &Job{inboxes: []*inbox{in}, opt: Options{Collector: committedTo(committed)}}
		d := &driver{job: j, sub: sub(), control: newControl(), writers: []sensors.Writer{w}}
		j.local = []*driver{d}
		for range channelDepth {
			in.offer(0, Message{})
		}
		sent := make(chan error, 1)
		go func() { sent <- d.send(t.Context(), Target{}, Message{}) }()
		synctest.Wait()
		j.Completed(ckpt(1))
		synctest.Wait()
		if len(committed) != 1 || commits != 1 {
			t.Errorf("%d commits, %d reported", commits, len(committed))
		}
		in.poll()
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// committedTo is a collector that hears of commits only.
type committedTo chan dataflow.CheckpointID

func (committedTo) Taken(SnapshotTaken)                                        {}
func (committedTo) Exhausted(dataflow.SubtaskID)                               {}
func (c committedTo) Committed(_ dataflow.SubtaskID, id dataflow.CheckpointID) { c <- id }

// A sender whose outlet is full commits what completes, and is ended.
func TestSenderToAFullOutlet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sensortest.NewTable("numbers", number).Writer(0, 1)
		if err := w.Recover(t.Context(), nil, func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		committed := make(chan dataflow.CheckpointID, 1)
		j := &Job{inboxes: []*inbox{nil}, opt: Options{Collector: committedTo(committed)}}
		o := &wire{room: make(chan struct{}, 1), filled: make(chan struct{}, 1)}
		d := &driver{job: j, sub: sub(), control: newControl(), writers: []sensors.Writer{w}, outlets: map[Target]Outlet{{}: o}}
		j.local = []*driver{d}
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error, 1)
		go func() {
			for range 3 {
				if err := d.send(ctx, Target{}, Message{}); err != nil {
					sent <- err
				}
			}
			sent <- nil
			sent <- d.send(ctx, Target{}, Message{})
		}()
		synctest.Wait()
		if len(sent) > 0 {
			t.Fatal("a full outlet took a message")
		}
		j.Completed(ckpt(1))
		synctest.Wait()
		if len(committed) != 1 {
			t.Error("nothing was committed")
		}
		o.next()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Fatalf("send returned %v", err)
		}
	})
}
