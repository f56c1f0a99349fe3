package task

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
)

// named decodes "SENSOR SITE TIME".
type named struct{}

func (named) Decode(_, payload []byte, bl *batch.Builder) (int, error) {
	var sensor, site string
	var at int64
	if _, err := fmt.Sscan(string(payload), &sensor, &site, &at); err != nil {
		return 0, err
	}
	bl.SetString(0, sensor)
	bl.SetString(1, site)
	bl.SetInt(2, at)
	bl.EndRow(0)
	return 1, nil
}
func (named) Split(int)                {}
func (named) Header(int, []byte) error { return nil }

// A source whose job says another `per:` goes on from where its stream stood, and
// does not wait for those that the one before named, also where its split has
// another number.
func TestPerOfARestoredSource(t *testing.T) {
	schema := batch.MustSchema(batch.Field{Name: "sensor", Type: batch.String}, batch.Field{Name: "site", Type: batch.String}, batch.Field{Name: "at", Type: batch.Timestamp})
	source := func(per, split int) *Task {
		task, err := New(Config{
			ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 16, Pool: batch.NewPool(0, nil),
			Source: &SourceConfig{
				Schema: schema, Time: eventtime.Config{Strategy: eventtime.Ascending, PerDevice: true, Per: schema.Field(per).Name}, EventAt: 2, DeviceAt: per, Arrival: -1,
				Splits: []int{split}, Names: []string{"north"}, Decoder: func() (Decoder, error) { return named{}, nil },
			},
			Links:   []LinkConfig{{ID: "in", Parent: -1}},
			Outputs: []OutputConfig{{Link: 0, Partitioner: whole{}, Channels: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return task
	}
	watermark := func(task *Task, payloads ...string) dataflow.Time {
		for _, e := range task.Step(Input{Kind: Raw, Records: records(0, nil, payloads...)}) {
			if e.Kind == Send {
				e.Batch.Release()
			}
		}
		return task.source.time.Now().Watermark
	}
	for _, c := range []struct {
		name     string
		per      int
		restored dataflow.Time // then rows of one sensor and one site until 40
		devices  int
		after    dataflow.Time
	}{
		{"the same", 0, 11, 2, 11},
		{"another", 1, 11, 0, 39},
	} {
		old := source(0, 0)
		watermark(old, "s1 east 10", "s2 east 12", "s1 east 15")
		next := source(c.per, 3)
		for _, r := range saved(t, old) {
			if err := next.Restore(r.Operator, r.Table, r.Batch); err != nil {
				t.Fatal(err)
			}
			r.Batch.Release()
		}
		next.Step(Input{Kind: Begin})
		if w, n := next.source.time.Now().Watermark, next.source.time.Devices(); w != c.restored || n != c.devices {
			t.Errorf("%s: restored at %d with %d devices, want %d with %d", c.name, w, n, c.restored, c.devices)
		}
		if w := watermark(next, "s1 west 20", "s1 west 40"); w != c.after {
			t.Errorf("%s: at %d, want %d", c.name, w, c.after)
		}
	}
}
