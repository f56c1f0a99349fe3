package feed_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// segment tells whether an agent has a segment of the log.
func (a *siteAgent) segment(number int) bool {
	_, err := os.Stat(filepath.Join(a.dir, "feeds", "f", fmt.Sprintf("%010d.log", number)))
	return err == nil
}

// filling is a site of two, whose logs are about to have some segments that are older
// than what is kept 5 minutes later.
func filling(t *testing.T, full func(b *siteAgent) bool) *site {
	t.Helper()
	s := newSite(t, "a")
	var b *siteAgent
	s.full = func() bool { return b != nil && full(b) }
	b = s.start("b", t.TempDir())
	s.config.Keep.Age, s.config.Keep.Cap = 2*dataflow.Minute, 4<<20
	s.begin("a", 0, "a", "b")
	s.knows("a", "b")
	big := strings.Repeat("x", 100<<10)
	for i := range 30 {
		s.broker.publish(fmt.Sprint(i, big))
	}
	return s
}

// filled checks that they have.
func (s *site) filled() {
	s.t.Helper()
	if n := s.broker.waiting(); n > 0 || !s.agents["a"].segment(2) || !s.agents["b"].segment(2) {
		s.t.Fatalf("%d messages wait", n)
	}
}

// nothingWaits checks that all messages are acknowledged.
func (s *site) nothingWaits() {
	s.t.Helper()
	if n := s.broker.waiting(); n > 0 {
		s.t.Errorf("%d messages wait: %s", n, s.agents["a"].feeds.Statuses()[0].Why)
	}
}

// again starts an agent on what it left, with a disk that has room.
func (s *site) again(node mesh.NodeID, dir string) {
	s.t.Helper()
	s.full = nil
	s.start(node, dir)
	s.knows(node)
}

// A member whose disk is full is told what it may let go, also when that became so
// while it was full: the feed goes on when time has passed.
func TestMemberIsFullUntilRetentionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		// Its disk has room again when an old segment is gone.
		s := filling(t, func(b *siteAgent) bool { return full.Load() && b.segment(2) })
		defer s.stop()
		time.Sleep(30 * time.Second)
		s.filled()
		full.Store(true)
		s.broker.publish("full")
		time.Sleep(time.Minute)
		if n := s.broker.waiting(); n != 1 {
			t.Fatalf("%d messages wait", n)
		}
		if why := s.agents["a"].feeds.Statuses()[0].Why; !strings.Contains(why, "member b: it takes nothing") || !strings.Contains(why, "no space left on device") {
			t.Errorf("it says %q", why)
		}
		time.Sleep(5 * time.Minute) // what is older than two may go
		s.broker.publish("later")
		time.Sleep(time.Minute)
		s.nothingWaits()
		if s.agents["a"].segment(2) || s.agents["b"].segment(2) {
			t.Error("what is older than it is kept is still there")
		}
	})
}

// A member is full, and has more than its owner keeps: that it is told at once.
func TestFullMemberHearsWhatItsOwnerLetGoBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		s := filling(t, func(b *siteAgent) bool { return full.Load() && b.segment(2) })
		defer s.stop()
		time.Sleep(30 * time.Second)
		s.filled()
		s.net.Cut("a", "b")
		time.Sleep(5 * time.Minute)
		full.Store(true)
		s.broker.publish("while it is away")
		time.Sleep(time.Minute)
		if n := s.broker.waiting(); n != 1 {
			t.Fatalf("%d messages wait", n)
		}
		s.net.Heal("a", "b")
		time.Sleep(time.Minute)
		s.nothingWaits()
	})
}

// The owner begins again, and has a group on its disk for which a member has no room.
func TestOwnerBeginsWhileAMemberIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		s := filling(t, func(b *siteAgent) bool { return full.Load() && b.segment(2) })
		defer s.stop()
		time.Sleep(30 * time.Second)
		s.filled()
		full.Store(true)
		s.broker.publish("full")
		time.Sleep(time.Minute)
		dir := s.agents["a"].crash()
		s.again("a", dir)
		time.Sleep(5 * time.Minute)
		s.nothingWaits()
	})
}

// A full member has more than its owner, and has no room to cut it off.
func TestFullMemberIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		s := filling(t, func(b *siteAgent) bool { return full.Load() && b.segment(2) })
		defer s.stop()
		time.Sleep(30 * time.Second)
		s.filled()
		dir := image(t, s.agents["a"].dir)
		s.broker.publish("more")
		time.Sleep(time.Minute)
		s.agents["a"].crash()
		full.Store(true)
		s.again("a", dir)
		time.Sleep(5 * time.Minute)
		s.broker.publish("later")
		time.Sleep(time.Minute)
		s.nothingWaits()
	})
}

// A member that is only away makes nobody let go: the clock of a log that takes nothing
// stands still.
func TestNothingIsLetGoForAMemberThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filling(t, func(*siteAgent) bool { return false })
		defer s.stop()
		time.Sleep(30 * time.Second)
		s.filled()
		s.net.Cut("a", "b")
		s.broker.publish("while it is away")
		time.Sleep(5 * time.Minute)
		if n := s.broker.waiting(); n != 1 || !s.agents["a"].segment(2) {
			t.Errorf("%d messages wait", n)
		}
	})
}
