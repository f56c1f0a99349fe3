package mqtt_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

func TestReaderSuite(t *testing.T) {
	for qos := byte(0); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos %d", qos), func(t *testing.T) {
			sensortest.Reader(t, sensortest.ReaderCase{
				Arrivals: true,
				Open: func(t *testing.T) sensortest.Source {
					b := startBroker(t)
					ev := newEvents()
					rd := openReader(t, mqtt.ReaderOptions{
						Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "suite", Events: ev.add},
						Topics:     []string{"suite/#"}, QoS: qos,
					})
					return sensortest.Source{Reader: rd, Feed: func(t *testing.T, payloads [][]byte) {
						ev.wait(t, mqtt.Subscribed)
						p := newPublisher(t, b.Addr())
						for _, v := range payloads {
							p.publish(t, "suite/a", qos, false, v)
						}
					}}
				},
			})
		})
	}
}

func TestWriterSuite(t *testing.T) {
	for qos := byte(0); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos %d", qos), func(t *testing.T) {
			sensortest.Writer(t, sensortest.WriterCase{
				Immediate: true,
				Open: func(t *testing.T) sensortest.Sink {
					b := startBroker(t)
					sub := newSubscriber(t, b.Addr(), "out/#", 2)
					w := openWriter(t, mqtt.WriterOptions{
						Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "writer"},
						Topic:      "out/{name}", Schema: sensortest.WriterSchema(), QoS: qos, Encode: encodeN,
					})
					var got []int64
					return sensortest.Sink{Writer: w, Visible: func(t *testing.T, n int) []int64 {
						for len(got) < n {
							m := sub.next(t)
							v, err := strconv.ParseInt(string(m.payload), 10, 64)
							if err != nil || m.topic != fmt.Sprintf("out/row-%d", v) {
								t.Fatalf("%s: %q", m.topic, m.payload)
							}
							got = append(got, v)
						}
						return got
					}}
				},
			})
		})
	}
}

// encodeN is the column n of sensortest.WriterSchema as text.
func encodeN(dst []byte, b *batch.Batch, pos int) []byte {
	return strconv.AppendInt(dst, b.Cols[1].Ints[pos], 10)
}
