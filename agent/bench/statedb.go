package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/dataflow/process"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
	"github.com/tidemark-mesh/tidemark/store/statedb"
)

// diskMemory is what the operator may keep in memory of its state.
const diskMemory = 96 << 20

// randomRows is how many rows with keys at random follow the load: each finds
// its key on disk more often than not.
const randomRows = 200_000

// runStateDB loads 10 M keys, in their order, into the state of one operator
// that is allowed a part of the memory that they need, and says how much memory
// the process came to have. The note has what a row cost, then and afterwards
// with keys at random.
func runStateDB(ctx context.Context, o Options) ([]Figure, error) {
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	n := o.scaled(10_000_000, 20_000)
	s, err := openKept(filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, err
	}
	defer s.db.Close()
	debug.FreeOSMemory()
	load, err := watch(func() error {
		return s.run(ctx, n, func(i int) int64 { return int64(i) }, func(done int) {
			o.progress("scale/statedb: %d M of %d M keys", done/1_000_000, n/1_000_000)
		})
	})
	if err != nil {
		return nil, err
	}
	peak := s.peak
	rows := min(randomRows, n)
	rng := rand.New(rand.NewPCG(3, 4))
	o.progress("scale/statedb: %d rows with keys at random", rows)
	some, err := watch(func() error {
		return s.run(ctx, rows, func(int) int64 { return rng.Int64N(int64(n)) }, func(int) {})
	})
	if err != nil {
		return nil, err
	}
	if s.rows != int64(n+rows) {
		return nil, fmt.Errorf("bench scale/statedb: %d rows came out of %d", s.rows, n+rows)
	}
	f := absolute("scale/statedb", float64(peak)/(1<<20), nil, "MB", 512)
	perRow := func(w work, rows int) string {
		return fmt.Sprintf("%.0f ns of processor, %.0f ns by the clock", float64(w.cpu)/float64(rows), float64(w.wall)/float64(rows))
	}
	f.Note = fmt.Sprintf("%d keys, %d MB on disk; a row of the load %s; with keys at random %s, %d MB resident",
		n, s.db.Size()>>20, perRow(load, n), perRow(some, rows), s.peak>>20)
	allocs := float64(load.mallocs) / float64(n)
	f.Allocs = &allocs
	return []Figure{f}, nil
}

// kept is an operator that keeps a count and a sum of each key, its disk, and
// the loop that drives both.
type kept struct {
	db   *statedb.DB
	op   operator.Operator
	bl   *batch.Builder
	pool *batch.Pool
	rows int64
	peak int64 // bytes resident
}

func openKept(path string) (*kept, error) {
	schema := batch.MustSchema(batch.Field{Name: "id", Type: batch.Bigint}, batch.Field{Name: "v", Type: batch.Double})
	f, err := process.New(process.Config{Input: schema, Keys: []int{0}, Output: schema, New: newSums})
	if err != nil {
		return nil, err
	}
	db, err := statedb.Open(path, statedb.Options{Memory: diskMemory})
	if err != nil {
		return nil, err
	}
	k := &kept{db: db, op: f.New(), pool: batch.NewPool(0, nil)}
	k.bl = batch.NewBuilder(k.pool, schema)
	err = k.op.Open(&operator.Context{Parallelism: 1, MaxParallelism: 128, KeyGroups: dataflow.KeyGroupRange{Last: 127},
		Pool: k.pool, Counters: &operator.Counters{}, Backing: db})
	return k, err
}

// run puts rows with the keys through the operator.
func (k *kept) run(ctx context.Context, rows int, key func(int) int64, done func(int)) error {
	for i := range rows {
		k.bl.SetInt(0, key(i))
		k.bl.SetDouble(1, float64(i))
		k.bl.EndRow(0)
		if !k.bl.Full() && i < rows-1 {
			continue
		}
		b := k.bl.Take()
		p, err := k.op.Process(b, k)
		for err == nil && p != operator.Done {
			if err = k.db.Sync(ctx); err == nil {
				p, err = k.op.Resume(k)
			}
		}
		b.Release()
		if err != nil {
			return err
		}
		if i/batch.MaxRows%64 == 0 {
			k.peak = max(k.peak, resident())
			done(i)
		}
	}
	return nil
}

// Emit is operator.Output's.
func (k *kept) Emit(b *batch.Batch) bool { k.rows += int64(b.Len()); return true }

// EmitSide is operator.Output's.
func (k *kept) EmitSide(operator.Side, *batch.Batch) bool { return true }

// Wanted is operator.Output's.
func (k *kept) Wanted(operator.Side) bool { return false }

// sums counts the rows of each key and adds their values.
type sums struct{ v *state.Value }

func newSums(s *state.Store) process.Function {
	return &sums{s.Value("sums", state.TTL{}, batch.Field{Name: "rows", Type: batch.Bigint}, batch.Field{Name: "sum", Type: batch.Double})}
}

func (f *sums) Process(c *process.Context, r process.Run) error {
	for _, p := range r.Rows {
		f.v.SetInt(0, f.v.Int(0)+1)
		f.v.SetDouble(1, f.v.Double(1)+r.Batch.Cols[1].Doubles[p])
		c.Out.Set(0, r.Batch.Cols[0], int(p))
		c.Out.SetDouble(1, f.v.Double(1))
		c.Out.EndRow(dataflow.Time(r.Batch.Times[p]))
	}
	return nil
}

func (f *sums) OnTimer(*process.Context, process.Timer) error { return nil }

// resident is the memory that the process has, pages of mapped files too; where
// the system does not say, what the runtime has from it.
func resident() int64 {
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return n * int64(os.Getpagesize())
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys - m.HeapReleased)
}
