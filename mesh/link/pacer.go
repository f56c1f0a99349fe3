package link

import (
	"os"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pace"
)

// pieceBytes is what is written to another site at once: small, so that what is more
// urgent does not wait long.
const pieceBytes = 16 << 10

// pacer bounds what is sent to other sites. It has no goroutine: who waits is woken by
// a timer, or by who comes.
type pacer struct {
	since time.Time

	mu      sync.Mutex // guards what follows
	bucket  *pace.Bucket
	waiting map[pace.Ticket]chan struct{} // closed when granted
	timer   *time.Timer
}

// newPacer is nil where nothing is bounded.
func newPacer(rate int64) *pacer {
	if rate <= 0 {
		return nil
	}
	return &pacer{since: time.Now(), bucket: pace.New(rate, max(rate/10, 2*pieceBytes), 0), waiting: make(map[pace.Ticket]chan struct{})}
}

// paceOf is the class of a kind's bytes.
func paceOf(k mesh.Kind) pace.Class {
	switch k {
	case mesh.Parts:
		return pace.Parts
	case mesh.Log:
		return pace.Log
	}
	return pace.Control
}

// take waits until so many bytes of a class may be sent. over ends the wait: what is
// written then says why; late and moved are its deadline (zero: none), and that it changed.
func (p *pacer) take(c pace.Class, bytes int, over <-chan struct{}, late func() time.Time, moved <-chan struct{}) error {
	granted := make(chan struct{})
	p.mu.Lock()
	ticket := p.bucket.Ask(c, bytes)
	p.waiting[ticket] = granted
	p.grant()
	p.mu.Unlock()
	for {
		var end <-chan time.Time
		var timer *time.Timer
		if at := late(); !at.IsZero() {
			timer = time.NewTimer(time.Until(at))
			end = timer.C
		}
		var err error
		again := false
		select {
		case <-granted:
		case <-over:
		case <-moved:
			again = true
		case <-end:
			err = os.ErrDeadlineExceeded
		}
		if timer != nil {
			timer.Stop()
		}
		if again {
			continue
		}
		p.mu.Lock()
		if p.waiting[ticket] != nil {
			delete(p.waiting, ticket)
			p.bucket.Forget(c, ticket)
		}
		p.mu.Unlock()
		return err
	}
}

// grant wakes whose turn it is, and sees to it that it is called again. Under mu.
func (p *pacer) grant() {
	now := time.Since(p.since)
	for {
		t, ok := p.bucket.Grant(now)
		if !ok {
			break
		}
		close(p.waiting[t])
		delete(p.waiting, t)
	}
	pause, ok := p.bucket.Wait(now)
	switch {
	case !ok:
	case p.timer == nil:
		p.timer = time.AfterFunc(pause, p.fire)
	default:
		p.timer.Reset(pause)
	}
}

func (p *pacer) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grant()
}
