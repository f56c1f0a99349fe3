package task

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/dedupe"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/operator"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// poisoned panics over a row with the value 13.
type poisoned struct{ operator.Factory }

func (p poisoned) New() operator.Operator { return poisonedOp{p.Factory.New()} }

type poisonedOp struct{ operator.Operator }

func (p poisonedOp) Process(b *batch.Batch, out operator.Output) (operator.Progress, error) {
	for k := range b.Len() {
		if v := b.Cols[0].Ints[b.Position(k)]; v == 13 {
			panic(fmt.Sprint("cannot stand ", v))
		}
	}
	return p.Operator.Process(b, out)
}

// The payload of a row that an operator panics over is named, wherever its time
// comes from, and also behind rows that were taken out as duplicates.
func TestPayloadOfAPoisonedRow(t *testing.T) {
	times := batch.MustSchema(batch.Field{Name: "v", Type: batch.Timestamp})
	for _, eventAt := range []int{-1, 0} {
		for _, unique := range []*dedupe.Config{nil, {By: []int{0}, Within: 1000, Entries: 10}} {
			strategy := eventtime.Ingestion
			if eventAt == 0 {
				strategy = eventtime.Bounded
			}
			task, err := New(Config{
				ID: dataflow.SubtaskID{Task: "in"}, Parallelism: 1, MaxParallelism: 128, Pool: batch.NewPool(0, nil),
				Source: &SourceConfig{
					Schema: times, Time: eventtime.Config{Strategy: strategy}, EventAt: eventAt, DeviceAt: -1, Arrival: -1, Splits: []int{0},
					Decoder: func() (Decoder, error) { return lettered{}, nil }, Dedupe: unique,
				},
				Links: []LinkConfig{{ID: "in", Parent: -1}, {ID: "bad", Factory: poisoned{operator.NewPass(times)}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			r := &sensors.Records{}
			r.Reset(0)
			for _, v := range []string{"1", "1", "x", "13", "14"} {
				r.AppendMessage([]byte("t"), []byte(v), 5)
			}
			var fault *operator.PanicError
			for _, e := range task.Step(Input{Kind: Raw, Records: r}) {
				if e.Kind == Fail && !errors.As(e.Err, &fault) {
					t.Fatal(e.Err)
				}
			}
			if fault == nil || !strings.Contains(fault.Payload, "13") {
				t.Errorf("event time of column %d, dedupe %v: the payload is not named", eventAt, unique != nil)
			}
		}
	}
}
