package pending_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/sensors/pending"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

// writerAt is bytes that can be written anywhere.
type writerAt []byte

func (w *writerAt) WriteAt(p []byte, at int64) (int, error) {
	*w = append((*w)[:at], p...)
	return len(p), nil
}

// TestQueueAgainstAModel: whatever is appended, dropped, and fails, the queue
// holds the bytes between, and no more than twice of them on disk.
func TestQueueAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fsys := storetest.New()
		most := rapid.IntRange(1, 40).Draw(t, "most")
		first := rapid.Int64Range(0, 100).Draw(t, "first")
		q, err := pending.NewQueue(fsys, "/.pending", most, first)
		if err != nil {
			t.Fatal(err)
		}
		var model []byte
		peak := 0
		next := byte(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "drop", "fail", "heal"}).Draw(t, "step") {
			case "append":
				if err := q.Room(); err != nil {
					if !errors.Is(err, syscall.ENOSPC) {
						t.Fatal(err)
					}
					break
				}
				if len(q.Tail()) >= most {
					t.Fatalf("%d bytes in memory", len(q.Tail()))
				}
				for range rapid.IntRange(0, 30).Draw(t, "bytes") {
					q.SetTail(append(q.Tail(), next))
					model = append(model, next)
					next++
				}
				peak = max(peak, len(model))
			case "drop":
				n := rapid.IntRange(0, len(model)).Draw(t, "n")
				q.Drop(q.First() + int64(n))
				model = model[n:]
				first += int64(n)
			case "fail":
				fsys.FailFrom(rapid.IntRange(1, 3).Draw(t, "operation"), syscall.ENOSPC)
			case "heal":
				fsys.Heal()
			}
			if q.First() != first || q.End() != first+int64(len(model)) {
				t.Fatalf("from %d to %d, want %d and %d", q.First(), q.End(), first, len(model))
			}
			from := rapid.IntRange(0, len(model)).Draw(t, "from")
			to := rapid.IntRange(from, len(model)).Draw(t, "to")
			got := make([]byte, to-from)
			if err := q.Read(got, first+int64(from)); err != nil || !slices.Equal(got, model[from:to]) {
				t.Fatalf("read %v, %v, want %v", got, err, model[from:to])
			}
			var copied writerAt
			if err := q.CopyTo(&copied, 0, first+int64(to)); err != nil || !slices.Equal(copied, model[:to]) {
				t.Fatalf("copied %v, %v, want %v", copied, err, model[:to])
			}
			if info, err := fsys.Stat("/.pending"); err == nil && info.Size() > int64(2*peak+2*most+60) {
				t.Fatalf("%d bytes on disk, at most %d were pending", info.Size(), peak)
			}
		}
		fsys.Heal()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		if files := fsys.Files(); len(files) > 0 {
			t.Fatalf("left behind: %v", files)
		}
	})
}
