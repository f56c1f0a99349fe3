package channel

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func barrier(n uint64) *dataflow.Barrier {
	return &dataflow.Barrier{ID: dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "north", Attempt: 3}, Counter: n}, Full: n%2 == 0, Then: dataflow.Then(n % 3)}
}

// Batches of all sizes, barriers and the end arrive as they were offered, though
// the receiver takes its time.
func TestAllArrivesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.close()
		r := rand.New(rand.NewPCG(1, 2))
		const messages = 200
		o := w.sender.Outlet("b", hello(schema()))
		sizes := make([]int, messages)
		for i := range sizes {
			sizes[i] = []int{0, 1, 30, 500, batch.MaxRows}[r.IntN(5)]
		}
		go func() {
			r := rand.New(rand.NewPCG(3, 4))
			for i, n := range sizes {
				if i%10 == 9 {
					offerTo(o, runtime.Message{Barrier: barrier(uint64(i))})
					continue
				}
				offerTo(o, runtime.Message{Batch: rows(w.pool, schema(), n, r, i%3 == 0)})
			}
			offerTo(o, runtime.Message{})
		}()
		r = rand.New(rand.NewPCG(3, 4))
		check := batch.NewPool(0, nil)
		for i, n := range sizes {
			m := w.in.poll()
			if i%7 == 0 {
				time.Sleep(time.Second)
			}
			if i%10 == 9 {
				if m.Batch != nil || m.Barrier == nil || *m.Barrier != *barrier(uint64(i)) {
					t.Fatalf("message %d: %+v, want a barrier", i, m.Barrier)
				}
				continue
			}
			want := rows(check, schema(), n, r, i%3 == 0)
			if m.Batch == nil || !slices.Equal(batch.Encode(nil, m.Batch), batch.Encode(nil, want)) {
				t.Fatalf("message %d is another batch", i)
			}
			m.Batch.Release()
			want.Release()
		}
		if m := w.in.poll(); m.Batch != nil || m.Barrier != nil {
			t.Error("no end")
		}
		if err := w.sender.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if w.hellos[0] != hello(schema()) {
			t.Errorf("hello %+v", w.hellos[0])
		}
		if send, recv := w.errs(); send != nil || recv != nil {
			t.Errorf("failed: %v, %v", send, recv)
		}
	})
}

// What a receiver does not take stays bounded, and a sender that waits goes on
// when it does.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		defer w.close()
		r := rand.New(rand.NewPCG(1, 2))
		o := w.sender.Outlet("b", hello(schema()))
		sent := 0
		for {
			synctest.Wait()
			b := rows(w.pool, schema(), batch.MaxRows, r, false)
			if !o.Offer(runtime.Message{Batch: b}) {
				b.Release()
				break
			}
			if sent++; sent > 100 {
				t.Fatal("a sender sends on, and nobody takes anything")
			}
		}
		synctest.Wait()
		if n := w.pool.Out(); n != depth+1 {
			t.Errorf("%d batches wait, want those in the ring and one that is being written", n)
		}
		if n := w.in.waiting(); n != 2 {
			t.Errorf("%d batches wait at the receiver, want 2", n)
		}
		for range sent {
			w.in.poll().Batch.Release()
		}
		synctest.Wait()
		if !o.Offer(runtime.Message{}) {
			t.Error("no room")
		}
		if w.in.poll(); w.sender.Drain(t.Context()) != nil {
			t.Error("not delivered")
		}
	})
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		err  error
		send Hello
		want string
		why  Reason
	}{
		{&Refusal{Fenced, "attempt 4 runs"}, hello(schema()), "refused (fenced): attempt 4 runs", Fenced},
		{errors.New("of another kind"), hello(schema()), "of another kind", Failed},
		{nil, hello(batch.MustSchema(batch.Field{Name: "z", Type: batch.Double})), "the receiver's columns are key string", OtherSchema},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			defer w.close()
			w.refuse = c.err
			o := w.sender.Outlet("b", c.send)
			if b := rows(w.pool, schema(), 5, rand.New(rand.NewPCG(1, 2)), false); !o.Offer(runtime.Message{Batch: b}) {
				b.Release() // it has been refused already
			}
			err := w.sender.Drain(t.Context())
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Reason != c.why || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "of job j7, attempt 3, to node b") {
				t.Errorf("error %v", err)
			}
			synctest.Wait()
			if send, _ := w.errs(); len(send) != 1 || send[0].Error() != err.Error() {
				t.Errorf("failed was told %v", send)
			}
			if o.Offer(runtime.Message{}) {
				t.Error("a broken outlet takes messages")
			}
		})
	}
}

// A stream that is lost fails the channel at both ends, once, and all channels
// of the sender are told as one failure.
func TestLostStream(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(w *world)
	}{
		{"broken", func(w *world) { w.net.Break("a", "b") }},
		{"cut for long", func(w *world) { w.net.CutOneWay("a", "b") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1000)
				defer w.close()
				r := rand.New(rand.NewPCG(1, 2))
				one, two := w.sender.Outlet("b", hello(schema())), w.sender.Outlet("b", hello(schema()))
				for range 3 {
					offerTo(one, runtime.Message{Batch: rows(w.pool, schema(), 100, r, false)})
					offerTo(two, runtime.Message{Batch: rows(w.pool, schema(), 100, r, false)})
				}
				synctest.Wait()
				c.lose(w)
				offerTo(one, runtime.Message{}) // its end has not been taken: it is lost
				if err := w.sender.Drain(t.Context()); !errors.Is(err, mesh.ErrUnreachable) {
					t.Errorf("error %v", err)
				}
				synctest.Wait()
				if send, recv := w.errs(); len(send) != 1 || len(recv) != 2 || !errors.Is(send[0], mesh.ErrUnreachable) {
					t.Errorf("failed: %v, %v", send, recv)
				}
			})
		})
	}
}

// The end that was written but not taken is no delivery.
func TestLostBehindTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		r := rand.New(rand.NewPCG(1, 2))
		o := w.sender.Outlet("b", hello(schema()))
		for range 2 {
			offerTo(o, runtime.Message{Batch: rows(w.pool, schema(), 10, r, false)})
		}
		offerTo(o, runtime.Message{})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := w.sender.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody took it, and it is delivered: %v", err)
		}
		w.net.Break("a", "b")
		if err := w.sender.Drain(t.Context()); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("error %v", err)
		}
	})
}

// The receiver's attempt ends: the sender hears of it, the receiver's side is
// quiet.
func TestTheAttemptEnds(t *testing.T) {
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			defer w.close()
			o := w.sender.Outlet("b", hello(schema()))
			for range 3 {
				offerTo(o, runtime.Message{Batch: rows(w.pool, schema(), 10, rand.New(rand.NewPCG(1, 2)), false)})
				if !full {
					break
				}
			}
			synctest.Wait()
			w.end()
			synctest.Wait()
			if send, recv := w.errs(); len(send) != 1 || recv != nil {
				t.Errorf("failed: %v, %v", send, recv)
			}
		})
	}
}

func TestCloseIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		defer w.close()
		w.net.New("silent", "north") // it never starts
		for _, to := range []mesh.NodeID{"b", "nobody", "silent"} {
			o := w.sender.Outlet(to, hello(schema()))
			for range depth {
				o.Offer(runtime.Message{Batch: rows(w.pool, schema(), 10, rand.New(rand.NewPCG(1, 2)), false)})
			}
		}
		w.sender.Close()
		if send, _ := w.errs(); send != nil {
			t.Errorf("failed was told %v", send)
		}
	})
}

// An agent that is not reached for a moment does not fail the attempt.
func TestOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		defer w.close()
		w.net.Cut("a", "b")
		o := w.sender.Outlet("b", hello(schema()))
		time.Sleep(5 * time.Second)
		w.net.Heal("a", "b")
		o.Offer(runtime.Message{})
		if err := w.sender.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		w.net.Cut("a", "b")
		began := time.Now()
		w.sender.Outlet("b", hello(schema()))
		if err := w.sender.Drain(t.Context()); !errors.Is(err, mesh.ErrUnreachable) || time.Since(began) > openTime {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// A sender that does not keep to the protocol is refused, and the receiver's
// attempt fails.
func TestBadFrames(t *testing.T) {
	open := frame(frameOpen, appendHello(nil, hello(schema())))
	for name, bytes := range map[string][]byte{
		"no open":         frame(frameEnd, nil),
		"open that is no": frame(frameOpen, []byte{1}),
		"batch":           append(slices.Clone(open), frame(frameBatch, []byte{9})...),
		"packed":          append(slices.Clone(open), frame(framePacked, []byte{255, 255, 255, 255, 15})...),
		"barrier":         append(slices.Clone(open), frame(frameBarrier, nil)...),
		"open twice":      append(slices.Clone(open), open...),
		"a receiver's":    append(slices.Clone(open), frame(frameTaken, nil)...),
		"cut":             append(slices.Clone(open), 1, 2),
		"no end":          open,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			defer w.close()
			s, err := w.a.Open(t.Context(), "b", mesh.Channel)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // always nil
			if _, err := s.Write(bytes); err != nil {
				t.Fatal(err)
			}
			s.CloseWrite() //nolint:errcheck // the receiver may have ended it
			synctest.Wait()
			accepted := 0
			if len(bytes) >= len(open) {
				accepted = 1
			}
			if _, recv := w.errs(); len(recv) != accepted {
				t.Errorf("%s: failed was told %v", name, recv)
			}
		})
	}
}
