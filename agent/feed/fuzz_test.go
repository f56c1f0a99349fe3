package feed

import (
	"bytes"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// What is read can be written, and is then read as the same.
func FuzzConfig(f *testing.F) {
	for _, c := range []Config{
		{Broker: "mqtt://broker.example", Topics: []string{"a/#"}, ClientID: "c", Lanes: 1},
		{Broker: "wss://broker.example/mqtt", Topics: []string{"$share/g/+"}, QoS: 2, ClientID: "c", Lanes: 8, Retained: job.RetainedAll, Keep: job.Retention{Age: dataflow.Day, Size: 1, Cap: 2}, Tick: 1},
	} {
		b, err := encode(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"retained":"first","password":"${env:X}","username":"(given in the job)"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _, err := decode(b)
		if err != nil {
			return
		}
		if c, err = c.fixed("f"); err != nil {
			return
		}
		once, err := encode(c)
		if err != nil {
			t.Fatal(err)
		}
		again, _, err := decode(once)
		if err != nil {
			t.Fatalf("%v: %s", err, once)
		}
		if twice, err := encode(again); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%v: %s and %s", err, once, twice)
		}
	})
}
