package node

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// A peer that says more than is taken waits: its messages do not gather here.
func TestTalkWaitsForItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := link.NewPipe(mesh.Peer{Node: "a"}, mesh.Peer{Node: "b"}, link.Window).Ends()
		owner := newMailbox[func()](0)
		heard, over := 0, false
		k := newTalk(here, owner, func([]byte) (func(), error) { return func() { heard++ }, nil }, func() { over = true })
		const all = 1000
		said := 0 // of the goroutine, looked at while it waits
		go func() {
			for said < all {
				if _, err := there.Write(wire.Append(nil, controlFrame, make([]byte, 1024))); err != nil {
					t.Error(err)
					return
				}
				said++
			}
		}()
		synctest.Wait()
		if len(owner.items) != 1 || said >= all {
			t.Errorf("%d messages wait, %d of %d were taken from the peer", len(owner.items), said, all)
		}
		for heard < all {
			<-owner.filled
			for _, f := range owner.take() {
				f()
			}
		}
		// It ends though nobody takes what comes.
		if _, err := there.Write(wire.Append(nil, controlFrame, nil)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		k.close()
		for _, f := range owner.close() {
			f()
		}
		if !over {
			t.Error("its end was not told")
		}
	})
}

// What arrives when an agent's hands have ended begins nothing.
func TestHandsEnd(t *testing.T) {
	h := newHands() // a step would miss its worker
	here, there := link.NewPipe(mesh.Peer{Node: "a"}, mesh.Peer{Node: "b"}, link.Window).Ends()
	h.inbox.post(func() { h.connected(0, here, nil) })
	h.inbox.post(func() { h.broke(0) })
	h.tell(worker.Event{Leave: true})
	h.end()
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the stream is open: %v", err)
	}
	_ = there.Close()
}
