package node

import (
	"context"
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// mostWaiting is how many events wait for a subscriber. Full: events are lost,
// and it is told how many.
const mostWaiting = 256

// hub hands out what happens to who listens.
type hub struct {
	mu   sync.Mutex // guards what follows, and sending on the channels
	subs map[*subscriber]bool
}

type subscriber struct {
	ch   chan api.Event
	lost int
}

func newHub() *hub { return &hub{subs: make(map[*subscriber]bool)} }

// publish never blocks.
func (h *hub) publish(e api.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		e.Lost = s.lost
		select {
		case s.ch <- e:
			s.lost = 0
		default:
			s.lost++
		}
	}
}

// subscribe hands out what happens from now on; the channel is closed when ctx
// has ended.
func (h *hub) subscribe(ctx context.Context) <-chan api.Event {
	s := &subscriber{ch: make(chan api.Event, mostWaiting)}
	h.mu.Lock()
	h.subs[s] = true
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, s)
		close(s.ch)
	})
	return s.ch
}
