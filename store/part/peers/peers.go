package peers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/pack"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Options are the surroundings of Peers.
type Options struct {
	Transport mesh.Transport
	Store     *part.Store
	Holds     *part.Holds
	// Fence says why parts of an attempt are not taken any more: a later one has
	// begun. Any goroutine calls it; nil: all are taken.
	Fence func(job string, token dataflow.FencingToken) error
	// Site is this node's: those of other sites may fetch, and push nothing.
	Site mesh.Site

	// Ways is over how many streams at a time a large part comes from a node of
	// another site: each may have a connection of its own. 0: 1.
	Ways int

	// Packs tells whether a node of another site may know of packed pieces; nil: none
	// does. One that refuses them is asked for others.
	Packs  func(mesh.NodeID) bool
	Packer *pack.Packer // nil: one that nobody asks what it has counted

	Serve int           // streams answered at a time, of each site; 0: 8. The others wait
	Ask   int           // streams of its own at a time, to each site; 0: 8. The others wait
	Idle  time.Duration // so long a stream may stand still; 0: 20 s
}

// Peers are the other nodes as those who have parts, and those who are to have
// them. Any goroutine may call it.
type Peers struct {
	o      Options
	quit   chan struct{}
	served *gates // of streams that are answered
	asking *gates // of streams that ask

	mu      sync.Mutex // guards what follows
	closed  bool
	streams map[mesh.Stream]bool      // that are answered, or wait for it
	sites   map[mesh.NodeID]mesh.Site // of nodes that were asked: a node never changes it
	serving sync.WaitGroup
}

// New makes Peers, which answers the streams that others open from the start of
// the transport on.
func New(o Options) *Peers {
	if o.Serve == 0 {
		o.Serve = 8
	}
	if o.Ask == 0 {
		o.Ask = 8
	}
	if o.Idle == 0 {
		o.Idle = 20 * time.Second
	}
	if o.Packs == nil {
		o.Packs = func(mesh.NodeID) bool { return false }
	}
	if o.Packer == nil {
		o.Packer = new(pack.Packer)
	}
	p := &Peers{o: o, quit: make(chan struct{}), served: newGates(o.Serve), asking: newGates(o.Ask), streams: make(map[mesh.Stream]bool), sites: make(map[mesh.NodeID]mesh.Site)}
	o.Transport.Handle(mesh.Parts, p.serve)
	return p
}

// Close ends the streams that are answered, and waits for them. Nobody asks any
// more.
func (p *Peers) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.quit)
	}
	for s := range p.streams {
		_ = s.Close()
	}
	p.mu.Unlock()
	p.serving.Wait()
	return nil
}

// enter waits until the stream may be answered.
func (p *Peers) enter(s mesh.Stream) bool {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	p.streams[s] = true
	p.serving.Add(1)
	p.mu.Unlock()
	if p.served.enter(s.Peer().Site, p.quit) {
		return true
	}
	p.forget(s)
	return false
}

func (p *Peers) leave(s mesh.Stream) {
	p.served.leave(s.Peer().Site)
	p.forget(s)
}

func (p *Peers) forget(s mesh.Stream) {
	p.mu.Lock()
	delete(p.streams, s)
	p.mu.Unlock()
	p.serving.Done()
}

// idle is a stream that may not stand still for long.
type idle struct {
	mesh.Stream
	o Options
}

func (i idle) Read(b []byte) (int, error) {
	if err := i.SetDeadline(time.Now().Add(i.o.Idle)); err != nil {
		return 0, err
	}
	return i.Stream.Read(b)
}

// Write writes piece by piece to another site, where a large one may take long.
func (i idle) Write(b []byte) (done int, err error) {
	for err == nil && done < len(b) {
		piece := b[done:]
		if i.Peer().Site != i.o.Site {
			piece = piece[:min(len(piece), awayBytes)]
		}
		if err = i.SetDeadline(time.Now().Add(i.o.Idle)); err == nil {
			var n int
			n, err = i.Stream.Write(piece)
			done += n
		}
	}
	return done, err
}

const awayBytes = 16 << 10

// ask opens a stream to a node and does f with it; it ends with ctx.
func (p *Peers) ask(ctx context.Context, to mesh.NodeID, whose beginning, f func(idle) error) error {
	return p.askAs(ctx, to, func(idle) beginning { return whose }, f)
}

// askAs is ask of somebody on whom it depends how the stream begins.
func (p *Peers) askAs(ctx context.Context, to mesh.NodeID, whose func(idle) beginning, f func(idle) error) error {
	return p.askOf(ctx, p.siteOf(to), to, whose, f)
}

// askOf is askAs of a node of a site, "" if that is not known.
func (p *Peers) askOf(ctx context.Context, site mesh.Site, to mesh.NodeID, whose func(idle) beginning, f func(idle) error) error {
	s, site, err := p.open(ctx, site, to)
	if err != nil {
		return err
	}
	defer p.asking.leave(site)
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	i := idle{s, p.o}
	if err = writeFrame(i, begin, encodeBegin(whose(i))); err == nil {
		err = f(i)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("parts: node %s: %w", to, err)
	}
	return nil
}

// open opens a stream to a node, and enters the gate of its site, which it returns: it is
// to be left. While the site is not known it has a gate of its own, so that who is not
// reached holds up nobody else.
func (p *Peers) open(ctx context.Context, site mesh.Site, to mesh.NodeID) (mesh.Stream, mesh.Site, error) {
	for {
		if !p.asking.enter(site, ctx.Done()) {
			return nil, "", context.Cause(ctx)
		}
		opening, cancel := context.WithTimeout(ctx, p.o.Idle)
		s, err := p.o.Transport.Open(opening, to, mesh.Parts)
		cancel()
		if err != nil {
			p.asking.leave(site)
			return nil, "", fmt.Errorf("parts: node %s: %w", to, err)
		}
		its := s.Peer().Site
		if site != "" || its == "" {
			return s, site, nil
		}
		p.learn(to, its)
		at := p.asking.try(its)
		p.asking.leave(site)
		if site = its; at {
			return s, site, nil
		}
		_ = s.Close() // who waits holds nothing there
	}
}

// mostKnown is of how many nodes the site is remembered. Beyond it all are learned anew.
const mostKnown = 4096

// siteOf is the site of a node, "" if it was not asked yet.
func (p *Peers) siteOf(node mesh.NodeID) mesh.Site {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sites[node]
}

func (p *Peers) learn(node mesh.NodeID, site mesh.Site) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.sites) >= mostKnown {
		clear(p.sites)
	}
	p.sites[node] = site
}

// answered reads the answer to a request.
func answered(r io.Reader, want frameType) ([]byte, error) {
	t, body, err := readFrame(r)
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case t == refused:
		return nil, decodeRefusal(body)
	case t != want:
		return nil, fmt.Errorf("parts: a frame of type %d answers, and not %d", t, want)
	}
	return body, nil
}

// Push makes sure that a node has parts of a checkpoint of a job, and holds them
// until it knows what became of it. It returns how many bytes had to be sent.
// ErrFenced: a later attempt has begun there; ErrHere: a part cannot be read here.
func (p *Peers) Push(ctx context.Context, to mesh.NodeID, job string, id dataflow.CheckpointID, parts []store.Part) (sent int64, err error) {
	if len(parts) == 0 {
		return 0, nil
	}
	whose := func(idle) beginning { return beginning{job: job, id: id} }
	err = p.askOf(ctx, p.o.Site, to, whose, func(s idle) error { // other sites take no pushes
		for rest := parts; len(rest) > 0; {
			n := min(len(rest), maxParts)
			lacks, err := missingAt(s, rest[:n])
			if err != nil {
				return err
			}
			for _, some := range batches(lacks) {
				if err := p.push(s, some); err != nil {
					return err
				}
				for _, one := range some {
					sent += one.Size
				}
			}
			rest = rest[n:]
		}
		return nil
	})
	return sent, err
}

// missingAt are the parts that the other end lacks.
func missingAt(s idle, parts []store.Part) (lacks []store.Part, err error) {
	if err := writeFrame(s, have, encodeParts(parts)); err != nil {
		return nil, told(s, err)
	}
	answer, err := answered(s, has)
	if err != nil {
		return nil, err
	}
	if len(answer) != len(parts) {
		return nil, fmt.Errorf("parts: %d were asked for, and the answer is of %d", len(parts), len(answer))
	}
	for i, there := range answer {
		if there == 0 {
			lacks = append(lacks, parts[i])
		}
	}
	return lacks, nil
}

// told is the refusal that the other end sent before it stopped reading, if there
// is one.
func told(s idle, err error) error {
	if _, e := answered(s, refused); errors.As(e, new(refusal)) {
		return e
	}
	return err
}

// batches are the parts in pieces that are pushed at once.
func batches(parts []store.Part) (all [][]store.Part) {
	for len(parts) > 0 {
		n, total := 1, parts[0].Size
		for n < len(parts) && total+parts[n].Size <= batchBytes {
			total += parts[n].Size
			n++
		}
		all = append(all, parts[:n])
		parts = parts[n:]
	}
	return all
}

// push sends parts, and waits until they are durable. An answer that comes before
// all is sent can only be a refusal.
func (p *Peers) push(s idle, parts []store.Part) error {
	type answer struct{ err error }
	got := make(chan answer, 1)
	go func() { // ends with the answer, or with the stream
		_, err := answered(s, done)
		got <- answer{err}
		if err != nil {
			_ = s.Close() // who sends need not go on
		}
	}()
	err := writeFrame(s, push, encodeParts(parts))
	for i := 0; err == nil && i < len(parts); i++ {
		err = p.sendPart(s, parts[i])
	}
	if errors.Is(err, ErrHere) {
		_ = s.Close()
		<-got
		return err
	}
	if a := <-got; a.err != nil && (err == nil || errors.As(a.err, new(refusal))) {
		return a.err
	}
	return err
}

// ErrHere: what is to be pushed cannot be read on this node's own disk. Any other error is
// of the other end, or of the way there.
var ErrHere = errors.New("on the disk here")

func (p *Peers) sendPart(s idle, one store.Part) error {
	r, err := p.o.Store.Open(one)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHere, err)
	}
	defer r.Close()
	from := &noted{r: r}
	if err = send(s, from, one, 0); from.err != nil {
		return fmt.Errorf("%w: %w", ErrHere, from.err)
	}
	return err
}

// noted knows whether it was reading that failed.
type noted struct {
	r   io.Reader
	err error
}

func (n *noted) Read(b []byte) (int, error) {
	k, err := n.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return k, err
}

// Fetch gets a part from one of the nodes that have it, in their order, unless it
// is here. It is pinned then, once more.
func (p *Peers) Fetch(ctx context.Context, from []mesh.NodeID, one store.Part) error {
	if p.o.Store.Pin(one) == nil {
		return nil
	}
	return p.Replace(ctx, from, one)
}

// Replace is Fetch of a part that is damaged here, if it is here: it is written
// anew.
func (p *Peers) Replace(ctx context.Context, from []mesh.NodeID, one store.Part) error {
	from = slices.DeleteFunc(slices.Clone(from), func(n mesh.NodeID) bool { return n == p.o.Transport.Self() }) // it is not here, or damaged
	var errs []error
	for i := range from {
		err := p.fetch(ctx, append(slices.Clone(from[i:]), from[:i]...), one)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		errs = append(errs, err)
		if errors.Is(err, store.ErrFull) && !errors.As(err, new(refusal)) {
			break // there is no room here
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("part %v: %w: no other node is known to have it", one.Digest, store.ErrMissing)
	}
	return fmt.Errorf("part %v: %w", one.Digest, errors.Join(errs...))
}

// Tries to go on with a part of which something has come, without anything more, and
// the pause before each.
const (
	mostStuck  = 4
	stuckPause = 500 * time.Millisecond
)

// fetch gets a part from the first of nodes; when that breaks off in the middle it goes
// on where it was, with any of them.
func (p *Peers) fetch(ctx context.Context, nodes []mesh.NodeID, one store.Part) error {
	_, err := p.o.Store.Put(func(w io.Writer) error {
		g := getting{part: one, to: w, sum: sha256.New()}
		for try, stuck := 0, 0; ; try++ {
			before := g.at
			err := p.get(ctx, nodes[try%len(nodes)], &g)
			switch {
			case err == nil:
				return g.whole()
			case g.packed && errors.Is(err, errVersion):
				g.plain = true
				continue
			case g.wide && g.at == before && g.here == nil && ctx.Err() == nil:
				g.narrow = true // an older program, or one stream too many
				continue
			case g.at == 0, g.here != nil, ctx.Err() != nil:
				return err
			case g.at > before:
				stuck = 0
			default:
				stuck++
			}
			if stuck == mostStuck {
				return err
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Duration(stuck) * stuckPause):
			}
		}
	})
	return err
}

// getting is a part on its way here.
type getting struct {
	part store.Part
	to   io.Writer
	sum  hash.Hash
	at   int64 // bytes that have come
	here error // of this node's own disk

	wide   bool // the last try was over several streams
	narrow bool // no other one is to be
	packed bool // the last try was of packed pieces
	plain  bool // no other one is to be
}

// get gets what is missing of a part from a node: from one of another site over
// several streams, if it is much.
func (p *Peers) get(ctx context.Context, node mesh.NodeID, g *getting) error {
	g.wide, g.packed = false, false
	return p.askAs(ctx, node, func(s idle) beginning {
		away := s.Peer().Site != p.o.Site
		g.wide = away && p.o.Ways > 1 && !g.narrow && g.part.Size-g.at >= wideBytes
		g.packed = away && !g.plain && p.o.Packs(node)
		return beginning{from: g.at > 0, some: g.wide, pack: g.packed}
	}, func(s idle) error {
		switch {
		case g.wide:
			return p.pieces(ctx, node, g, s, p.o.Ways)
		case g.packed:
			return p.pieces(ctx, node, g, s, 1)
		}
		return g.from(s)
	})
}

// from gets what is missing.
func (g *getting) from(s idle) error {
	t, body := fetch, encodeParts([]store.Part{g.part})
	if g.at > 0 {
		t, body = fetchFrom, encodeRest(g.part, g.at)
	}
	if err := writeFrame(s, t, body); err != nil {
		return told(s, err)
	}
	if _, err := answered(s, given); err != nil {
		return err
	}
	buf := make([]byte, min(copyBytes, g.part.Size-g.at))
	for g.at < g.part.Size {
		n, err := s.Read(buf[:min(int64(len(buf)), g.part.Size-g.at)])
		if n > 0 {
			g.sum.Write(buf[:n]) //nolint:errcheck // always nil
			g.at += int64(n)
			if _, g.here = g.to.Write(buf[:n]); g.here != nil {
				return g.here
			}
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && g.at < g.part.Size {
			return err
		}
	}
	return nil
}

// whole verifies what has come.
func (g *getting) whole() error {
	if store.Digest(g.sum.Sum(nil)) != g.part.Digest {
		return fmt.Errorf("part %v: %w: what came has another digest", g.part.Digest, store.ErrCorrupt)
	}
	return nil
}

// FetchAll gets parts, each from one of the nodes that have it, several at a
// time. All are pinned then, or none.
func (p *Peers) FetchAll(ctx context.Context, parts []store.Part, holders func(store.Digest) []mesh.NodeID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	got := make([]bool, len(parts))
	var next int
	var mu sync.Mutex // guards next
	var workers sync.WaitGroup
	for range min(p.o.Ask, len(parts)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(parts) {
					return
				}
				if err := p.Fetch(ctx, holders(parts[i].Digest), parts[i]); err != nil {
					cancel(err)
					return
				}
				got[i] = true
			}
		})
	}
	workers.Wait()
	if ctx.Err() == nil {
		return nil
	}
	for i, p0 := range parts {
		if got[i] {
			p.o.Store.Unpin(p0)
		}
	}
	return context.Cause(ctx)
}
