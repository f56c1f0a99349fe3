package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// node is a node with parts on a disk in memory.
type node struct {
	id    mesh.NodeID
	disk  *storetest.FS
	store *part.Store
	holds *part.Holds
	peers *Peers
	fence dataflow.FencingToken
}

// site makes nodes that reach each other.
func site(t *testing.T, names ...mesh.NodeID) (*simnet.Net, []*node) {
	t.Helper()
	net := simnet.New()
	var nodes []*node
	for _, name := range names {
		n := &node{id: name, disk: storetest.New()}
		var err error
		if n.store, err = part.Open(n.disk, "/parts"); err != nil {
			t.Fatal(err)
		}
		n.holds = part.NewHolds(n.store)
		tr := net.New(name, "home")
		n.peers = New(Options{Transport: tr, Site: "home", Store: n.store, Holds: n.holds, Fence: func(job string, token dataflow.FencingToken) error {
			if token.Less(n.fence) {
				return fmt.Errorf("attempt %d runs", n.fence.Attempt)
			}
			return nil
		}})
		tr.Start()
		t.Cleanup(func() {
			if err := errors.Join(n.peers.Close(), tr.Close()); err != nil {
				t.Error(err)
			}
		})
		nodes = append(nodes, n)
	}
	return net, nodes
}

func (n *node) put(t *testing.T, text string) store.Part {
	t.Helper()
	p, err := n.store.Put(func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (n *node) text(t *testing.T, p store.Part) string {
	t.Helper()
	r, err := n.store.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func id(attempt, counter uint64) dataflow.CheckpointID {
	return dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: 1, Site: "home", Attempt: attempt}, Counter: counter}
}

// Parts of all sizes are pushed: what was there is not sent, all are held, and
// they survive the loss of power.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := site(t, "a", "b")
		a, b := nodes[0], nodes[1]
		var parts []store.Part
		var texts []string
		for _, size := range []int{1, 100, 70 << 10, batchBytes, batchBytes + 1, 3 << 20, 5, 6} {
			texts = append(texts, strings.Repeat(string(rune('a'+len(texts))), size))
			parts = append(parts, a.put(t, texts[len(texts)-1]))
		}
		b.store.Unpin(b.put(t, texts[2]))
		want := -parts[2].Size
		for _, p := range parts {
			want += p.Size
		}
		sent, err := a.peers.Push(t.Context(), "b", "j7", id(1, 4), parts)
		if err != nil || sent != want {
			t.Fatalf("%d bytes were sent, want %d; %v", sent, want, err)
		}
		if got := b.holds.Held("j7", id(1, 4)); len(got) != len(parts) {
			t.Errorf("%d parts are held, want %d", len(got), len(parts))
		}
		if sent, err = a.peers.Push(t.Context(), "b", "j7", id(1, 5), parts); err != nil || sent != 0 {
			t.Errorf("again: %d bytes, %v", sent, err)
		}
		b.holds.Through("j7", id(1, 4))
		if n := b.store.Pinned(); n != len(parts) {
			t.Errorf("%d parts are pinned for the second checkpoint, want %d", n, len(parts))
		}
		after, err := part.Open(b.disk.Crash(1), "/parts")
		if err != nil {
			t.Fatal(err)
		}
		b.store = after
		for i, p := range parts {
			if b.text(t, p) != texts[i] {
				t.Errorf("part %d is not what it was", i)
			}
		}
	})
}

// Whether a push failed because of this node's disk, or of what is beyond it, is told.
func TestPushOfWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a", "b")
		a, b := nodes[0], nodes[1]
		parts := []store.Part{a.put(t, strings.Repeat("x", 3*copyBytes)), a.put(t, "gone")}
		push := func(what string, here bool) {
			t.Helper()
			began := time.Now()
			_, err := a.peers.Push(t.Context(), "b", "j7", id(1, 4), parts)
			if err == nil || errors.Is(err, ErrHere) != here {
				t.Errorf("%s: %v", what, err)
			}
			if here && time.Since(began) > 0 {
				t.Errorf("%s: that takes %v to find out", what, time.Since(began))
			}
		}
		b.disk.SetCapacity(1)
		push("the other disk is full", false)
		b.disk.Heal()
		net.Cut("a", "b")
		push("no way there", false)
		net.Heal("a", "b")
		a.disk.FailReads(syscall.EIO)
		push("it cannot be read", true)
		a.disk.Heal()
		folder := parts[1].Digest.String()[:2]
		if err := a.disk.Remove("/parts/" + folder + "/" + parts[1].Digest.String() + ".avro"); err != nil {
			t.Fatal(err)
		}
		push("it is gone", true)
	})
}

// A part is fetched from whoever has it whole; what is here is not asked for.
func TestFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := site(t, "a", "b", "c", "d")
		a, b, c, d := nodes[0], nodes[1], nodes[2], nodes[3]
		text := strings.Repeat("tide", 1<<18)
		p := c.put(t, text)
		spoilt := d.put(t, text)
		spoil(t, d, spoilt)
		err := a.peers.FetchAll(t.Context(), []store.Part{p}, func(store.Digest) []mesh.NodeID { return []mesh.NodeID{"a", "gone", "b", "d", "c"} })
		if err != nil || a.text(t, p) != text || a.store.Pinned() != 1 {
			t.Fatalf("%v; %d pinned", err, a.store.Pinned())
		}
		if err := a.peers.Fetch(t.Context(), nil, p); err != nil {
			t.Errorf("what is here: %v", err)
		}
		a.store.Unpin(p, p)
		spoil(t, a, p)
		if err := a.peers.Replace(t.Context(), []mesh.NodeID{"a", "c"}, p); err != nil || a.text(t, p) != text {
			t.Errorf("one that is damaged here: %v", err)
		}
		a.store.Unpin(p)
		only := func(nodes ...mesh.NodeID) func(store.Digest) []mesh.NodeID {
			return func(store.Digest) []mesh.NodeID { return nodes }
		}
		if err := b.peers.FetchAll(t.Context(), []store.Part{p}, only("d")); !errors.Is(err, store.ErrCorrupt) || b.store.Pinned() > 0 || b.store.Has(p) {
			t.Errorf("a damaged one: %v, %d pinned", err, b.store.Pinned())
		}
		none := store.Part{Digest: digestOf(9), Size: 5}
		if err := b.peers.FetchAll(t.Context(), []store.Part{p, none}, only("c", "a")); !errors.Is(err, store.ErrMissing) || b.store.Pinned() > 0 {
			t.Errorf("none has it: %v, %d pinned", err, b.store.Pinned())
		}
		if err := b.peers.FetchAll(t.Context(), []store.Part{none}, only()); !errors.Is(err, store.ErrMissing) {
			t.Errorf("nobody to ask: %v", err)
		}
	})
}

// spoil changes a byte of a part on a disk.
func spoil(t *testing.T, n *node, p store.Part) {
	t.Helper()
	hex := p.Digest.String()
	f, err := n.disk.Open("/parts/"+hex[:2]+"/"+hex+".avro", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'X'}, 7); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// What cannot be pushed says why, with its kind, and leaves nothing behind.
func TestPushIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a", "b")
		a, b := nodes[0], nodes[1]
		b.fence = id(2, 0).Token
		big := a.put(t, strings.Repeat("w", 8<<20))
		small := a.put(t, "small")
		if _, err := a.peers.Push(t.Context(), "b", "j7", id(1, 9), []store.Part{small}); !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "attempt 2 runs") {
			t.Errorf("a lower token: %v", err)
		}
		b.disk.FailAt(3, syscall.ENOSPC)
		if _, err := a.peers.Push(t.Context(), "b", "j7", id(2, 1), []store.Part{big}); !errors.Is(err, store.ErrFull) {
			t.Errorf("a full disk: %v", err)
		}
		b.disk.Heal()
		spoil(t, a, big)
		if _, err := a.peers.Push(t.Context(), "b", "j7", id(2, 1), []store.Part{big}); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("damaged here: %v", err)
		}
		if _, err := a.peers.Push(t.Context(), "b", "j7", id(2, 1), []store.Part{small, {Digest: digestOf(1), Size: 3}}); !errors.Is(err, store.ErrMissing) {
			t.Errorf("missing here: %v", err)
		}
		if _, err := a.peers.Push(t.Context(), "c", "j7", id(2, 1), []store.Part{small}); !errors.Is(err, mesh.ErrUnknown) {
			t.Errorf("an unknown node: %v", err)
		}
		if b.store.Has(big) || len(b.holds.Held("j7", id(1, 9))) > 0 {
			t.Error("something of it is there")
		}
		net.Cut("a", "b")
		began := time.Now()
		if _, err := a.peers.Push(t.Context(), "b", "j7", id(2, 1), []store.Part{small}); !errors.Is(err, mesh.ErrUnreachable) || time.Since(began) > time.Minute {
			t.Errorf("a link that is cut: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		if _, err := a.peers.Push(ctx, "b", "j7", id(2, 1), []store.Part{small}); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("ended: %v", err)
		}
	})
}

// A peer that says nothing, or that does not read, is given up after a while.
func TestPeerThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a")
		a := nodes[0]
		tr := net.New("mute", "home")
		quit := make(chan struct{})
		tr.Handle(mesh.Parts, func(s mesh.Stream) { <-quit; _ = s.Close() })
		tr.Start()
		big := a.put(t, strings.Repeat("w", 8<<20))
		for name, try := range map[string]func() error{
			"push": func() error {
				_, err := a.peers.Push(t.Context(), "mute", "j7", id(1, 1), []store.Part{big})
				return err
			},
			"fetch": func() error {
				return a.peers.Fetch(t.Context(), []mesh.NodeID{"mute"}, store.Part{Digest: digestOf(4), Size: 4})
			},
		} {
			began := time.Now()
			if err := try(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) > 30*time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
		}
		close(quit)
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Bytes that are not what they are said to be are refused while they come, and
// so is what comes in the wrong place.
func TestServeRefuses(t *testing.T) {
	ours := encodeBegin(beginning{job: "j7", id: id(1, 1)})
	one := encodeParts([]store.Part{{Digest: digestOf(1), Size: 4}})
	two := encodeParts([]store.Part{{Digest: digestOf(1), Size: batchBytes}, {Digest: digestOf(2), Size: 4}})
	var wraps []store.Part // their sum is 0, as an int64
	for i := range byte(4) {
		wraps = append(wraps, store.Part{Digest: digestOf(i), Size: 1 << 62})
	}
	frame := func(t frameType, body []byte, more ...byte) []byte {
		var w bytes.Buffer
		_ = writeFrame(&w, t, body)
		return append(w.Bytes(), more...)
	}
	for name, sent := range map[string][]byte{
		"another digest":   slices.Concat(frame(begin, ours), frame(push, one, 'a', 'b', 'c', 'd')),
		"no begin":         frame(have, one),
		"begin twice":      slices.Concat(frame(begin, ours), frame(begin, ours)),
		"another version":  frame(begin, append([]byte{9}, ours[1:]...)),
		"what is not ours": slices.Concat(frame(begin, ours), frame(0x70, nil)),
		"too much at once": slices.Concat(frame(begin, ours), frame(push, two)),
		"sizes that wrap":  slices.Concat(frame(begin, ours), frame(push, encodeParts(wraps))),
		"for nobody":       slices.Concat(frame(begin, encodeBegin(beginning{})), frame(push, one)),
		"have for nobody":  slices.Concat(frame(begin, encodeBegin(beginning{})), frame(have, one)),
		"fetch of none":    slices.Concat(frame(begin, ours), frame(fetch, one)),
		"fetch of two":     slices.Concat(frame(begin, ours), frame(fetch, two)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net, nodes := site(t, "b")
				tr := net.New("a", "home")
				tr.Start()
				s, err := tr.Open(t.Context(), "b", mesh.Parts)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Write(sent); err != nil {
					t.Fatal(err)
				}
				kind, body, err := readFrame(s)
				if err != nil || kind != refused {
					t.Fatalf("frame %x, %v", kind, err)
				}
				if err := decodeRefusal(body); err == nil {
					t.Error("it does not say why")
				}
				if _, _, err := readFrame(s); !errors.Is(err, io.EOF) {
					t.Errorf("behind it comes %v", err)
				}
				if nodes[0].store.Pinned() > 0 {
					t.Error("something is held")
				}
				_ = s.Close()
				_ = tr.Close()
			})
		})
	}
}

// Nodes of another site fetch parts, and push none.
func TestOtherSites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a")
		a := nodes[0]
		away := &node{id: "z", disk: storetest.New()}
		var err error
		if away.store, err = part.Open(away.disk, "/parts"); err != nil {
			t.Fatal(err)
		}
		tr := net.New("z", "away")
		away.peers = New(Options{Transport: tr, Site: "away", Store: away.store, Holds: part.NewHolds(away.store)})
		tr.Start()
		defer func() {
			if err := errors.Join(away.peers.Close(), tr.Close()); err != nil {
				t.Error(err)
			}
		}()
		p := a.put(t, "salt")
		if err := away.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, p); err != nil || away.text(t, p) != "salt" {
			t.Errorf("fetched: %v", err)
		}
		_, err = away.peers.Push(t.Context(), "a", "j7", id(1, 4), []store.Part{p})
		if err == nil || !strings.Contains(err.Error(), "this node is of site home, the other of site away") {
			t.Errorf("pushed: %v", err)
		}
	})
}

// brittle is a transport whose streams break when so many bytes were read from them.
type brittle struct {
	mesh.Transport
	after int
	read  int // in all
	opens int
}

func (b *brittle) Open(ctx context.Context, to mesh.NodeID, kind mesh.Kind) (mesh.Stream, error) {
	s, err := b.Transport.Open(ctx, to, kind)
	b.opens++
	return &brittleStream{s, b, b.after}, err
}

type brittleStream struct {
	mesh.Stream
	b    *brittle
	left int
}

func (s *brittleStream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, mesh.ErrUnreachable
	}
	n, err := s.Stream.Read(p[:min(len(p), s.left)])
	s.left -= n
	s.b.read += n
	return n, err
}

// A fetch that breaks off goes on where it was, with whoever has the part; one that
// brings nothing more is given up.
func TestFetchGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, nodes := site(t, "a", "c")
		tr := net.New("b", "home")
		far := &brittle{Transport: tr, after: 700 << 10}
		b := &node{id: "b", disk: storetest.New()}
		var err error
		if b.store, err = part.Open(b.disk, "/parts"); err != nil {
			t.Fatal(err)
		}
		b.peers = New(Options{Transport: far, Site: "home", Store: b.store, Holds: part.NewHolds(b.store)})
		tr.Start()
		defer func() {
			if err := errors.Join(b.peers.Close(), tr.Close()); err != nil {
				t.Error(err)
			}
		}()
		text := strings.Repeat("tide", 1<<20)
		p := nodes[0].put(t, text)
		nodes[1].put(t, text)
		if err := b.peers.Fetch(t.Context(), []mesh.NodeID{"a", "c"}, p); err != nil || b.text(t, p) != text {
			t.Fatal(err)
		}
		if far.opens != 6 || far.read > len(text)+6*headBytes {
			t.Errorf("%d bytes came on %d streams for %d", far.read, far.opens, len(text))
		}
		far.after, far.opens = headBytes+1, 0 // a byte each time: it would go on
		small := nodes[0].put(t, "0123456789")
		if err := b.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, small); err != nil || far.opens != 10 {
			t.Errorf("%d streams for ten bytes: %v", far.opens, err)
		}
		far.after = headBytes
		if err := b.peers.Fetch(t.Context(), []mesh.NodeID{"a"}, nodes[0].put(t, "salt")); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("nothing came: %v", err)
		}
	})
}
