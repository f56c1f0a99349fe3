package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

const countsJob = `
name: counts
parallelism: 2
replicas: 2
checkpoint: {interval: 200ms}
restart: {strategy: exponential-delay, initial: 50ms, max: 500ms}
sources:
  readings:
    mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}
    format: json
    fields: {id: bigint, k: string}
    event_time: ingestion
steps:
  - {id: counts, from: readings, key_by: [k], select: {n: count(*), last_id: max(id)}}
sinks:
  - {id: out, from: counts, file: {path: counts.jsonl}}
  - {id: raw, from: readings, file: {path: raw.jsonl}}
`

// submit submits a job as the API does.
func submit(t *testing.T, all []*box, spec string) coordinator.JobID {
	t.Helper()
	j, err := job.Load("job.yaml", []byte(spec), job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := coordinator.JobSubmitted{Namespace: coordinator.DefaultNamespace, Name: j.Name, Spec: []byte(spec)}
	for _, s := range j.Sources {
		if s.MQTT != nil {
			_, config := feed.FromSource(j.Name, s)
			config.ClientID = "test/" + j.Name
			b, err := config.Format()
			if err != nil {
				t.Fatal(err)
			}
			c.Feeds = append(c.Feeds, coordinator.Feed{Name: string(s.ID), Namespace: coordinator.DefaultNamespace, Config: b, Replicas: j.Replicas})
		}
	}
	return propose(t, all, c)
}

func (b *box) job(id coordinator.JobID) (j *coordinator.Job) {
	b.View(func(st *coordinator.State) { j = st.Jobs[id] })
	return j
}

// out is what all boxes' files of one sink hold: whole rows, as one may be being written.
func out(t *testing.T, all []*box, name string) []byte {
	t.Helper()
	var text []byte
	for _, b := range all {
		part, err := os.ReadFile(filepath.Join(b.dir, "out", name))
		if err == nil {
			text = append(text, part[:bytes.LastIndexByte(part, '\n')+1]...)
		}
	}
	return text
}

// publisher publishes numbered messages, each acknowledged before the next.
type publisher struct {
	t    *testing.T
	c    mqtt.Client
	next int
}

func newPublisher(t *testing.T, addr string) *publisher {
	t.Helper()
	c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("publisher"))
	if token := c.Connect(); token.Wait() && token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return &publisher{t: t, c: c}
}

const keys = 7

func (p *publisher) publish(n int) {
	p.t.Helper()
	for range n {
		text := fmt.Sprintf(`{"id":%d,"k":"k%d"}`, p.next, p.next%keys)
		if token := p.c.Publish(fmt.Sprintf("t/%d", p.next%keys), 1, false, text); token.Wait() && token.Error() != nil {
			p.t.Fatal(token.Error())
		}
		p.next++
	}
}

// TestFeedMovesWithItsAgent: the agent that has the session ends, and another
// member of the log goes on. Each message is counted once.
func TestFeedMovesWithItsAgent(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	all := site(t, 3)
	id := submit(t, all, fmt.Sprintf(countsJob, b.Addr()))
	p := newPublisher(t, b.Addr())
	running := func(attempt uint64) {
		t.Helper()
		await(t, fmt.Sprintf("attempt %d to run", attempt), func() bool {
			for _, x := range all {
				if j := x.job(id); j != nil && j.Status == coordinator.Running && j.Attempt >= attempt {
					return true
				}
			}
			return false
		})
	}
	running(1)
	await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > 0 }) // from here on the session holds what comes
	p.publish(500)
	for round := range 3 {
		await(t, "three voters", func() bool { return voters(leading(t, all)) == 3 }) // so that the others decide without it
		owner := ownerOf(t, all, string(id)+".readings")
		before := current(t, all, id).Attempt
		owner.end()
		running(before + 1)
		p.publish(200)
		owner.start("", "")
		running(before + 1)
		p.publish(300)
		t.Logf("round %d: %s ended", round, owner.name)
	}
	await(t, "everything to come out", func() bool {
		return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= p.next
	})
	halt(t, all, id)
	compare(t, all, p.next)
}

// current is the job as the leader has it.
func current(t *testing.T, all []*box, id coordinator.JobID) (j *coordinator.Job) {
	t.Helper()
	await(t, "the leader to know the job", func() bool {
		j = leading(t, all).job(id)
		return j != nil
	})
	return j
}

func ownerOf(t *testing.T, all []*box, name string) (owner *box) {
	t.Helper()
	await(t, "an owner of "+name, func() bool {
		leading(t, all).View(func(st *coordinator.State) {
			for _, x := range all {
				if f := st.Feeds[name]; f != nil && f.Log.Owner == x.Self() {
					owner = x
				}
			}
		})
		return owner != nil
	})
	return owner
}

// compare: each message is copied once, and each key's totals are 1, 2, 3, ...
func compare(t *testing.T, all []*box, n int) {
	t.Helper()
	copies := make(map[int]int)
	d := json.NewDecoder(bytes.NewReader(out(t, all, "raw.jsonl")))
	for d.More() {
		var row struct {
			ID int `json:"id"`
		}
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		copies[row.ID]++
	}
	for i := range n {
		if copies[i] != 1 {
			t.Errorf("message %d came out %d times", i, copies[i])
		}
	}
	totals := make(map[string]map[int]int)
	d = json.NewDecoder(bytes.NewReader(out(t, all, "counts.jsonl")))
	for d.More() {
		var row struct {
			K string `json:"k"`
			N int    `json:"n"`
		}
		if err := d.Decode(&row); err != nil {
			t.Fatal(err)
		}
		if totals[row.K] == nil {
			totals[row.K] = make(map[int]int)
		}
		totals[row.K][row.N]++
	}
	for k := range keys {
		want := (n + keys - 1 - k) / keys
		got := totals[fmt.Sprintf("k%d", k)]
		for i := 1; i <= want; i++ {
			if got[i] != 1 {
				t.Errorf("key %d: total %d came out %d times", k, i, got[i])
			}
		}
		if len(got) != want {
			t.Errorf("key %d: %d totals, want %d", k, len(got), want)
		}
	}
}

// TestRollingRestart: each agent is told to end, the leader first, and comes back.
// What it had is elsewhere before it is gone, and each message is counted once.
func TestRollingRestart(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	all := site(t, 3)
	id := submit(t, all, fmt.Sprintf(countsJob, b.Addr()))
	p := newPublisher(t, b.Addr())
	await(t, "three voters", func() bool { return voters(leading(t, all)) == 3 })
	first := leading(t, all)
	order := []*box{first}
	for _, x := range all {
		if x != first {
			order = append(order, x)
		}
	}
	for _, x := range order {
		runs := func() bool { return current(t, all, id).Status == coordinator.Running && b.Stats().Subscriptions > 0 }
		await(t, "the job to run", runs)
		p.publish(100)
		x.end()
		if !strings.Contains(x.said(), "what it had was handed over") {
			t.Errorf("%s did not hand over:\n%s", x.name, x.said())
		}
		await(t, "the job to run without "+x.name, runs)
		p.publish(100)
		x.start("", "")
		await(t, x.name+" to be ready", func() bool { return x.Health().Ready })
	}
	await(t, "everything to come out", func() bool {
		return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= p.next
	})
	halt(t, all, id)
	compare(t, all, p.next)
}

// voters is how many votes a box knows of.
func voters(b *box) (n int) {
	for _, m := range b.Members() {
		if m.Role == "leader" || m.Role == "voter" {
			n++
		}
	}
	return n
}

// halt has a job stopped with a savepoint.
func halt(t *testing.T, all []*box, id coordinator.JobID) {
	t.Helper()
	await(t, "the job to stop", func() bool {
		if j := current(t, all, id); j.Status == coordinator.Stopped || j.Then == dataflow.Halt {
			return j.Status == coordinator.Stopped
		}
		if _, err := leading(t, all).Propose(t.Context(), coordinator.Command{JobTold: &coordinator.JobTold{Job: id, Then: dataflow.Halt}}); err != nil {
			t.Log(err) // asked again
		}
		return false
	})
}
