package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

const saysJob = `
name: says
checkpoint: {interval: 100ms}
sources:
  in: {generate: {rate: 1000, keys: 3}, event_time: ts, watermark: {bounded: 1ms}}
sinks:
  - {id: out, from: in, mqtt: {broker: "mqtt://%s", topic: "says/{key}", qos: 2, delivery: transactional}}
`

// heard counts how often each row was published.
type heard struct {
	mu    sync.Mutex // guards times
	times map[int64]int
}

func (h *heard) listen(t *testing.T, addr string) {
	t.Helper()
	h.times = make(map[int64]int)
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("listener"))
	token := c.Connect()
	if token.Wait(); token.Error() == nil {
		token = c.Subscribe("says/#", 2, func(_ paho.Client, m paho.Message) {
			var row struct{ Seq int64 }
			if err := json.Unmarshal(m.Payload(), &row); err != nil {
				t.Errorf("%s: %v", m.Payload(), err)
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.times[row.Seq]++
		})
		token.Wait()
	}
	if token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
}

// upTo tells whether all of the first rows were heard, and which more than once.
func (h *heard) upTo(rows int64) (all bool, twice []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all = true
	for seq := range rows {
		all = all && h.times[seq] > 0
		if h.times[seq] > 1 {
			twice = append(twice, seq)
		}
	}
	return all, twice
}

// rowsAt is how many rows had been read at a snapshot.
func rowsAt(t *testing.T, s *coordinator.Snapshot) (rows int64) {
	t.Helper()
	m, err := manifest.Decode(s.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range m.Operators {
		for _, p := range o.Positions {
			rows += p.Offset
		}
	}
	return rows
}

// What a job published, also in its last commit before it stopped, the job that
// goes on from its savepoint does not publish again; nor, what is on record, one
// that goes on from the last checkpoint of a job that was cancelled.
func TestSuccessorPublishesNothingTwice(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	var h heard
	h.listen(t, b.Addr())
	all := site(t, 1)
	c := coordinator.JobSubmitted{Namespace: coordinator.DefaultNamespace, Name: "says", Spec: fmt.Appendf(nil, saysJob, b.Addr())}
	var rows int64
	for round := range 4 {
		id := propose(t, all, c)
		await(t, "more rows", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return int64(len(h.times)) > rows+200
		})
		var from *coordinator.Snapshot
		if round == 2 {
			from, c.From = cancelled(t, all, id)
		} else {
			from, c.From = stopped(t, all, id)
		}
		rows = rowsAt(t, from)
		exact := round != 2 || published(current(t, all, id), from)
		await(t, "all rows of the savepoint", func() bool { ok, _ := h.upTo(rows); return ok || !exact })
		if _, twice := h.upTo(rows); len(twice) > 0 && exact {
			t.Fatalf("round %d: published twice: %v", round, twice)
		}
		if !exact {
			return // it was cancelled in the middle of a commit, and that may come twice
		}
	}
}

// published tells whether it is on record that all of a checkpoint is.
func published(j *coordinator.Job, c *coordinator.Snapshot) bool {
	for _, s := range j.Sinks {
		if strings.Contains(s.Target, "says") && !s.Through.Less(c.ID) {
			return true
		}
	}
	return false
}

func stopped(t *testing.T, all []*box, id coordinator.JobID) (found *coordinator.Snapshot, ref string) {
	t.Helper()
	await(t, "the job to stop with a savepoint", func() bool {
		if j := current(t, all, id); j.Then != dataflow.Halt && j.Status != coordinator.Running {
			return false // it begins again, and would be stopped without one
		}
		a, err := leading(t, all).Ask(t.Context(), leader.Wish{Stop: &coordinator.JobTold{Job: id, Then: dataflow.Halt}})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Logf("stop: %v", err)
		}
		ref = a.Savepoint
		return ref != ""
	})
	leading(t, all).View(func(st *coordinator.State) { found = st.Savepoints[ref] })
	return found, ref
}

func cancelled(t *testing.T, all []*box, id coordinator.JobID) (found *coordinator.Snapshot, ref string) {
	t.Helper()
	await(t, "the job to be cancelled", func() bool {
		_, _ = leading(t, all).Propose(t.Context(), coordinator.Command{JobTold: &coordinator.JobTold{Job: id, Cancel: true}})
		return current(t, all, id).Status.Ended()
	})
	found = current(t, all, id).Newest()
	return found, string(id) + "/" + found.Name
}
