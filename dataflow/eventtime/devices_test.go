package eventtime

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/state"
)

// TestDevicesAreFound: whatever came and went, and however badly the tags
// collide, each device is found and no other.
func TestDevicesAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDevices()
		slots := map[string]int32{}
		tags := rapid.SampledFrom([]int{1, 3, 80, 1 << 20}).Draw(t, "tags")
		key := func(n int) []byte {
			return []byte(strings.Repeat("k", n%25) + fmt.Sprint(n) + strings.Repeat("k", n%25))
		}
		tag := func(n int) uint32 { return uint32(n) * 2654435761 % uint32(tags) }
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			n := rapid.IntRange(0, 120).Draw(t, "device")
			split := uint16(n % 3)
			slot, there := slots[fmt.Sprint(n)]
			if got := d.find(tag(n), split, key(n), false); there && got != slot || !there && got != -1 {
				t.Fatalf("device %d is in slot %d (%v), found in %d", n, slot, there, got)
			}
			if d.find(tag(n), split+1, key(n), false) != -1 {
				t.Fatalf("device %d found in another split", n)
			}
			switch {
			case !there:
				slot = d.add(tag(n), split, key(n), false)
				d.slots[slot].become(member)
				slots[fmt.Sprint(n)] = slot
			case rapid.Bool().Draw(t, "forget"):
				d.forget(slot)
				delete(slots, fmt.Sprint(n))
			}
		}
		if d.n != len(slots) || len(d.slots)-len(d.free) != len(slots) {
			t.Fatalf("%d devices in %d slots, want %d", d.n, len(d.slots)-len(d.free), len(slots))
		}
	})
}

func TestNullAndEmptyAreTwoDevices(t *testing.T) {
	d := newDevices()
	hash := tagOf(hashKey(nil), 0)
	null := d.add(hash, 0, nil, true)
	d.slots[null].become(member)
	if got := d.find(hash, 0, []byte{}, false); got != -1 {
		t.Errorf("the empty name found in slot %d, where null is", got)
	}
	if got := d.find(hash, 0, nil, true); got != null {
		t.Errorf("null found in slot %d, want %d", got, null)
	}
}

// TestKeysHashAsColumns: a restored device is found under the hash that rows
// bring, whatever the type of the column.
func TestKeysHashAsColumns(t *testing.T) {
	for _, typ := range batch.Types() {
		bl := batch.NewBuilder(batch.NewPool(0, nil), batch.MustSchema(batch.Field{Name: "device", Type: typ}))
		switch typ {
		case batch.Boolean:
			bl.SetBool(0, true)
		case batch.Bigint, batch.Timestamp:
			bl.SetInt(0, -7)
		case batch.Double:
			bl.SetDouble(0, math.Copysign(0, -1))
		default:
			bl.SetString(0, "sensor-1")
		}
		bl.EndRow(0)
		bl.EndRow(0) // null
		b := bl.Take()
		state.HashKeys(b, []int{0})
		for i, wantNull := range []bool{false, true} {
			var scratch [8]byte
			key, null := keyAt(b.Cols[0], i, &scratch)
			if null != wantNull || hashKey(key) != b.Hashes[i] {
				t.Errorf("%v %d: null %v, hash %x, want %v, %x", typ, i, null, hashKey(key), wantNull, b.Hashes[i])
			}
		}
		b.Release()
	}
}

// TestQueueFindsTheLeast: against a loop over everything, with times that grow
// under the queue's feet and devices that go.
func TestQueueFindsTheLeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		times := map[int32]int64{}
		now := func(e entry) (int64, bool) { v, ok := times[e.id]; return v, ok }
		spread := rapid.SampledFrom([]int64{0, 3, 1000, 1 << 40, 1 << 62}).Draw(t, "spread")
		floor := rapid.SampledFrom([]int64{math.MinInt64, -100, 0, 1 << 60}).Draw(t, "floor")
		later := func(v int64) int64 {
			d := rapid.Int64Range(0, spread).Draw(t, "later")
			if v > 0 && d > math.MaxInt64-1-v {
				return v
			}
			return v + d
		}
		for id := range int32(rapid.IntRange(1, 300).Draw(t, "steps")) {
			switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
			case k < 4:
				times[id] = later(floor)
				q.push(entry{key: times[id], id: id})
			case k < 8:
				for other := range id {
					if v, there := times[other]; there && rapid.IntRange(0, 5).Draw(t, "grows") == 0 {
						times[other] = later(v)
					}
				}
			default:
				delete(times, id/2)
			}
			if rapid.Bool().Draw(t, "look") {
				floor = max(floor, checkLeast(t, &q, times, now))
			}
		}
	})
}

func checkLeast(t *rapid.T, q *queue, times map[int32]int64, now func(entry) (int64, bool)) int64 {
	want := int64(none)
	for _, v := range times {
		want = min(want, v)
	}
	for {
		e, ok := q.least()
		if !ok {
			if !q.refill(now) {
				if want != none {
					t.Fatalf("empty, want %d", want)
				}
				return math.MinInt64
			}
			continue
		}
		v, there := times[e.id]
		switch {
		case !there:
			q.drop()
		case v > e.key:
			e.key = v
			q.drop()
			q.push(e)
		case v != want:
			t.Fatalf("least %d, want %d", v, want)
		default:
			n := 0
			q.each(func(entry) { n++ })
			if n != q.n || n < len(times) {
				t.Fatalf("%d entries, counted %d, %d devices", n, q.n, len(times))
			}
			return v
		}
	}
}

// TestMemoryFollowsTheLiveDevices: a hundred thousand devices that each come
// once leave no more behind than those that live at a time.
func TestMemoryFollowsTheLiveDevices(t *testing.T) {
	cfg := Config{Strategy: Punctuated, PerDevice: true, IdleAfter: 100}
	r := newRig(cfg, []int{0}, 1000)
	// A member that stays, far behind, so that the others never are the least.
	if err := r.do(event{kind: "row", marker: true, device: "stays"}); err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		e := event{kind: "row", arrival: dataflow.Time(i), marker: true, at: dataflow.Time(i), device: fmt.Sprint(i)}
		if i%50 == 0 {
			e = event{kind: "row", arrival: dataflow.Time(i), device: "stays"}
		}
		if err := r.do(e); err != nil {
			t.Fatal(err)
		}
		r.stream, r.rows = r.stream[:0], r.rows[:0]
	}
	d := r.src.devices
	if len(d.slots) > 300 || len(d.index) > 2048 || len(d.counted.levels[0]) > 20 || r.src.splits[0].fresh.n > 300 {
		t.Errorf("%d slots, index %d, %d groups and %d entries for %d live devices",
			len(d.slots), len(d.index), len(d.counted.levels[0]), r.src.splits[0].fresh.n, d.n)
	}
	if w := r.src.Now().Watermark; w != 0 {
		t.Errorf("watermark %d, want 0: the one that stays holds it", w)
	}
}

// TestEmptyQueueTakesAnyKey: a queue that ran out forgets how far it was.
func TestEmptyQueueTakesAnyKey(t *testing.T) {
	var q queue
	same := func(e entry) (int64, bool) { return e.key, true }
	for _, key := range []int64{0x50, 0x30, 0x46} {
		q.push(entry{key: key})
	}
	for q.n > 0 {
		if _, ok := q.least(); ok {
			q.drop()
		} else {
			q.refill(same)
		}
	}
	for id, key := range []int64{0x50, 0x45, 0x14} {
		q.push(entry{key: key, id: int32(id)})
	}
	e, ok := q.least()
	for !ok && q.refill(same) {
		e, ok = q.least()
	}
	if !ok || e.key != 0x14 {
		t.Errorf("least %#x (%v), want 0x14", e.key, ok)
	}
}

// TestForgottenInTheMiddleOfABatch: devices are looked up many rows at a time; one
// that is forgotten after that, and comes again in the same batch, is new.
func TestForgottenInTheMiddleOfABatch(t *testing.T) {
	cfg := Config{Strategy: Bounded, PerDevice: true, IdleAfter: 10}
	r := newRig(cfg, []int{0}, 100)
	r.hash = true
	row := func(device string, at, arrival dataflow.Time) {
		t.Helper()
		if err := r.do(event{kind: "row", device: device, time: at, arrival: arrival}); err != nil {
			t.Fatal(err)
		}
	}
	row("a", 5, 0)
	row("b", 6, 0)
	row("a", 5, 1)
	row("b", 6, 1)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	row("a", 20, 8)
	row("a", 30, 12) // b has been silent for 11
	row("b", 9, 13)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	if n, w := r.src.Devices(), r.src.Now().Watermark; n != 2 || w != 29 {
		t.Errorf("%d devices, watermark %d; want both, held at 29, where b came back", n, w)
	}
	row("a", 50, 14)
	row("b", 40, 14)
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	if w := r.src.Now().Watermark; w != 39 {
		t.Errorf("watermark %d, want 39: b's", w)
	}
}
