package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

func stdin(t testing.TB, src io.Reader) *Reader {
	r, err := NewReader(SourceConfig{Files: []string{Stdin}, Parallelism: 1, Split: SplitFor(decode.Text), Stdin: src, Clock: sensors.Wall{}, MaxRecord: 100})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestStdinArrivesWhenRead: a record has the time at which its last byte came,
// and the clock ticks while nothing comes.
func TestStdinArrivesWhenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		begin := sensors.Wall{}.Now()
		go func() {
			for _, s := range []string{"a\nb\nhalf", " c", "d\n", strings.Repeat("x", 150) + "\n", "end"} {
				time.Sleep(time.Second)
				io.WriteString(out, s)
			}
			out.Close()
		}()
		r := stdin(t, in)
		var rec sensors.Records
		var got []string
		var at []dataflow.Duration
		ticks, clock := 0, int64(0)
		for {
			err := r.Read(context.Background(), &rec, 10)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(rec.Arrivals) != rec.Len() || rec.Clock < clock {
				t.Fatalf("%d arrivals for %d records; clock %d after %d", len(rec.Arrivals), rec.Len(), rec.Clock, clock)
			}
			clock = rec.Clock
			if rec.Len() == 0 {
				ticks++
			}
			for i := range rec.Len() {
				got = append(got, string(rec.Payload(i)))
				at = append(at, dataflow.Duration(rec.Arrivals[i]-int64(begin))/dataflow.Second)
			}
		}
		want := []string{"a", "b", "half cd", strings.Repeat("x", 100), "end"}
		when := []dataflow.Duration{1, 1, 3, 4, 5}
		for i := range want {
			if len(got) != len(want) || got[i] != want[i] || at[i] != when[i] {
				t.Fatalf("got %q at %d", got, at)
			}
		}
		if least := 5 * 4; ticks < least {
			t.Errorf("%d ticks in 5 s", ticks)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingForStdinEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := io.Pipe()
		r := stdin(t, in)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		var rec sensors.Records
		for {
			err := r.Read(ctx, &rec, 10)
			if err == nil && rec.Len() == 0 && !rec.Done {
				continue
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, %d records", err, rec.Len())
			}
			break
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		out.Close() // lets the read that Close could not interrupt end
	})
}

func TestStdinCannotBeReadAgain(t *testing.T) {
	r := stdin(t, strings.NewReader("a\n"))
	defer r.Close()
	if err := r.Seek(sensors.Position{Offset: 2}); err != nil {
		t.Fatal(err)
	}
	var rec sensors.Records
	if err := r.Read(context.Background(), &rec, 1); err == nil || !strings.Contains(err.Error(), "cannot be read again") {
		t.Error(err)
	}
}

// TestStdinIsReadNoFurtherThanTwoBuffersAhead: a job that is slow slows down
// whoever writes to it.
func TestStdinIsReadNoFurtherThanTwoBuffersAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &counted{Reader: strings.NewReader(strings.Repeat("line\n", 1<<20))}
		r := stdin(t, src)
		var rec sensors.Records
		if err := r.Read(context.Background(), &rec, 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if most := 4 * pumpBuffer; src.n > most { // one is in the split's buffer, perhaps one more
			t.Errorf("%d bytes read, at most %d", src.n, most)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func TestStdinSuite(t *testing.T) {
	sensortest.Reader(t, sensortest.ReaderCase{
		Bounded: true, Arrivals: true,
		Open: func(t *testing.T) sensortest.Source {
			in, out, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			return sensortest.Source{Reader: stdin(t, in), Feed: func(t *testing.T, p [][]byte) {
				_, err := out.Write(bytes.Join(append(p, nil), []byte("\n"))) // less than a pipe holds
				if err := errors.Join(err, out.Close()); err != nil {
					t.Fatal(err)
				}
			}}
		},
	})
}

// backwards is a clock that is set back by an hour now and then.
type backwards struct {
	sensors.Wall
	n int64
}

func (b *backwards) Now() dataflow.Time {
	b.n++
	return dataflow.Time(b.n + b.n%2*int64(dataflow.Hour))
}

func TestArrivalsNeverGoBack(t *testing.T) {
	r, err := NewReader(SourceConfig{
		Files: []string{Stdin}, Parallelism: 1, Split: SplitFor(decode.Text), Clock: &backwards{},
		Stdin: iotest.OneByteReader(strings.NewReader(strings.Repeat("a\n", 50))),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var rec sensors.Records
	n, last := 0, int64(0)
	for r.Read(context.Background(), &rec, 3) == nil {
		for _, at := range append(rec.Arrivals, rec.Clock) {
			if at < last {
				t.Fatalf("%d after %d", at, last)
			}
			last = at
		}
		n += rec.Len()
	}
	if n != 50 {
		t.Errorf("%d records", n)
	}
}
