package gossip

import (
	"net"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// What strangers do may come at any rate: the same is told again after a while
// only, and of so many different things at a time.
const (
	oddAgain = time.Minute
	mostOdd  = 64
)

// oddity is what makes such an event the same as one before.
type oddity struct {
	kind      Kind
	host, why string
}

// tellOdd has Events told of something that is not about a member. It does not
// block, and takes mu.
func (p *Pool) tellOdd(e Event) {
	host, _, err := net.SplitHostPort(e.Member.Gossip)
	if err != nil {
		host = e.Member.Gossip
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for o, at := range p.oddly {
		if now.Sub(at) >= oddAgain {
			delete(p.oddly, o)
		}
	}
	o := oddity{e.Kind, host, e.Why}
	most := mostOdd
	if e.Kind == Twin {
		most *= 2 // strangers cannot keep it from being told
	}
	if _, told := p.oddly[o]; told || len(p.oddly) >= most || len(p.odd) >= most {
		return
	}
	p.oddly[o] = now
	p.odd = append(p.odd, e)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// lines hears what memberlist writes. Most of it is a peer's silence, which
// events tell better; but what it does not let in it says in no other way.
type lines struct{ p *Pool }

// Write takes a line.
func (l lines) Write(line []byte) (int, error) {
	if e, ok := atTheDoor(string(line)); ok {
		l.p.tellOdd(e)
	}
	return len(line), nil
}

// atTheDoor is what a line of memberlist says of who was not let in.
func atTheDoor(line string) (e Event, ok bool) {
	_, text, _ := strings.Cut(line, "memberlist: ")
	text, from, _ := strings.Cut(oneLine(text), "from=")
	e = Event{Kind: Refused, Member: mesh.Member{Gossip: from}}
	text = strings.TrimRight(text, ": ")
	switch {
	case text == `discarding stream with unacceptable label ""`:
		return e, false // as a rule it went before it said anything; one of no mesh sends packets, too
	case strings.HasPrefix(text, "discarding packet with unacceptable label"), strings.HasPrefix(text, "discarding stream with unacceptable label"):
		_, label, _ := strings.Cut(text, "label ")
		e.Why = "it is of another mesh or site: " + label
	case strings.Contains(text, "read tcp "):
		return e, false // it was slow, or went
	case strings.HasPrefix(text, "Decrypt packet failed"), strings.HasPrefix(text, "failed to receive"):
		e.Why = "it has another gossip key, or none: " + text
	default:
		return e, false
	}
	return e, true
}

// oneLine is a text without breaks.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
