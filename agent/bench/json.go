package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

// messageBytes is how long each message is.
const messageBytes = 81

// runJSON compares decoding with going over the bytes once.
func runJSON(ctx context.Context, o Options) ([]Figure, error) {
	defer oneCore()()
	messages, ends := makeMessages(o.scaled(500_000, 100))
	spec := decode.Spec{Format: decode.JSON, Fields: []decode.Field{
		{Name: "sensor", Type: batch.String, Topic: -1}, {Name: "ts", Type: batch.Timestamp, Topic: -1},
		{Name: "temperature", Type: batch.Double, Topic: -1}, {Name: "humidity", Type: batch.Double, Topic: -1},
	}}
	var fields []batch.Field
	for _, f := range spec.Fields {
		fields = append(fields, batch.Field{Name: f.Name, Type: f.Type})
	}
	schema := batch.MustSchema(fields...)
	d, err := decode.New(spec, schema)
	if err != nil {
		return nil, err
	}
	bl := batch.NewBuilder(batch.NewPool(0, nil), schema)
	quotes := 0
	m, err := course{id: "json", rows: len(ends), warm: 1, passes: 1, rounds: 15}.run(ctx, o,
		side{"decode", func() error { return decodeAll(d, bl, messages, ends) }},
		side{"find the quotes", func() error { quotes += findQuotes(messages, ends); return nil }})
	if err != nil {
		return nil, err
	}
	if quotes%(10*len(ends)) != 0 || quotes == 0 {
		return nil, errors.New("bench json: the loop is wrong")
	}
	ns := compare("json/ns", m[0], m[1], 4)
	byRatio := ns
	byRatio.ID, byRatio.Unit = "json/ratio", "ns"
	byNs := absolute("json/ns", m[0].ns, &m[1].ns, "ns", 150)
	byNs.Note, byNs.Allocs = ns.Note, ns.Allocs
	return []Figure{byNs, byRatio}, nil
}

// makeMessages is messages of sensors as they come from a broker, one after the
// other, and where each ends.
func makeMessages(n int) (all []byte, ends []int) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		all = fmt.Appendf(all, `{"sensor":"sensor-%05d","ts":%d,"temperature":%05.2f,"humidity":%05.2f}`,
			r.IntN(1000), epoch/1000+int64(i), 10+r.Float64()*80, 10+r.Float64()*80)
		ends = append(ends, len(all))
	}
	return all, ends
}

// decodeAll decodes the messages into columns, batch by batch.
func decodeAll(d *decode.Decoder, bl *batch.Builder, messages []byte, ends []int) error {
	from := 0
	for _, end := range ends {
		if _, err := d.Decode(nil, messages[from:end], bl); err != nil {
			return err
		}
		from = end
		if bl.Full() {
			bl.Take().Release()
		}
	}
	if b := bl.Take(); b != nil {
		b.Release()
	}
	return nil
}

// findQuotes goes over the bytes of the messages once and notes where the
// quotes of each stand: what any reader of JSON does at the least.
func findQuotes(messages []byte, ends []int) (quotes int) {
	var at [messageBytes]int32
	from := 0
	for _, end := range ends {
		n := 0
		for i, c := range messages[from:end] {
			if c == '"' && n < len(at) {
				at[n] = int32(i)
				n++
			}
		}
		quotes += n
		from = end
	}
	return quotes
}
