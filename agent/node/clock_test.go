package node_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// A machine that starts in 1970 each time joins, talks to the others, and gets
// another certificate when the site's time says so: it does not lock itself out.
func TestWithoutAClock(t *testing.T) {
	var ahead atomic.Int64
	first := newBox(t, "n1")
	first.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	_, token, err := node.Found(first.dir, "test", "plant", first.clock())
	if err != nil {
		t.Fatal(err)
	}
	first.start("", "")
	await(t, "the founder to lead", func() bool { return first.Health().Ready })
	box := newBox(t, "n2")
	box.clock = func() time.Time { return time.Unix(60, 0) }
	box.start(first.Link(), token.String())
	await(t, "it to be ready", func() bool { return box.Health().Ready })
	box.end()
	box.start("", "")
	await(t, "it to be ready again", func() bool { return box.Health().Ready })

	old, _, _ := box.Identity().Expires()
	ahead.Store(int64(300 * 24 * time.Hour))
	await(t, "something to be decided at that time", func() bool {
		_, stored, err := first.NewToken()
		if err == nil {
			_, err = first.Propose(t.Context(), coordinator.Command{TokenCreated: &stored})
		}
		return err == nil
	})
	await(t, "it to have another certificate", func() bool {
		now, _, _ := box.Identity().Expires()
		return now.After(old.Add(200 * 24 * time.Hour))
	})
	box.end()
	box.start("", "")
	await(t, "it to be ready with that", func() bool { return box.Health().Ready })
}
