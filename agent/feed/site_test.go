package feed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// Invariant 3, with copies: when the broker hears an acknowledgement the message
// is on disk on every member.
func TestAcknowledgedIsOnAllDisks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.stop()
		s.net.Delay("a", "b", 10*time.Millisecond)
		acks := 0
		s.broker.hook = func() {
			for _, a := range s.agents {
				there := onDisk(t, a.dir)
				if n := len(s.broker.acks()) + 1; len(there) < n {
					t.Errorf("acknowledged %d, on the disk of %s are %d", n, a.node, len(there))
				}
			}
			acks++
		}
		s.begin("a", 0, "a", "b", "c")
		s.knows("a", "b", "c")
		s.broker.publish(numbers(0, 20)...)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wants(t, s.broker.acks(), numbers(0, 20)...)
		if acks < 5 {
			t.Errorf("only %d acknowledgements", acks)
		}
		for _, a := range s.agents {
			wants(t, onDisk(t, a.dir), numbers(0, 20)...)
			if !reflect.DeepEqual(groups(t, a.dir), groups(t, s.agents["a"].dir)) {
				t.Errorf("the groups of %s are others", a.node)
			}
		}
		wants(t, s.agents["a"].events(), "in sync 1")
	})
}

// While a member is away nothing is acknowledged, and readers see nothing more;
// when it is back all goes on.
func TestMemberAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 10)...)
		time.Sleep(time.Second)
		f, err := s.agents["a"].feeds.OpenKeeping("f", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		wants(t, logged(t, f, "9"), numbers(0, 10)...)

		b := s.agents["b"]
		dir := b.crash()
		time.Sleep(5 * time.Second)
		wants(t, s.agents["a"].events(), "in sync 1", "without b 1")
		s.broker.publish(numbers(10, 20)...)
		time.Sleep(time.Minute)
		wants(t, s.broker.acks(), numbers(0, 10)...)
		if st := s.agents["a"].feeds.Statuses(); len(st) != 1 || !strings.Contains(st[0].Why, "member b") {
			t.Errorf("%+v", st)
		}
		r, err := f.Reader("test", []int{0})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		wants(t, texts(read(t, r, "9")), numbers(0, 10)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var out sensors.Records
		if err := r.Read(ctx, &out, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d records, %v", out.Len(), err)
		}
		cancel()

		s.start("b", dir)
		s.knows("b")
		time.Sleep(10 * time.Second)
		wants(t, s.broker.acks(), numbers(0, 20)...)
		wants(t, texts(read(t, r, "19")), numbers(10, 20)...)
		wants(t, s.agents["a"].events(), "in sync 1", "without b 1", "in sync 1")
		wants(t, onDisk(t, s.agents["b"].dir), numbers(0, 20)...)
	})
}

// A member whose folder was lost gets everything again.
func TestMemberWiped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 100)...)
		time.Sleep(time.Second)
		s.agents["b"].crash()
		s.start("b", t.TempDir())
		s.knows("b")
		s.broker.publish("end")
		time.Sleep(10 * time.Second)
		if !reflect.DeepEqual(groups(t, s.agents["b"].dir), groups(t, s.agents["a"].dir)) {
			t.Error("the groups are others")
		}
		if n := len(s.broker.acks()); n != 101 {
			t.Errorf("%d are acknowledged", n)
		}
	})
}

// The owner dies behind each step of a commit, and the other member goes on:
// what was acknowledged is there, and what was not comes again.
func TestOwnerDies(t *testing.T) {
	for _, c := range []struct {
		name string
		till time.Duration // after the publishing: groups reach b after 100 ms, its ack a after 200
		b    int           // messages that b has then
	}{{"not sent", 0, 10}, {"on its way", 50 * time.Millisecond, 10}, {"on b's disk", 150 * time.Millisecond, 13}, {"acknowledged", 250 * time.Millisecond, 13}, {"the next", 350 * time.Millisecond, 16}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, "a", "b", "c")
				defer s.stop()
				s.begin("a", 0, "a", "b")
				s.knows("a", "b")
				s.broker.publish(numbers(0, 10)...)
				time.Sleep(time.Second)
				s.net.Delay("a", "b", 100*time.Millisecond)
				s.broker.publish(numbers(10, 20)...)
				time.Sleep(c.till)
				dir := s.agents["a"].crash()
				delete(s.agents, "a")
				acked := len(s.broker.acks())
				if n := len(onDisk(t, s.agents["b"].dir)); n < acked || c.name != "not sent" && n < c.b {
					t.Fatalf("%d are acknowledged, b has %d", acked, n)
				}
				s.begin("b", s.seal("b"), "b", "c")
				s.knows("b", "c")
				time.Sleep(10 * time.Second)
				wants(t, s.broker.acks(), numbers(0, 20)...)
				once := slices.Compact(onDisk(t, s.agents["b"].dir))
				for i, text := range numbers(0, 20) {
					if !slices.Contains(once, text) {
						t.Errorf("message %d is lost", i)
					}
				}
				// The dead one comes back as a member, with a tail of its own.
				s.start("a", dir)
				s.begin("b", s.seal("b"), "a", "b", "c")
				s.knows("a", "b", "c")
				s.broker.publish("end")
				time.Sleep(10 * time.Second)
				for _, n := range []mesh.NodeID{"a", "c"} {
					if !reflect.DeepEqual(groups(t, s.agents[n].dir), groups(t, s.agents["b"].dir)) {
						t.Errorf("the groups of %s are others", n)
					}
				}
			})
		})
	}
}

// An owner that has lost its role ends its session, and tells its readers why;
// one that nobody told finds out from a member.
func TestRoleLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		time.Sleep(time.Second)
		f, err := s.agents["a"].feeds.OpenKeeping("f", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.Reader("test", []int{0})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = errors.Join(r.Close(), f.Close()) }()
		s.begin("b", s.seal("b"), "a", "b")
		s.knows("b")
		s.broker.publish("x")
		time.Sleep(time.Minute)
		if n := len(s.broker.acks()); n != 0 {
			t.Errorf("%d acknowledged by an owner that is none", n)
		}
		var out sensors.Records
		if err := r.Read(t.Context(), &out, 1); err == nil || !strings.Contains(err.Error(), "epoch") {
			t.Errorf("%v", err)
		}
		if e := s.agents["a"].events(); len(e) < 2 || !strings.Contains(e[len(e)-1], "failed") {
			t.Error(e)
		}
		s.knows("a")
		time.Sleep(time.Minute)
		wants(t, s.broker.acks(), "x")
		if _, err := s.agents["a"].feeds.OpenKeeping("f", nil, nil); !errors.Is(err, feed.ErrNotOwner) {
			t.Error(err)
		}
		f2, err := s.agents["b"].feeds.OpenKeeping("f", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		r2, err := f2.Reader("test", []int{0})
		if err != nil {
			t.Fatal(err)
		}
		s.knows("a")
		s.begin("a", s.seal("a"), "a", "b")
		s.knows("b")
		for err == nil {
			err = r2.Read(t.Context(), &out, 1)
		}
		if !errors.Is(err, feed.ErrNotOwner) || !strings.Contains(err.Error(), "owned by a") {
			t.Error(err)
		}
		_ = errors.Join(r2.Close(), f2.Close())
	})
}

// Without a permit nothing is acknowledged and no session opened.
func TestPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		defer s.stop()
		p := s.agents["a"].permit
		p.set(errors.New("the lease is over"))
		s.begin("a", 0, "a")
		s.knows("a")
		s.broker.publish(numbers(0, 3)...)
		time.Sleep(time.Minute)
		if s.broker.current != nil {
			t.Fatal("a session without a permit")
		}
		p.set(nil)
		time.Sleep(time.Second)
		wants(t, s.broker.acks(), numbers(0, 3)...)
		p.set(errors.New("the lease is over"))
		s.broker.publish(numbers(3, 6)...)
		time.Sleep(time.Minute)
		wants(t, s.broker.acks(), numbers(0, 3)...)
		wants(t, onDisk(t, s.agents["a"].dir), numbers(0, 6)...)
		p.set(nil)
		time.Sleep(time.Second)
		wants(t, s.broker.acks(), numbers(0, 6)...)
	})
}

// A slow member holds the session back; all arrives.
func TestSlowMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.stop()
		s.begin("a", 0, "a", "b", "c")
		s.knows("a", "b", "c")
		time.Sleep(time.Second)
		s.net.Delay("a", "c", time.Second)
		s.broker.publish(numbers(0, 100)...)
		time.Sleep(10 * time.Second)
		// A commit takes what one read gives, and 2 s.
		if n := s.broker.waiting(); n < 50 {
			t.Errorf("only %d wait", n)
		}
		time.Sleep(5 * time.Minute)
		wants(t, s.broker.acks(), numbers(0, 100)...)
		wants(t, s.agents["a"].events(), "in sync 1")
	})
}

// What the logs on disk are is known at the start, also of a promise.
func TestLogsAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 5)...)
		time.Sleep(time.Second)
		end := s.seal("b")
		a := s.start("b2", s.agents["b"].crash())
		delete(s.agents, "b")
		logs, err := a.feeds.Logs()
		if err != nil || fmt.Sprint(logs) != fmt.Sprintf("[{f 2 %d true false}]", end) || end < 5 {
			t.Errorf("%v, %v", logs, err)
		}
		if err := a.feeds.Drop("f"); err != nil {
			t.Fatal(err)
		}
		if logs, err := a.feeds.Logs(); err != nil || len(logs) != 0 {
			t.Errorf("%v, %v", logs, err)
		}
		if _, err := os.Stat(filepath.Join(a.dir, "feeds", "f")); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// A copy was never told of the epoch, has a tail of its own, and has promised the
// next one all the same, as older programs did first: sealed, it says how much of
// the log it has, and forgets nothing of that.
func TestSealOfWhoWasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 10)...)
		time.Sleep(time.Second)
		s.net.Delay("a", "b", 100*time.Millisecond)
		s.broker.publish(numbers(10, 20)...)
		synctest.Wait()
		dir := s.agents["a"].crash()
		delete(s.agents, "a")
		s.begin("b", s.seal("b"), "b", "c")
		s.knows("b", "c")
		belongs := s.epoch.Start
		time.Sleep(10 * time.Second)
		s.begin("b", s.seal("b"), "a", "b")
		log, err := ingestlog.Open(ingestlog.Options{Dir: filepath.Join(dir, "feeds", "f")})
		if err != nil {
			t.Fatal(err)
		}
		if _, end := log.End(); end <= belongs || s.epoch.Start <= belongs {
			t.Fatalf("it has %d, %d belong to a log of %d: nothing is tested", end, belongs, s.epoch.Start)
		}
		if err := errors.Join(log.Promise(4), log.Close()); err != nil {
			t.Fatal(err)
		}
		a := s.start("a", dir)
		logs, err := a.feeds.Logs()
		if err != nil || len(logs) != 1 || logs[0].Epoch != 4 || logs[0].Sealed {
			t.Errorf("%+v, %v: nobody knows yet where it ends", logs, err)
		}
		if end := s.seal("a"); end != belongs {
			t.Errorf("it ends at %d, want %d", end, belongs)
		}
		if logs, err := a.feeds.Logs(); err != nil || fmt.Sprint(logs) != fmt.Sprintf("[{f 4 %d true false}]", belongs) {
			t.Errorf("%+v, %v", logs, err)
		}
		if mine, all := groups(t, a.dir), groups(t, s.agents["b"].dir); len(mine) == 0 || !reflect.DeepEqual(mine, all[:len(mine)]) {
			t.Errorf("%d groups, which are others", len(mine))
		}
		before := s.epoch
		before.Epoch--
		if _, err := a.feeds.Seal("f", before); !errors.Is(err, ingestlog.ErrSealed) {
			t.Error(err)
		}
	})
}

// The epochs of a feed that was deleted say nothing of the next one of its name. Those
// of that are above them: so it does not matter who has the log of the first still, or
// has promised something of it.
func TestAFeedIsMadeAgainWhileSomeAreOff(t *testing.T) {
	for _, dropped := range [][]mesh.NodeID{{"a"}, {"b"}, nil} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, "a", "b")
			defer s.stop()
			for range 7 {
				s.begin("a", 0, "a", "b")
				s.knows("a", "b")
			}
			s.broker.publish(numbers(0, 5)...)
			time.Sleep(time.Minute)
			s.seal("b")
			for _, node := range dropped {
				if err := s.agents[node].feeds.Drop("f"); err != nil {
					t.Fatal(err)
				}
			}
			s.start("b", s.agents["b"].crash())
			s.epoch = coordinator.LogEpoch{Epoch: 89, Forgotten: 89} // as jobmanager begins with the 90th
			s.begin("a", 0, "a", "b")
			s.knows("a", "b")
			s.broker.publish(numbers(5, 12)...)
			time.Sleep(time.Minute)
			wants(t, s.broker.acks(), numbers(0, 12)...)
			for _, a := range s.agents {
				wants(t, slices.Compact(onDisk(t, a.dir)), numbers(5, 12)...)
			}
		})
	}
}

// The epochs of one that was made below feature level 6 begin with 1: where all have
// dropped the first one's log they say nothing of it.
func TestAFeedIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		for range 3 {
			s.begin("a", 0, "a", "b")
			s.knows("a", "b")
		}
		for _, a := range s.agents {
			if err := a.feeds.Drop("f"); err != nil {
				t.Fatal(err)
			}
			a.said = nil
		}
		s.epoch.Epoch, s.epoch.Starts = 0, nil
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 5)...)
		time.Sleep(time.Minute)
		wants(t, s.broker.acks(), numbers(0, 5)...)
		wants(t, s.agents["a"].events(), "in sync 1")
	})
}

// The owner of a held epoch has no session: nothing comes into the log, and it ends
// where the epoch starts. Then another epoch follows, and all comes.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.stop()
		s.begin("a", 0, "a", "b")
		s.knows("a", "b")
		s.broker.publish(numbers(0, 10)...)
		time.Sleep(time.Second)
		start := s.seal("a")
		s.begin("a", start, "a", "b")
		s.epoch.Held = true
		s.knows("a", "b")
		s.broker.publish(numbers(10, 20)...)
		time.Sleep(time.Minute)
		wants(t, s.agents["a"].events(), "in sync 1", "in sync 2")
		if end := s.seal("a"); end != start || len(s.broker.acks()) != 10 {
			t.Errorf("the log ends at %d, and the epoch starts at %d; %d are acknowledged", end, start, len(s.broker.acks()))
		}
		s.begin("a", start, "a", "b")
		s.epoch.Held = false
		s.knows("a", "b")
		time.Sleep(time.Minute)
		wants(t, s.broker.acks(), numbers(0, 20)...)
		for _, a := range s.agents {
			wants(t, slices.Compact(onDisk(t, a.dir)), numbers(0, 20)...)
		}
	})
}
