package sensortest_test

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

func encodeN(dst []byte, b *batch.Batch, pos int) []byte {
	return strconv.AppendInt(dst, b.Cols[1].Ints[pos], 10)
}

func numbers(t rapid.TB, rows []string) []int64 {
	var out []int64
	for _, r := range rows {
		n, err := strconv.ParseInt(r, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

func TestTableIsATransactionalSink(t *testing.T) {
	sensortest.Transactional(t, sensortest.TransactionalCase{Open: func(*testing.T) sensortest.World {
		table := sensortest.NewTable("table", encodeN)
		return sensortest.World{
			Start: func(_ rapid.TB, subtask, parallelism int) sensors.Transactional {
				return table.Writer(subtask, parallelism)
			},
			Visible: func(t rapid.TB, _ int) []int64 { return numbers(t, table.Rows()) },
		}
	}})
}

func TestTableIsASink(t *testing.T) {
	sensortest.Writer(t, sensortest.WriterCase{Open: func(*testing.T) sensortest.Sink {
		table := sensortest.NewTable("table", encodeN)
		return sensortest.Sink{
			Writer:  table.Writer(0, 1),
			Visible: func(t *testing.T, _ int) []int64 { return numbers(t, table.Rows()) },
		}
	}})
}
