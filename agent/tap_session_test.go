package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

const sharedJob = `
name: shared
sources:
  in:
    mqtt: {broker: "mqtt://%s", topics: [$share/g/plant/+]}
    format: json
    fields: {n: bigint}
sinks: [{id: out, from: in, blackhole: {}}]
`

// session connects with a client id and tells whether the broker knew it.
func session(t *testing.T, addr, clientID string, topics ...string) (*mqtt.Reader, bool) {
	t.Helper()
	connected, subscribed := make(chan bool, 1), make(chan struct{}, 1)
	r, err := mqtt.NewReader(mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: "mqtt://" + addr, ClientID: clientID, Events: func(e mqtt.Event) {
			switch e.Kind {
			case mqtt.Connected:
				connected <- e.Resumed
			case mqtt.Subscribed:
				subscribed <- struct{}{}
			}
		}},
		Topics: topics, QoS: 1, TickEvery: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	known := <-connected
	<-subscribed
	return r, known
}

// A tap only looks: it takes no message from a shared subscription, and leaves
// no session behind for which a broker would go on to queue.
func TestTapTakesNothingAndLeavesNothing(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	member, _ := session(t, b.Addr(), "member", "$share/g/plant/+")
	j, err := job.Load("shared", fmt.Appendf(nil, sharedJob, b.Addr()), job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := fleet.Connect("mqtt://"+b.Addr(), "sender", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()

	const messages = 20
	heard, sent := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(sent)
		<-heard
		for n := range messages {
			if err := p.Publish(t.Context(), "plant/a", fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
				t.Error(err)
			}
		}
	}()
	seen := 0
	opt := agent.LocalOptions{Events: func(line string) {
		if strings.Contains(line, " subscribed ") {
			heard <- struct{}{}
		}
	}}
	if err := agent.Tap(t.Context(), j, "in", "the-tap", opt, func(*agent.Tapped) bool { seen++; return seen < messages }); err != nil {
		t.Fatal(err)
	}
	<-sent
	var rec sensors.Records
	for got := 0; got < messages; got += rec.Len() {
		if err := member.Read(t.Context(), &rec, messages); err != nil {
			t.Fatal(err)
		}
	}
	if _, known := session(t, b.Addr(), "the-tap", "plant/+"); known {
		t.Error("the broker still keeps the tap's session")
	}
}
