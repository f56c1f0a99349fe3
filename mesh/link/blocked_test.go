package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// patience is that of who waits for megabytes on a machine that does much else.
const patience = 5 * time.Minute

// stops sees what a link's connections send, and keeps which streams have said
// that their peer's window holds them up, and at how many bytes.
type stops struct {
	mu   sync.Mutex // guards at
	at   map[quic.StreamID]int
	more chan struct{} // 1: there is another
}

func (s *stops) AddProducer() qlogwriter.Recorder { return s }

func (s *stops) Close() error { return nil }

func (s *stops) RecordEvent(e qlogwriter.Event) {
	sent, ok := e.(qlog.PacketSent)
	if !ok {
		return
	}
	for _, f := range sent.Frames {
		if b, ok := f.Frame.(*qlog.StreamDataBlockedFrame); ok {
			s.mu.Lock()
			s.at[b.StreamID] = int(b.MaximumStreamData)
			s.mu.Unlock()
			select {
			case s.more <- struct{}{}:
			default:
			}
		}
	}
}

// wait waits until so many streams are held up, and returns where.
func (s *stops) wait(t *testing.T, n int) map[quic.StreamID]int {
	t.Helper()
	late := time.After(patience)
	for {
		s.mu.Lock()
		at := maps.Clone(s.at)
		s.mu.Unlock()
		if len(at) >= n {
			return at
		}
		select {
		case <-s.more:
		case <-late:
			t.Fatalf("%d streams of %d are held up by their own windows", len(at), n)
		}
	}
}

// The first byte of a stream of the test.
const (
	toRead = iota
	toHold // its reader does not read before it is told
)

// digests answers streams with the digest of what came.
func digests(l *Link, read <-chan struct{}, kinds ...mesh.Kind) {
	for _, k := range kinds {
		l.Handle(k, func(s mesh.Stream) {
			defer s.Close() //nolint:errcheck // always nil
			var first [1]byte
			if _, err := io.ReadFull(s, first[:]); err != nil {
				return
			}
			if first[0] == toHold {
				<-read
			}
			sum := sha256.New()
			if _, err := io.Copy(sum, s); err != nil {
				return
			}
			if _, err := s.Write(sum.Sum(nil)); err == nil {
				s.CloseWrite() //nolint:errcheck // the peer may have closed it
			}
		})
	}
}

// rows are n bytes that are other ones for each i.
func rows(i, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)})
	b := make([]byte, n)
	r.Read(b) //nolint:errcheck // always nil
	return b
}

// begin opens a stream of the test.
func begin(ctx context.Context, l *Link, kind mesh.Kind, first byte) (mesh.Stream, error) {
	s, err := l.Open(ctx, "b", kind)
	if err == nil {
		_, err = s.Write([]byte{first})
	}
	return s, err
}

// finish ends a stream's writing and compares the digest of all that was written.
func finish(s mesh.Stream, all []byte) error {
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if sum := sha256.Sum256(all); err == nil && !bytes.Equal(got, sum[:]) {
		err = errors.New("other bytes arrived")
	}
	return err
}

// pass sends so many bytes of a kind, and waits until they have been read.
func pass(l *Link, kind mesh.Kind, n int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := begin(ctx, l, kind, toRead)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // always nil
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline) //nolint:errcheck // always nil
	all := rows(int(kind), n)
	if _, err := s.Write(all); err != nil {
		return err
	}
	return finish(s, all)
}

// A hundred channels that nobody reads take a window of bytes each and hold up
// nothing else: neither another channel to the same peer nor what goes beside
// channels. They go on when they are read.
func TestBlockedChannelsHoldUpThemselvesOnly(t *testing.T) {
	const channels, each, first = 100, Window + 64<<10, Window - 3 // the preface and the first byte are of the window too
	s := newSite(t)
	a, b := s.link("a", nil), s.link("b", nil)
	seen := &stops{at: make(map[quic.StreamID]int), more: make(chan struct{}, 1)}
	a.conf.Tracer = func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace { return seen }
	read := make(chan struct{})
	kinds := []mesh.Kind{mesh.Control, mesh.Raft, mesh.Call, mesh.Channel, mesh.Log, mesh.Parts}
	digests(b, read, kinds...)
	tell := sync.OnceFunc(func() { close(read) })
	t.Cleanup(tell) // before the links are closed, which waits for the readers
	s.start(a, b)

	held := make([]mesh.Stream, channels)
	wrote := make([]chan error, channels)
	for i := range held {
		st, err := begin(t.Context(), a, mesh.Channel, toHold)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close() //nolint:errcheck // always nil
		held[i], wrote[i] = st, make(chan error, 1)
		go func() {
			n, err := st.Write(rows(i, each))
			if n != first || !errors.Is(err, os.ErrDeadlineExceeded) {
				wrote[i] <- fmt.Errorf("%d bytes were written, not %d: %w", n, first, err)
			}
			close(wrote[i])
		}()
	}
	for id, at := range seen.wait(t, channels) {
		if at != Window {
			t.Errorf("stream %d is held up after %d bytes, not %d", id, at, Window)
		}
	}

	var wg sync.WaitGroup
	for _, k := range kinds {
		wg.Go(func() {
			if err := pass(a, k, 2<<20); err != nil {
				t.Errorf("a stream of kind %d beside the blocked ones: %v", k, err)
			}
		})
	}
	wg.Wait()

	for i, st := range held {
		st.SetDeadline(time.Now()) //nolint:errcheck // always nil
		if err := <-wrote[i]; err != nil {
			t.Errorf("blocked channel %d: %v", i, err)
		}
	}
	tell()
	for i, st := range held {
		wg.Go(func() {
			st.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // always nil
			all := rows(i, each)
			_, err := st.Write(all[first:])
			if err == nil {
				err = finish(st, all)
			}
			if err != nil {
				t.Errorf("channel %d, which is read again: %v", i, err)
			}
		})
	}
	wg.Wait()
}
