package mqtt_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// In a site a sink that stays on its agent from attempt to attempt promises what
// it does without one.
func TestTransactionalSuiteInASite(t *testing.T) {
	sensortest.Transactional(t, sensortest.TransactionalCase{Open: func(t *testing.T) sensortest.World {
		b := startBroker(t)
		out := watch(t, b.Addr())
		fsys, attempt := storetest.New(), uint64(0)
		return sensortest.World{
			Start: func(t rapid.TB, subtask, parallelism int) sensors.Transactional {
				if subtask == 0 {
					attempt++
				}
				w, err := mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
					WriterOptions: mqtt.WriterOptions{
						Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "sink", BackoffMin: 1000},
						Topic:      "out/{name}", Schema: sensortest.WriterSchema(), QoS: 2, Encode: encodeN, MaxInFlight: 20,
					},
					Subtask: subtask, Parallelism: parallelism, Dir: "/state", FS: fsys, MaxPending: 2000,
					Placed: sensors.Placed{Node: "a", Nodes: slices.Repeat([]string{"a"}, parallelism), Attempt: dataflow.FencingToken{Attempt: attempt}},
				})
				if err != nil {
					t.Fatal(err)
				}
				return w
			},
			Visible: out.numbers,
			End: func() {
				out.p.c.Disconnect(0)
				out.s.stop()
				_ = b.Close()
			},
		}
	}})
}

// on makes options those of an attempt on an agent.
func (x *txWorld) on(node string, attempt uint64, fsys *storetest.FS, record ...sensors.Commit) mqtt.TransactionalOptions {
	o := x.options(2)
	o.FS = fsys
	o.Placed = sensors.Placed{Node: node, Nodes: []string{node}, Attempt: dataflow.FencingToken{Attempt: attempt}, From: x.id(), Commits: record}
	return o
}

// rows takes rows of one piece to their end.
func (c *pconn) rows(texts ...string) {
	c.t.Helper()
	c.finish(c.published(false, texts...), "", false)
}

// under calls f with a context that die ends; it then waits for f.
func under(f func(ctx context.Context) error) (die func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		<-done
	}
}

// A sink moves to another agent with a commit on record: nothing comes again.
// Without: all of that checkpoint's rows do.
func TestSinkMovesToAnotherAgent(t *testing.T) {
	for _, recorded := range []bool{true, false} {
		t.Run(fmt.Sprint("on record: ", recorded), func(t *testing.T) {
			x := newTxWorld(t)
			a, ready := x.process(x.on("a", 1, x.fsys), sensortest.Held{})
			c := x.fresh()
			must(t, ready)
			x.prepare(a, "1", "2")
			done := x.commit(a)
			c.rows("1", "2")
			must(t, done)
			commits := a.Commits()
			if want := (sensors.Commit{Target: "sink", Through: x.id()}); len(commits) != 1 || commits[0] != want {
				t.Fatalf("commits %v, want %v", commits, want)
			}
			_ = a.Close()
			if !recorded {
				commits = nil
			}
			b, ready := x.process(x.on("b", 2, storetest.New(), commits...), x.held)
			c = x.fresh()
			if !recorded {
				c.rows("1", "2")
			}
			must(t, ready)
			if got := b.Commits(); len(got) != 1 || got[0].Through != x.id() {
				t.Errorf("commits %v", got)
			}
			c.nothing()
		})
	}
}

// A journal that is older than the attempt before is not believed: another agent
// may have had the client id, and made the broker forget what the journal says.
func TestJournalOfAnEarlierAttemptIsNotBelieved(t *testing.T) {
	for _, attempt := range []uint64{2, 3} {
		t.Run(fmt.Sprint("attempt ", attempt), func(t *testing.T) {
			x := newTxWorld(t)
			a, ready := x.process(x.on("a", 1, x.fsys), sensortest.Held{})
			c := x.fresh()
			must(t, ready)
			x.prepare(a, "1", "2")
			die := under(func(ctx context.Context) error { return a.CommitThrough(ctx, x.id()) })
			ids := c.published(false, "1", "2")
			c.answer(packets.Pubrec, ids...)
			c.acks(packets.Pubrel, ids...) // the journal says released
			die()
			_ = a.Close()

			_, ready = x.process(x.on("a", attempt, x.fsys), x.held)
			if attempt == 2 { // it was the last to have the id
				c = x.again(true)
				c.acks(packets.Pubrel, ids...)
				c.answer(packets.Pubcomp, ids...)
			} else {
				c = x.fresh()
				c.rows("1", "2")
			}
			must(t, ready)
			c.nothing()
		})
	}
}

// The journal says who had the client id last before that is acted on: an agent
// that dies before it has made the broker forget does so in its next attempt.
func TestJournalThatWasTakenOverIsForgotten(t *testing.T) {
	x := newTxWorld(t)
	a, ready := x.process(x.on("a", 1, x.fsys), sensortest.Held{})
	c := x.fresh()
	must(t, ready)
	x.prepare(a, "1", "2")
	die := under(func(ctx context.Context) error { return a.CommitThrough(ctx, x.id()) })
	ids := c.published(false, "1", "2")
	c.answer(packets.Pubrec, ids...)
	c.acks(packets.Pubrel, ids...)
	die()
	_ = a.Close()
	a, err := mqtt.NewTransactionalWriter(x.on("a", 3, x.fsys))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	die = under(func(ctx context.Context) error {
		return a.Recover(ctx, sensortest.Pending(x.held), func(string) bool { return false })
	})
	c = x.p.accept(t) // it dies here
	die()
	c.cut()
	_, ready = x.process(x.on("a", 4, x.fsys), x.held)
	c = x.fresh()
	c.rows("1", "2")
	must(t, ready)
}

// What is on record of a client id that nobody has any more is not published
// again by who takes it over.
func TestAdoptedRowsOnRecord(t *testing.T) {
	for _, recorded := range []bool{true, false} {
		x := newTxWorld(t)
		a, ready := x.process(x.on("a", 1, x.fsys), sensortest.Held{})
		x.fresh()
		must(t, ready)
		x.prepare(a, "1", "2")
		_ = a.Close()
		var commits []sensors.Commit
		if recorded {
			commits = append(commits, sensors.Commit{Target: "sink", Through: x.id()})
		}
		o := x.on("b", 2, storetest.New(), commits...)
		o.Parallelism, o.Placed.Nodes = 2, []string{"b", "a"}
		w, err := mqtt.NewTransactionalWriter(o)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		done := make(chan error, 1)
		ctx := timeout(t)
		go func() { done <- w.Recover(ctx, sensortest.Pending(x.held), func(string) bool { return true }) }()
		if !recorded { // under the old id
			x.fresh().rows("1", "2")
		}
		x.fresh()
		must(t, done)
		got := w.Commits()
		if want := 2; recorded && len(got) != 1 || !recorded && (len(got) != want || got[1] != sensors.Commit{Target: "sink", Through: x.id()}) {
			t.Errorf("recorded %t: commits %v", recorded, got)
		}
	}
}
