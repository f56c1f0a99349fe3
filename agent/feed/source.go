package feed

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// This file is what the owner of a log does for other sites' mirrors of it: it
// reads groups from disk and sends them, at most what its own members have. A
// mirror is no member: nothing waits for it but the oldest segments, and those
// for a while.

const (
	// mirrorPatience is how long either end of a mirror's stream may say nothing.
	mirrorPatience = 30 * time.Second
	// mirrorBeat is how often each says where it is, if nothing else is said.
	mirrorBeat = dataflow.Second
	// DefaultMirrorKeep is how many bytes a log may have so that it still waits for a
	// mirror.
	DefaultMirrorKeep = 1 << 30
	// mostMirrors is how many a log has; those beyond are refused.
	mostMirrors = 256
	// mirrorGone is how long a mirror may have no stream while another one of its site
	// has: then it is called otherwise there now, and nobody asks for it any more.
	mirrorGone = 5 * dataflow.Minute
	// mostMirrorName is how long the name of a feed is at another site.
	mostMirrorName = 256
)

// mirrorKey names a mirror of a feed.
type mirrorKey struct {
	site mesh.Site
	feed string // at that site; empty: one that is expected, and has never asked
}

func (k mirrorKey) pin() string { return fmt.Sprintf("mirror %s %s", k.site, k.feed) }

// mirrors are those of a feed that this agent owns.
type mirrors struct {
	mu      sync.Mutex // guards what follows; no I/O under it
	all     map[mirrorKey]*mirrored
	wanted  []mesh.Site    // that are to have a mirror, whether they have asked or not
	serving sync.WaitGroup // streams
	ended   bool
}

// mirrored is one mirror.
type mirrored struct {
	node   mesh.NodeID
	stream mesh.Stream // the present one; nil: none
	end    int64
	heard  dataflow.Time
	let    bool
}

// expect says which sites are to have a mirror of the feed: the log waits for
// them, and for no other that has no stream.
func (f *Feed) expect(sites []mesh.Site) {
	first, _ := f.log.First()
	m := &f.mirrors
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = slices.Clone(sites)
	if m.all == nil {
		m.all = make(map[mirrorKey]*mirrored)
	}
	for _, site := range sites {
		known := slices.ContainsFunc(slices.Collect(maps.Keys(m.all)), func(k mirrorKey) bool { return k.site == site })
		if !known {
			m.all[mirrorKey{site: site}] = &mirrored{end: first}
		}
	}
	for k, r := range m.all {
		if !slices.Contains(sites, k.site) && r.stream == nil {
			delete(m.all, k)
			f.log.Release(k.pin())
			continue
		}
		f.log.Hold(k.pin(), r.end, f.owner.o.MirrorKeep)
	}
}

// MirroredAt says which sites are to have a mirror of the feed from now on.
func (f *Feed) MirroredAt(sites []mesh.Site) { f.expect(sites) }

// status is the mirrors, by site and feed.
func (m *mirrors) status(first int64) (all []coordinator.MirrorAt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, r := range m.all {
		at := coordinator.MirrorAt{Site: k.site, Feed: k.feed, End: r.end, Heard: r.heard, Let: r.let || r.end < first}
		if r.stream != nil {
			at.Node = r.node
		}
		all = append(all, at)
	}
	sort.Slice(all, func(i, j int) bool {
		return cmp.Or(cmp.Compare(all[i].Site, all[j].Site), cmp.Compare(all[i].Feed, all[j].Feed)) < 0
	})
	return all
}

// stop ends all streams, and waits for those who serve them.
func (m *mirrors) stop() {
	m.mu.Lock()
	m.ended = true
	for _, r := range m.all {
		if r.stream != nil {
			_ = r.stream.Close()
		}
	}
	m.mu.Unlock()
	m.serving.Wait()
}

// join makes a stream the present one of its mirror; nil: there is no room, or the
// feed ends.
func (f *Feed) join(k mirrorKey, st mesh.Stream, end int64) (*mirrored, refusal) {
	m := &f.mirrors
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, refusal{refusedLater, "it is about to change its role"}
	}
	if m.all == nil {
		m.all = make(map[mirrorKey]*mirrored)
	}
	r := m.all[k]
	if r == nil {
		if len(m.all) >= mostMirrors {
			return nil, refusal{refusedLater, fmt.Sprintf("it has %d mirrors already", mostMirrors)}
		}
		r = new(mirrored)
		m.all[k] = r
	}
	if other := (mirrorKey{site: k.site}); m.all[other] != nil {
		delete(m.all, other) // this is it
		f.log.Release(other.pin())
	}
	if r.stream != nil {
		_ = r.stream.Close()
	}
	r.node, r.stream, r.end, r.heard, r.let = st.Peer().Node, st, end, f.owner.o.Clock.Now(), false
	f.log.Hold(k.pin(), end, f.owner.o.MirrorKeep)
	m.serving.Add(1)
	return r, refusal{}
}

func (f *Feed) unjoin(k mirrorKey, r *mirrored, st mesh.Stream) {
	m := &f.mirrors
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.stream == st {
		r.stream = nil
		if !slices.Contains(m.wanted, k.site) {
			delete(m.all, k)
			f.log.Release(k.pin())
		}
	}
	m.serving.Done()
}

// has notes what a mirror has.
func (f *Feed) has(k mirrorKey, r *mirrored, end int64) error {
	m := &f.mirrors
	m.mu.Lock()
	defer m.mu.Unlock()
	if end < r.end {
		return fmt.Errorf("%w: it had %d, and has %d", errFrame, r.end, end)
	}
	r.end, r.heard = end, f.owner.o.Clock.Now()
	f.log.Hold(k.pin(), end, f.owner.o.MirrorKeep)
	f.renamed(k)
	return nil
}

// renamed lets go of mirrors that the site of one that speaks does not have any more.
// The caller holds mirrors.mu.
func (f *Feed) renamed(k mirrorKey) {
	m := &f.mirrors
	if len(m.all) == 1 {
		return
	}
	for other, r := range m.all {
		if other != k && other.site == k.site && r.stream == nil && f.owner.o.Clock.Now() >= r.heard.Add(mirrorGone) {
			delete(m.all, other)
			f.log.Release(other.pin())
		}
	}
}

// serveMirror answers another site's mirror, and sends it what it lacks until the
// stream breaks. With a code in what it returns nothing was sent.
func (s *Feeds) serveMirror(st mesh.Stream, in *wire.Reader, h mirrorHello) refusal {
	s.mu.Lock()
	f, c := s.running[h.feed], s.copies[h.feed]
	s.mu.Unlock()
	if h.as == "" || len(h.as) > mostMirrorName {
		return refusal{refusedOther, "a mirror without a name, or with one that is too long"}
	}
	if f == nil || f.role == nil {
		return s.elsewhere(h.feed, c)
	}
	select {
	case <-f.begun:
	case <-time.After(memberPatience):
	}
	select {
	case <-f.gathered:
	default:
		return refusal{refusedLater, "its members are being brought up to date"}
	}
	anew, from, no := f.planFor(h)
	if no.code != 0 {
		return no
	}
	k := mirrorKey{st.Peer().Site, h.as}
	r, no := f.join(k, st, from)
	if r == nil {
		return no
	}
	defer f.unjoin(k, r, st)
	first := appendSeq(nil, frameFrom, from)
	if anew != nil {
		first = wire.Append(nil, frameAnew, anew)
	}
	if _, err := st.Write(first); err != nil {
		return refusal{}
	}
	m := &mirrorLink{f: f, k: k, r: r, st: st, packs: h.packs, at: from, sent: from, acked: from, heard: make(chan struct{}, 1), broken: make(chan struct{})}
	go m.listen(in)
	m.send()
	_ = st.Close()
	<-m.broken
	return refusal{}
}

// elsewhere says who owns a log that this agent does not.
func (s *Feeds) elsewhere(feed string, c *follower) refusal {
	owner := s.o.OwnerOf(feed)
	if c != nil && owner == "" {
		owner = c.epoch.Owner
	}
	switch owner {
	case "":
		return refusal{refusedLater, "no log of that feed is known to be there"}
	case s.o.Transport.Self():
		return refusal{refusedLater, "it is about to own the log"}
	}
	return refusal{refusedElsewhere, string(owner)}
}

// planFor is where a mirror begins: anew with a head, or where it ends.
func (f *Feed) planFor(h mirrorHello) (anew []byte, from int64, no refusal) {
	mine, only := f.role.epoch.Reign, coordinator.Reign{Epoch: 1, Site: h.reign.Site}
	switch {
	case mine != nil && mine.Relives(h.reign):
		return nil, 0, refusal{refusedOther, fmt.Sprintf("it was recovered with its log up to %d, and the mirror is one of before", mine.Start)}
	case mine == nil && h.reign != only || mine != nil && *mine != h.reign:
		return nil, 0, refusal{refusedOther, fmt.Sprintf("it knows of another site's time with the feed than the one of epoch %d from %d on", h.reign.Epoch, h.reign.Start)}
	}
	own, shown := copyOf(f.log), f.log.Shown()
	first, head := f.log.First()
	switch {
	case h.end == 0:
		return head, first, no
	case h.id != own.ID:
		return nil, 0, refusal{refusedOther, "its log is another one of that name"}
	case h.end > shown:
		return nil, 0, refusal{refusedOther, fmt.Sprintf("its log ends at %d", shown)}
	case h.end < first:
		return head, first, no
	}
	return nil, h.end, no
}

// mirrorLink is the source's end of a stream to a mirror. One goroutine writes,
// one hears what the mirror has.
type mirrorLink struct {
	f     *Feed
	k     mirrorKey
	r     *mirrored
	st    mesh.Stream
	packs bool // it takes packed frames

	at     int64 // the writer's: what was sent
	raw    []byte
	buf    []byte
	heard  chan struct{} // 1: acked has moved
	broken chan struct{} // closed when the reader has ended

	mu    sync.Mutex // guards what follows
	sent  int64
	acked int64
}

func (m *mirrorLink) listen(in *wire.Reader) {
	defer close(m.broken)
	for {
		_ = m.st.SetDeadline(time.Now().Add(mirrorPatience))
		kind, b, err := in.Next()
		if err != nil || kind != frameAck {
			return
		}
		end, err := decodeSeq(b)
		m.mu.Lock()
		ok := err == nil && end >= m.acked && end <= m.sent
		if ok {
			m.acked = end
		}
		m.mu.Unlock()
		if !ok || m.f.has(m.k, m.r, end) != nil {
			return
		}
		select {
		case m.heard <- struct{}{}:
		default:
		}
	}
}

// send sends what the mirror lacks and what comes, until the stream breaks or what
// comes next is not kept any more: then the mirror asks again.
func (m *mirrorLink) send() {
	log, flying := m.f.log, 0
	said := dataflow.MinTime
	for {
		more := log.Beyond(m.at)
		m.mu.Lock()
		if m.acked == m.at {
			flying = 0
		}
		m.mu.Unlock()
		m.buf = m.buf[:0]
		if shown := log.Shown(); shown > m.at && flying < copyAhead {
			n, ok := m.groups(shown)
			if !ok {
				return
			}
			flying += n
		}
		now := m.f.owner.o.Clock.Now()
		if m.at >= log.Shown() && len(m.buf) > 0 || now >= said.Add(mirrorBeat) {
			said = now
			m.buf = m.f.stands().append(m.buf)
		}
		if len(m.buf) > 0 {
			if _, err := m.st.Write(m.buf); err != nil {
				return
			}
			continue
		}
		if flying >= copyAhead {
			more = nil // only an answer helps
		}
		select {
		case <-m.broken:
			return
		case <-m.f.ctx.Done():
			return
		case <-m.heard:
		case <-more:
		case <-m.f.owner.o.Clock.After(dataflow.Duration(said.Add(mirrorBeat) - now)):
		}
	}
}

// groups adds some groups to what is written, and says how many bytes they are where
// nothing is packed: so many wait at the mirror. false: they cannot be read.
func (m *mirrorLink) groups(shown int64) (int, bool) {
	groups, err := m.f.log.ReadGroups(m.at, copyPiece)
	if err != nil {
		m.f.mirrors.mu.Lock()
		m.r.let = true
		m.f.mirrors.mu.Unlock()
		return 0, false
	}
	into := &m.buf
	if m.packs {
		m.raw, into = m.raw[:0], &m.raw
	}
	before := len(*into)
	for _, g := range groups {
		if g.Next > shown {
			break
		}
		*into = appendGroup(*into, g)
		m.at = g.Next
	}
	n := len(*into) - before
	if m.packs {
		m.buf = appendPacked(m.buf, m.raw, m.f.owner.o.Packer)
	}
	m.mu.Lock()
	m.sent = m.at
	m.mu.Unlock()
	return n, true
}

// stands is where the log is, for mirrors.
func (f *Feed) stands() stand {
	s := stand{end: f.log.Shown()}
	payload, clock := f.log.Totals()
	s.payload, s.clock = payload, int64(clock)
	return s
}
