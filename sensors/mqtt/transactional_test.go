package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// A subscriber of its own counts what comes out, whatever the writers do. QoS 0
// is not among them: what the socket has taken is lost when the next process
// takes the client id over before the broker has read it.
func TestTransactionalSuite(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos %d", qos), func(t *testing.T) {
			sensortest.Transactional(t, sensortest.TransactionalCase{Open: func(t *testing.T) sensortest.World {
				b := startBroker(t)
				out := watch(t, b.Addr())
				fsys := storetest.New()
				return sensortest.World{
					Start: func(t rapid.TB, subtask, parallelism int) sensors.Transactional {
						w, err := mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
							WriterOptions: mqtt.WriterOptions{
								Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "sink", BackoffMin: 1000},
								Topic:      "out/{name}", Schema: sensortest.WriterSchema(), QoS: qos, Encode: encodeN, MaxInFlight: 20,
							},
							Subtask: subtask, Parallelism: parallelism, Dir: "/state", FS: fsys, MaxPending: 2000,
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
		})
	}
}

// With QoS 0 a row is out once its commit has come, if the connection stays.
func TestTransactionalQoS0(t *testing.T) {
	b := startBroker(t)
	out := watch(t, b.Addr())
	w, err := mqtt.NewTransactionalWriter(mqtt.TransactionalOptions{
		WriterOptions: mqtt.WriterOptions{
			Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "sink", BackoffMin: 1000},
			Topic:      "out/row-{text}", Schema: oneColumn, Encode: encodeText, MaxInFlight: 2,
		},
		Parallelism: 1, Dir: "/state", FS: storetest.New(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx := timeout(t)
	if err := w.Recover(ctx, nil, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := errors.Join(w.Write(ctx, textBatch(fmt.Sprint(3*i), fmt.Sprint(3*i+1), fmt.Sprint(3*i+2))), w.Commit(ctx)); err != nil {
			t.Fatal(err)
		}
		want := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8}[:3*i+3]
		if got := out.numbers(t, len(want)); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// outside is a subscriber that knows when it has everything.
type outside struct {
	p     publisher
	s     stoppable
	fence int
	got   []int64
}

type stoppable struct {
	subscriber
	stop func()
}

func watch(t testing.TB, addr string) *outside {
	t.Helper()
	s, stop := newStoppable(t, addr, "out/#", 2)
	return &outside{p: newPublisher(t, addr), s: stoppable{s, stop}}
}

// numbers reads until n are there, then until a message of its own comes, which
// is behind all that the broker had dealt out: it would be behind rows too many.
func (o *outside) numbers(t rapid.TB, n int) []int64 {
	for len(o.got) < n {
		o.next(t, "")
	}
	o.fence++
	end := fmt.Sprintf("fence %d", o.fence)
	if k := o.p.c.Publish("out/fence", 2, false, end); !k.WaitTimeout(patience) || k.Error() != nil {
		t.Fatal("fence:", k.Error())
	}
	for !o.next(t, end) {
	}
	return o.got
}

// next takes a message; true: it was the fence.
func (o *outside) next(t rapid.TB, fence string) bool {
	m, ok := o.s.within(patience)
	if !ok {
		t.Fatalf("nothing comes after %v", o.got)
	}
	if string(m.payload) == fence {
		return true
	}
	n, err := strconv.ParseInt(string(m.payload), 10, 64)
	if err != nil || m.topic != fmt.Sprintf("out/row-%d", n) {
		t.Fatalf("%s: %q", m.topic, m.payload)
	}
	o.got = append(o.got, n)
	return false
}

// txWorld is a folder that outlives writers of rows to a scripted peer.
type txWorld struct {
	t    testing.TB
	p    *peer
	fsys *storetest.FS
	ev   *events
	held sensortest.Held // as of the last prepare
	n    uint64
}

func newTxWorld(t testing.TB) *txWorld {
	return &txWorld{t: t, p: newPeer(t), fsys: storetest.New(), ev: newEvents()}
}

func (x *txWorld) options(qos byte) mqtt.TransactionalOptions {
	return mqtt.TransactionalOptions{
		WriterOptions: mqtt.WriterOptions{Connection: quick(x.p.url(), "sink", x.ev), Topic: "out/{text}", Schema: oneColumn, QoS: qos, Encode: encodeText, MaxInFlight: 2},
		Parallelism:   1, Dir: "/state", FS: x.fsys,
	}
}

// process starts a writer; Recover goes on until recovered gets its result.
func (x *txWorld) process(o mqtt.TransactionalOptions, held sensortest.Held) (w *mqtt.TransactionalWriter, recovered chan error) {
	x.t.Helper()
	w, err := mqtt.NewTransactionalWriter(o)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = w.Close() })
	recovered = make(chan error, 1)
	ctx := timeout(x.t)
	go func() { recovered <- w.Recover(ctx, sensortest.Pending(held), func(string) bool { return false }) }()
	return w, recovered
}

// prepare writes rows and prepares a checkpoint.
func (x *txWorld) prepare(w *mqtt.TransactionalWriter, texts ...string) {
	x.t.Helper()
	if err := w.Write(timeout(x.t), textBatch(texts...)); err != nil {
		x.t.Fatal(err)
	}
	x.n++
	h, err := x.held.Prepare(w, x.id(), true)
	if err != nil {
		x.t.Fatal(err)
	}
	x.held = h
}

func (x *txWorld) id() dataflow.CheckpointID { return dataflow.CheckpointID{Counter: x.n} }

func (x *txWorld) commit(w *mqtt.TransactionalWriter) chan error {
	done := make(chan error, 1)
	ctx := timeout(x.t)
	go func() { done <- w.CommitThrough(ctx, x.id()) }()
	return done
}

func must(t testing.TB, done <-chan error) {
	t.Helper()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// fresh is the two connections of a sink that nobody knew: one that makes the
// broker forget the client id, and the one that stays.
func (x *txWorld) fresh() *pconn {
	x.t.Helper()
	c := x.p.accept(x.t)
	if m, ok := c.get().(*packets.ConnectPacket); !ok || !m.CleanSession {
		x.t.Fatal("the session is not wiped first")
	}
	a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	c.send(a)
	if _, ok := c.get().(*packets.DisconnectPacket); !ok {
		x.t.Fatal("no DISCONNECT after the session was wiped")
	}
	return x.again(false)
}

// again is a connection that keeps its session.
func (x *txWorld) again(known bool) *pconn {
	x.t.Helper()
	c := x.p.accept(x.t)
	if m, ok := c.get().(*packets.ConnectPacket); !ok || m.CleanSession {
		x.t.Fatal("the session must be kept")
	}
	a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
	a.SessionPresent = known
	c.send(a)
	return c
}

// TestTransactionalSteps: no row is released before the broker has the whole
// piece, the next piece has the other half of the ids, and each is published
// when its checkpoint completed.
func TestTransactionalSteps(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a", "b", "c")
	c.nothing()
	done := x.commit(w)
	one := c.published(false, "a", "b")
	c.answer(packets.Pubrec, one[1])
	c.nothing()
	c.answer(packets.Pubrec, one[0])
	c.acks(packets.Pubrel, one...)
	c.answer(packets.Pubcomp, one[0])
	c.nothing()
	c.answer(packets.Pubcomp, one[1])
	two := c.published(false, "c")
	if two[0] == one[0] || two[0] == one[1] {
		t.Errorf("ids %v after %v", two, one)
	}
	c.answer(packets.Pubrec, two...)
	c.acks(packets.Pubrel, two...)
	select {
	case err := <-done:
		t.Fatalf("committed before PUBCOMP: %v", err)
	default:
	}
	c.answer(packets.Pubcomp, two...)
	must(t, done)
	if s := w.Stats(); s.Published != 3 || s.Republished != 0 || s.Acked != 3 || s.Uncertain != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTransactionalCrashes: a process dies in each step of a commit. What the
// next one publishes again has the ids that the broker may know it by; what is
// released is only released again.
func TestTransactionalCrashes(t *testing.T) {
	type step int
	const (
		beforePublish step = iota
		published
		partlyTaken
		taken // PUBREC of all came, the journal was written
		partlyDone
		nextPublished
		finished
	)
	for at := beforePublish; at <= finished; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			x := newTxWorld(t)
			w, recovered := x.process(x.options(2), sensortest.Held{})
			c := x.fresh()
			must(t, recovered)
			x.prepare(w, "a", "b", "c")
			if at > beforePublish {
				done := x.commit(w)
				ids := c.published(false, "a", "b")
				if at >= partlyTaken {
					c.answer(packets.Pubrec, ids[0])
				}
				if at >= taken {
					c.answer(packets.Pubrec, ids[1])
					c.acks(packets.Pubrel, ids...)
				}
				if at >= partlyDone {
					c.answer(packets.Pubcomp, ids[0])
				}
				if at >= nextPublished {
					c.answer(packets.Pubcomp, ids[1])
					next := c.published(false, "c")
					if at == finished {
						c.answer(packets.Pubrec, next...)
						c.acks(packets.Pubrel, next...)
						c.answer(packets.Pubcomp, next...)
						must(t, done)
					}
				}
				if at == partlyTaken {
					c.nothing() // it has heard the PUBREC
				}
				if at < finished {
					_ = w.Close()
					<-done
				}
			}
			_ = w.Close()

			w, recovered = x.process(x.options(2), x.held)
			switch at {
			case beforePublish:
				c = x.fresh()
				ids := c.published(false, "a", "b")
				c.finish(ids, "c", false)
			case published, partlyTaken:
				c = x.again(true)
				ids := c.published(true, "a", "b")
				if ids[0] != 1 || ids[1] != 2 {
					t.Errorf("published again as %v", ids)
				}
				c.finish(ids, "c", false)
			case taken, partlyDone, nextPublished:
				c = x.again(true)
				c.acks(packets.Pubrel, 1, 2)
				c.answer(packets.Pubcomp, 1, 2)
				next := c.published(true, "c")
				if next[0] != 32768 {
					t.Errorf("c was published as %v", next)
				}
				c.answer(packets.Pubrec, next...)
				c.acks(packets.Pubrel, next...)
				c.answer(packets.Pubcomp, next...)
			case finished:
				c = x.again(true)
				must(t, recovered)
				c.nothing()
				return
			}
			must(t, recovered)
			x.prepare(w, "d")
			done := x.commit(w)
			c.finish(c.published(false, "d"), "", false)
			must(t, done)
			c.nothing()
		})
	}
}

// finish takes a piece to its end, and the next, of one row.
func (c *pconn) finish(ids []uint16, next string, dup bool) {
	c.t.Helper()
	c.answer(packets.Pubrec, ids...)
	c.acks(packets.Pubrel, ids...)
	c.answer(packets.Pubcomp, ids...)
	if next != "" {
		c.finish(c.published(dup, next), "", false)
	}
}

// TestTransactionalReconnects: within a process the connection is lost in each
// phase, with and without the session.
func TestTransactionalReconnects(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a", "b")
	done := x.commit(w)
	ids := c.published(false, "a", "b")
	c.answer(packets.Pubrec, ids[0])
	c.nothing()
	c.cut()
	c = x.again(true)
	c.published(true, "b")
	c.answer(packets.Pubrec, ids[0]) // as some brokers do
	c.nothing()
	c.cut()
	c = x.again(false) // the broker lost the session: nothing was released, so nothing can be there twice
	c.published(true, "a", "b")
	c.answer(packets.Pubrec, ids...)
	c.acks(packets.Pubrel, ids...)
	c.answer(packets.Pubcomp, ids[0])
	c.nothing()
	c.cut()
	c = x.again(true)
	c.acks(packets.Pubrel, ids[1])
	if s := w.Stats(); s.Uncertain != 0 {
		t.Errorf("%+v", s)
	}
	c.cut()
	c = x.again(false) // now nobody knows whether b is out
	c.published(true, "b")
	c.answer(packets.Pubrec, ids[1])
	c.acks(packets.Pubrel, ids[1])
	c.answer(packets.Pubcomp, ids[1])
	must(t, done)
	if s := w.Stats(); s.Uncertain != 1 || s.Published != 2 || s.Acked != 2 {
		t.Errorf("%+v", s)
	}
}

// TestTransactionalGivesUp: a commit that ends with its context goes on where
// it was.
func TestTransactionalGivesUp(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a", "b")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.CommitThrough(ctx, x.id()) }()
	ids := c.published(false, "a", "b")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	again := x.commit(w)
	c.nothing()
	c.finish(ids, "", false)
	must(t, again)
}

// TestTransactionalForgottenRows: rows of a lineage that was given up must not
// hide behind ids that the broker still holds: it is made to forget them.
func TestTransactionalForgottenRows(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	old := x.held
	x.prepare(w, "a")
	done := x.commit(w)
	c.published(false, "a")
	_ = w.Close()
	<-done
	w, recovered = x.process(x.options(2), old) // the checkpoint is damaged: the job begins before it
	c = x.fresh()
	must(t, recovered)
	x.prepare(w, "A")
	done = x.commit(w)
	c.finish(c.published(false, "A"), "", false)
	must(t, done)
}

// TestTransactionalOfAJobBefore: a job that begins anew in the folder of one
// whose checkpoints had higher numbers publishes all of its rows.
func TestTransactionalOfAJobBefore(t *testing.T) {
	x := newTxWorld(t)
	x.n = 100
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a")
	done := x.commit(w)
	c.finish(c.published(false, "a"), "", false)
	must(t, done)
	_ = w.Close()

	x.n, x.held = 0, sensortest.Held{}
	w, recovered = x.process(x.options(2), sensortest.Held{})
	x.fresh()
	must(t, recovered)
	x.prepare(w, "b") // its checkpoint completes, and the process dies
	_ = w.Close()
	_, recovered = x.process(x.options(2), x.held)
	c = x.fresh()
	c.finish(c.published(false, "b"), "", false)
	must(t, recovered)
}

// TestTransactionalQoS1: what the broker has acknowledged, piece by piece, is
// not published again after a crash; what it has not, is.
func TestTransactionalQoS1(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(1), sensortest.Held{})
	c := x.p.connect(t, 0, false)
	must(t, recovered)
	x.prepare(w, "a", "b", "c", "d")
	done := x.commit(w)
	c.answer(packets.Puback, c.published(false, "a", "b")...)
	c.answer(packets.Puback, c.published(false, "c", "d")[0])
	c.nothing()
	_ = w.Close()
	<-done
	_, recovered = x.process(x.options(1), x.held)
	c = x.p.connect(t, 0, false)
	c.answer(packets.Puback, c.published(false, "c", "d")...)
	must(t, recovered)
}

// TestTransactionalWithoutFolder: a process that dies inside a commit publishes
// all of it again, and only so much can wait.
func TestTransactionalWithoutFolder(t *testing.T) {
	x := newTxWorld(t)
	o := x.options(2)
	o.Dir, o.MaxPending = "", 10
	w, recovered := x.process(o, sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a", "b", "c")
	if err := w.Write(timeout(t), textBatch("d")); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("Write: %v", err)
	}
	done := x.commit(w)
	c.answer(packets.Pubrec, c.published(false, "a", "b")...)
	c.acks(packets.Pubrel, 1, 2)
	_ = w.Close()
	<-done
	_, recovered = x.process(o, x.held)
	c = x.fresh()
	c.finish(c.published(false, "a", "b"), "c", false)
	must(t, recovered)
}

// TestTransactionalNoRoom: a journal that cannot be written stops the commit
// before it does what it could not remember; with room it goes on.
func TestTransactionalNoRoom(t *testing.T) {
	x := newTxWorld(t)
	w, recovered := x.process(x.options(2), sensortest.Held{})
	c := x.fresh()
	must(t, recovered)
	x.prepare(w, "a")
	x.fsys.FailFrom(1, syscall.ENOSPC)
	if err := <-x.commit(w); !errors.Is(err, sensors.ErrFull) {
		t.Fatalf("commit: %v", err)
	}
	c.nothing()
	x.fsys.Heal()
	done := x.commit(w)
	ids := c.published(false, "a")
	x.fsys.FailFrom(1, syscall.EIO)
	c.answer(packets.Pubrec, ids...)
	if err := <-done; !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit: %v", err)
	}
	c.nothing()
	x.fsys.Heal()
	done = x.commit(w)
	c.acks(packets.Pubrel, ids...)
	c.answer(packets.Pubcomp, ids...)
	must(t, done)
}
