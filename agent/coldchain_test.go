package agent_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// TestColdChain runs the sample beside a broker: two sensors with their markers,
// a row in time, one that is late and allowed, one that is too late, one from a
// clock that runs ahead, and one that nobody can read.
func TestColdChain(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	url := "mqtt://" + b.Addr()
	alerts := listen(t, b.Addr(), "alerts/#")
	for _, p := range []int{1, 2} {
		t.Run(fmt.Sprint("parallelism ", p), func(t *testing.T) {
			dir := t.TempDir()
			set := []string{"sources.readings.mqtt.broker=" + url, "sinks.alerts.mqtt.broker=" + url}
			for _, sink := range []string{"archive", "late", "rejected"} {
				set = append(set, fmt.Sprintf("sinks.%s.file.path=%s", sink, filepath.Join(dir, sink+".jsonl")))
			}
			// The clock stands: neither the machine's speed nor its date matters.
			local, err := agent.NewLocal(load(t, sample(t, "cold-chain.yaml"), setting{parallelism: p, set: set}), agent.LocalOptions{Clock: standing{}})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- local.Run(t.Context()) }()
			<-local.Heard()
			sent := publishColdChain(t, url)
			until(t.Context(), t, "rows", func() bool { return local.Totals().In == sent })
			var got []string
			for range 3 {
				got = append(got, <-alerts)
			}
			local.Stop()
			if err := <-done; err != nil {
				t.Fatal(err)
			}

			row := func(sensor string, avg, most string, n int) string {
				return fmt.Sprintf(`{"sensor":%q,"window_start":%s,"window_end":%s,"avg_temp":%s,"max_temp":%s,"n":%d}`, sensor, "%s", "%s", avg, most, n)
			}
			fired := []string{row("s1", "10", "11", 2), row("s1", "15", "25", 3), row("s2", "8.5", "8.5", 1)}
			var wantAlerts, wantArchive []string
			for _, f := range fired {
				wantAlerts = append(wantAlerts, "alerts/"+f[11:13]+" "+fmt.Sprintf(f, `"1970-01-01T00:00:00Z"`, `"1970-01-01T00:00:10Z"`))
				wantArchive = append(wantArchive, fmt.Sprintf(f, "0", "10000"))
			}
			same(t, "alerts", got, wantAlerts)
			same(t, "archive", read(t, filepath.Join(dir, "archive.jsonl")), wantArchive)
			same(t, "late", read(t, filepath.Join(dir, "late.jsonl")), []string{`{"sensor":"s2","ts":"1970-01-01T00:00:05Z","temp":30,"kind":null}`})
			rejected := strings.Join(read(t, filepath.Join(dir, "rejected.jsonl")), "\n")
			for _, reason := range []string{`"topic":"plant/s3/telemetry","reason":"ahead"`, `"topic":"plant/s1/telemetry","reason":"not JSON at byte 0"`} {
				if strings.Count(rejected, reason) != 1 {
					t.Errorf("rejected: no %s in %s", reason, rejected)
				}
			}
			s := local.Totals()
			if s.In != 13 || s.Markers != 4 || s.Filtered != 1 || s.Late != 1 || s.Rejected != 2 || s.NoWindow != 0 {
				t.Errorf("totals %+v", s)
			}
		})
	}
}

// publishColdChain sends the messages of the test and tells how many.
func publishColdChain(t *testing.T, url string) (sent int64) {
	t.Helper()
	p, err := fleet.Connect(url, "plant", 1)
	if err != nil {
		t.Fatal(err)
	}
	send := func(sensor, payload string) {
		if err := p.Publish(t.Context(), "plant/"+sensor+"/telemetry", []byte(payload)); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	reading := func(sensor string, ts int64, temp float64) {
		send(sensor, fmt.Sprintf(`{"ts":%d,"data":{"temp":%v,"unit":"C"}}`, ts, temp))
	}
	flush := func(ts int64) {
		for _, s := range []string{"s1", "s2"} {
			send(s, fmt.Sprintf(`{"kind":"flush","ts":%d}`, ts))
		}
	}
	reading("s1", 1000, 9)
	reading("s2", 1500, 5) // not hot
	reading("s1", 3000, 11)
	reading("s2", 4000, 8.5)
	send("s1", "what?")
	reading("s3", 4102444800000, 9) // the year 2100
	flush(10000)
	reading("s1", 9000, 25) // late, and allowed: the window fires again
	flush(15000)
	reading("s2", 5000, 30) // too late
	reading("s1", 16000, 9) // its window does not fire any more
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return sent
}

// listen is what arrives under a filter, as "topic payload".
func listen(t *testing.T, addr, filter string) <-chan string {
	t.Helper()
	messages := make(chan string, 100)
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("listener").SetAutoReconnect(false))
	wait := func(token paho.Token) {
		t.Helper()
		if token.Wait(); token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	wait(c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	wait(c.Subscribe(filter, 1, func(_ paho.Client, m paho.Message) { messages <- m.Topic() + " " + string(m.Payload()) }))
	return messages
}

// same compares lines in any order.
func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// standing is a clock that has stopped; who waits for it waits in real time.
type standing struct{ sensors.Wall }

func (standing) Now() dataflow.Time { return 0 }
