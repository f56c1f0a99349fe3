package node_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// client asks a box as a user does.
func (b *box) client(t *testing.T) *api.Client {
	t.Helper()
	c, err := api.NewClient("http://"+b.HTTP(), "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask asks the leader through its API. A client waits 15 s for a leader, and says then
// that nothing was done, or that it does not know: whoever leads later is asked
// again for what is done once however often it is asked for.
func ask[T any](t *testing.T, all []*box, f func(*api.Client) (T, error)) (out T, err error) {
	t.Helper()
	for range 8 {
		out, err = f(leading(t, all).client(t))
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
			break
		}
		t.Log(err)
	}
	return out, err
}

// run submits a job and waits until it runs.
func run(t *testing.T, all []*box, s api.Submission) coordinator.JobID {
	t.Helper()
	s.Request = rand.Text()
	done, err := ask(t, all, func(c *api.Client) (api.Submitted, error) { return c.Submit(t.Context(), s) })
	if err != nil {
		t.Fatal(err)
	}
	id := coordinator.JobID(done.ID)
	await(t, "job "+done.ID+" to run", func() bool { return current(t, all, id).Status == coordinator.Running })
	return id
}

// stop stops a job with a savepoint. Its session is closed when this returns. One that
// begins again at that moment would be stopped without one.
func stop(t *testing.T, all []*box, id coordinator.JobID) string {
	t.Helper()
	await(t, "job "+string(id)+" to run", func() bool { return current(t, all, id).Status == coordinator.Running })
	done, err := ask(t, all, func(c *api.Client) (api.Savepointed, error) { return c.Stop(t.Context(), string(id), false) })
	if err != nil {
		t.Fatal(err)
	}
	return done.Savepoint
}

// TestUpgrade: a job with a source of its own is stopped, messages come while none
// runs, and new versions of it, with another parallelism, go on from its
// savepoints: with the same feed, each message counted once. Then it goes back to
// the first savepoint, in whose log all messages behind it must still be.
func TestUpgrade(t *testing.T) {
	b, err := broker.Start(broker.Options{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	all := site(t, 3)
	spec := fmt.Sprintf(countsJob, b.Addr())
	p := newPublisher(t, b.Addr())
	first := run(t, all, api.Submission{Spec: spec})
	feed := string(first) + ".readings"
	await(t, "the feed to be subscribed", func() bool { return b.Stats().Subscriptions > 0 }) // from here on the session holds what comes
	p.publish(300)

	next := strings.ReplaceAll(spec, "name: counts", "name: counts-v2")
	await(t, "a checkpoint", func() bool { return current(t, all, first).Newest() != nil })
	_, err = ask(t, all, func(c *api.Client) (api.Submitted, error) {
		return c.Submit(t.Context(), api.Submission{Spec: next, From: string(first)})
	})
	for _, says := range []string{feed, "job stop counts", "feed create"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Fatalf("two jobs are to have one feed, and the answer does not say %q: %v", says, err)
		}
	}
	id := first
	var saved []string
	for round, parallelism := range []int{3, 1, 2} {
		saved = append(saved, stop(t, all, id))
		p.publish(200)
		id = run(t, all, api.Submission{Spec: next, Set: []string{fmt.Sprintf("parallelism=%d", parallelism)}, From: saved[round]})
		p.publish(100)
		if f := feedOf(t, all, feed); f.Job != id {
			t.Fatalf("round %d: feed %s is of job %s, and %s runs", round, feed, f.Job, id)
		}
	}
	await(t, "everything to come out", func() bool { return bytes.Count(out(t, all, "raw.jsonl"), []byte("\n")) >= p.next })
	stop(t, all, id)
	compare(t, all, p.next)

	for _, x := range all { // what ended jobs left is the live one's: nobody cuts it back
		x.end()
		x.start("", "")
		await(t, "agent "+x.name+" to be ready", func() bool { return x.Health().Ready })
	}
	forgotten := false
	if _, err := ask(t, all, func(c *api.Client) (struct{}, error) {
		err := c.Forget(t.Context(), string(first))
		var p *api.Problem
		if errors.As(err, &p) && p.Status == http.StatusNotFound && forgotten {
			err = nil // the time before did it
		}
		forgotten = true
		return struct{}{}, err
	}); err != nil {
		t.Fatal(err)
	}
	again := strings.NewReplacer("counts.jsonl", "again.jsonl", "raw.jsonl", "raw-again.jsonl").Replace(next)
	id = run(t, all, api.Submission{Spec: again, From: saved[0]})
	await(t, "what came after the first savepoint", func() bool {
		return bytes.Contains(out(t, all, "raw-again.jsonl"), fmt.Appendf(nil, `"id":%d,`, p.next-1))
	})
	stop(t, all, id)
	came := make(map[string]int)
	for l := range strings.Lines(string(out(t, all, "raw-again.jsonl"))) {
		came[l]++
	}
	if len(came) < p.next-300 || len(came) > p.next {
		t.Errorf("%d rows came again, and %d messages came after the savepoint", len(came), p.next-300)
	}
	for row, n := range came {
		if n > 1 {
			t.Errorf("%d times: %s", n, row)
		}
	}
	compare(t, all, p.next)
}

func feedOf(t *testing.T, all []*box, name string) (f *coordinator.Feed) {
	t.Helper()
	leading(t, all).View(func(st *coordinator.State) { f = st.Feeds[name] })
	if f == nil {
		t.Fatalf("feed %s is not there", name)
	}
	return f
}
