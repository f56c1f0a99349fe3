//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// A broker that is down is tried again and again, and the user is told; when it
// is there the job goes on; an interrupt ends it with its totals and 0.
func TestBrokerThatIsDown(t *testing.T) {
	addr := sensortest.FreeAddr(t)
	job := file(t, "job.yaml", fmt.Sprintf(`name: down
sources:
  in:
    mqtt: {broker: "mqtt://%s", topics: [t]}
    format: json
    fields: {k: string, ts: {type: timestamp, unit: ms}}
    event_time: ts
    watermark: {ascending: true}
steps:
  - {id: w, from: in, key_by: [k], window: {tumbling: 1s}, select: {n: count(*)}}
sinks:
  - {id: out, from: w, stdout: {timestamps: ms}}
`, addr))
	var out, errw lockedBuffer
	done := make(chan int, 1)
	go func() { done <- run([]string{"run", job}, strings.NewReader(""), &out, &errw) }()
	says := func(what string, times int) {
		t.Helper()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for strings.Count(errw.String(), what) < times {
			select {
			case <-tick.C:
			case code := <-done:
				t.Fatalf("exit code %d before it said %q %d times:\n%s", code, what, times, errw.String())
			}
		}
	}
	says("unreachable: dial tcp "+addr, 2)
	says("next attempt in", 2)
	b, err := broker.Start(broker.Options{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	says("subscribed t", 1)

	p, err := fleet.Connect("mqtt://"+addr, "sender", 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, ts := range []int{100, 900, 1000, 2500} {
		if err := p.Publish(context.Background(), "t", fmt.Appendf(nil, `{"k":"a","ts":%d}`, ts)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for strings.Count(out.String(), "\n") < 2 {
		<-tick.C
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	r := called{<-done, out.String(), errw.String()}
	r.want(t, exitDone, "stopping: what is in flight still arrives", "down: rows in 4, out 2, late 0, rejected 0, markers 0, filtered 0, watermark 1970-01-01T00:00:02.499999Z")
	want := `{"k":"a","window_start":0,"window_end":1000,"n":2}` + "\n" + `{"k":"a","window_start":1000,"window_end":2000,"n":1}` + "\n"
	if r.out != want {
		t.Errorf("got %s, want %s", r.out, want)
	}
}
