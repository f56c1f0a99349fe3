//go:build unix

package ingestlog

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/tidemark-mesh/tidemark/sensors"
)

const benchRows, benchTopics = 1000, 50

func benchRecords(lane int) *sensors.Records {
	r := new(sensors.Records)
	r.Reset(lane)
	for i := range benchRows {
		r.AppendMessage(fmt.Appendf(nil, "plant/%d/telemetry", i%benchTopics), make([]byte, 100), int64(i*40))
		r.Tags = append(r.Tags, uint32(i))
	}
	return r
}

// cpuTime is what the process has used, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func shift(r *sensors.Records, d int64) {
	for i := range r.Arrivals {
		r.Arrivals[i] += d
	}
}

// BenchmarkCommit is a group commit of 1,000 messages of 100 bytes, with and
// without the disk's part.
func BenchmarkCommit(b *testing.B) {
	for _, sync := range []bool{true, false} {
		b.Run(fmt.Sprintf("fsync=%v", sync), func(b *testing.B) {
			o := Options{Dir: b.TempDir(), Lanes: 1, Retain: Retention{Bytes: 256 << 20}, Cap: 1 << 30}
			if !sync {
				o.OpenDB = func(path string, mode os.FileMode, o *bolt.Options) (*bolt.DB, error) {
					o.NoSync = true
					return bolt.Open(path, mode, o)
				}
			}
			l, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			r := benchRecords(0)
			b.ReportAllocs()
			cpu := cpuTime(b)
			for b.Loop() {
				shift(r, 40000)
				if _, err := l.Append(r); err != nil {
					b.Fatal(err)
				}
				if err := l.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/record")
			b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N)/benchRows, "cpu-ns/record")
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkAppend is the part without bbolt: columns, dictionary, checksum.
func BenchmarkAppend(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir(), Lanes: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := benchRecords(0)
	b.ReportAllocs()
	for b.Loop() {
		shift(r, 40000)
		if _, err := l.Append(r); err != nil {
			b.Fatal(err)
		}
		l.seal(0)
		for _, bl := range l.batch {
			bl.refs = 1
			l.tail.release(bl)
		}
		l.batch, l.dirty, l.pending = l.batch[:0], l.dirty[:0], 0
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows, "ns/record")
}

func BenchmarkRead(b *testing.B) {
	for _, memory := range []bool{true, false} {
		b.Run(fmt.Sprintf("memory=%v", memory), func(b *testing.B) {
			o := Options{Dir: b.TempDir(), Lanes: 1, TailBytes: 1}
			if memory {
				o.TailBytes = 1 << 30
			}
			l, err := Open(o)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			const commits = 400
			r := benchRecords(0)
			for range commits {
				shift(r, 40000)
				if _, err := l.Append(r); err != nil {
					b.Fatal(err)
				}
				if err := l.Commit(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			b.ResetTimer()
			var out sensors.Records
			for range b.N {
				rd := l.NewReader([]int{0})
				for n := 0; n < commits*benchRows; n += out.Len() {
					if err := rd.Read(context.Background(), &out, 4096); err != nil {
						b.Fatal(err)
					}
				}
				if err := rd.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchRows/commits, "ns/record")
		})
	}
}
