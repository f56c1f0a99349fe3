package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// The durable sample is stopped in the middle of a window and started again with
// another parallelism: each reading is in its window once, also those that were
// sent twice, before the stop and after it, or while nothing ran.
func TestDurableSample(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	url := "mqtt://" + b.Addr()
	p, err := fleet.Connect(url, "fleet", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	send := func(from, to int) {
		t.Helper()
		for seq := from; seq < to; seq++ {
			for _, s := range []string{"s1", "s2", "s3"} {
				kind := "reading"
				if seq == 10 {
					kind = "flush"
				}
				text := fmt.Appendf(nil, `{"ts":%d,"seq":%d,"kind":%q,"data":{"temp":%d}}`, 1_000*seq, seq, kind, seq)
				if err := p.Publish(context.Background(), "plant/"+s+"/telemetry", text); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	r := newRunning(t, "durable")
	text, err := os.ReadFile("../../configs/durable.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.job, text, 0o600); err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(filepath.Dir(r.path), "late.jsonl")
	args := []string{"--set", "sources.readings.mqtt.broker=" + url, "--set", "sinks.archive.file.path=" + r.path, "--set", "sinks.late.file.path=" + late, "--set", "checkpoint.interval=10ms"}

	r.start(args...)
	r.says("subscribed plant/+/telemetry")
	send(0, 5)
	r.savepoint("per_sensor", "windows", 3)
	r.verb("job", "stop", "durable").want(t, exitDone)
	r.wait(exitDone, "is stopped")
	if got := linesOf(t, r.path); len(got) != 0 {
		t.Errorf("windows that are open are in the file: %q", got)
	}
	send(3, 8) // the broker keeps them for the session

	r.start(append(args, "-p", "1")...)
	r.says("goes on from chk-")
	r.says("session resumed")
	send(7, 11)
	r.savepoint("per_sensor", "windows", 0)
	r.verb("job", "stop", "durable").want(t, exitDone)
	r.wait(exitDone, "is stopped")
	got := linesOf(t, r.path)
	if len(got) != 3 {
		t.Fatalf("%q", got)
	}
	for _, l := range got {
		var row struct {
			WindowStart int64 `json:"window_start"`
			N           int64
			MaxTemp     float64 `json:"max_temp"`
		}
		if err := json.Unmarshal([]byte(l), &row); err != nil || row.N != 10 || row.MaxTemp != 9 || row.WindowStart != 0 {
			t.Errorf("%v: %s", err, l)
		}
	}
	if got := linesOf(t, late); len(got) != 0 {
		t.Errorf("late: %q", got)
	}
}
