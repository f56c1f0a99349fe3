package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

const feedJob = `name: %s
parallelism: 2
checkpoint: {interval: 5ms}
restart: {strategy: none}
sources:
  in:
    %s
    format: json
    fields: {id: bigint}
    event_time: ingestion
sinks:
  - {id: out, from: in, file: {path: %q}}
`

// published is a client that numbers its messages.
type published struct {
	paho.Client
	t *testing.T
	n int
}

func newPublished(t *testing.T, addr string) *published {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("publisher").SetAutoReconnect(false))
	if k := c.Connect(); k.Wait() && k.Error() != nil {
		t.Fatal(k.Error())
	}
	t.Cleanup(func() { c.Disconnect(1000) })
	return &published{Client: c, t: t}
}

func (p *published) send(n int) {
	p.t.Helper()
	for range n {
		k := p.Publish(fmt.Sprintf("t/%d", p.n%5), 1, false, fmt.Sprintf(`{"id":%d}`, p.n))
		if k.Wait() && k.Error() != nil {
			p.t.Fatal(k.Error())
		}
		p.n++
	}
}

// folder runs jobs on a state folder on the real disk, as feeds need.
type folder struct {
	t    *testing.T
	dir  string
	said lockedBuffer
}

// run runs a job until its output has as many rows as wanted, and ends it then.
func (f *folder) run(text string, rows int, out string, meanwhile func(), change func(*agent.LocalOptions), end func(l *agent.Local, crash func())) (agent.Outcome, error) {
	f.t.Helper()
	tell := func(line string) { fmt.Fprintln(&f.said, line) }
	state, err := agent.OpenState(f.dir, agent.StateOptions{Events: tell})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var local *agent.Local
	var once sync.Once
	opt := agent.LocalOptions{State: state, Events: tell, Checkpoints: func(durable.Completed) {
		if rows > 0 && local.Totals().Out >= int64(rows) {
			once.Do(func() { end(local, func() { cancel(errCrash) }) })
		}
	}}
	if change != nil {
		change(&opt)
	}
	if local, err = agent.NewLocal(load(f.t, text, setting{}), opt); err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // the test waits for it
		defer close(done)
		select {
		case <-local.Heard():
			meanwhile()
		case <-ctx.Done():
		}
	}()
	err = local.Run(ctx)
	cancel(nil)
	<-done
	if cerr := state.Close(); cerr != nil {
		f.t.Error(cerr)
	}
	return local.Outcome(), err
}

// Messages that are published while a job runs, crashes and is away are in its
// output once each. A second job reads the same feed from its beginning, and a
// third begins at the first one's savepoint.
func TestDurableFeeds(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	p := newPublished(t, b.Addr())
	f := &folder{t: t, dir: filepath.Join(dir, "state")}
	out := filepath.Join(dir, "first.jsonl")
	text := fmt.Sprintf(feedJob, "first", fmt.Sprintf(`mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1, lanes: 3}`, b.Addr()), out)
	none := func() {}
	crash := func(_ *agent.Local, crash func()) { crash() }
	for range 3 {
		if _, err := f.run(text, 20, out, func() { p.send(60) }, nil, crash); !errors.Is(err, errCrash) {
			t.Fatalf("%v\n%s", err, &f.said)
		}
		p.send(15) // the broker keeps them
	}
	o, err := f.run(text, 1, out, none, nil, func(l *agent.Local, _ func()) { go l.Stop() })
	if err != nil || o.Status != coordinator.Stopped {
		t.Fatalf("%+v, %v\n%s", o, err, &f.said)
	}
	p.send(10)
	// The rest is there when the last of it is: a lane is in order.
	want := p.n
	all := func(l *agent.Local, _ func()) { go l.Stop() }
	before := len(read(t, out))
	if before < want {
		if _, err := f.run(text, want-before, out, none, nil, all); err != nil {
			t.Fatalf("%v\n%s", err, &f.said)
		}
	}
	each(t, out, want, &f.said)

	second := filepath.Join(dir, "second.jsonl")
	if _, err := f.run(fmt.Sprintf(feedJob, "second", "feed: first.in", second), want, second, none, nil, all); err != nil {
		t.Fatalf("%v\n%s", err, &f.said)
	}
	each(t, second, want, &f.said)

	third := filepath.Join(dir, "third.jsonl")
	own := strings.Replace(text, "name: first", "name: third", 1)
	from := func(l *agent.LocalOptions) { l.From = o.Savepoint }
	if _, err := f.run(own, 0, third, none, from, all); err == nil || !strings.Contains(err.Error(), "feed: first.in") {
		t.Errorf("positions of another feed: %v", err)
	}
	if _, err := f.run(fmt.Sprintf(feedJob, "third", "feed: first.in", third), want-before, third, none, from, all); err != nil {
		t.Fatalf("%v\n%s", err, &f.said)
	}
	if got := values(t, third, "id"); len(got) != want-before {
		t.Errorf("from the savepoint %d rows, want the %d after it", len(got), want-before)
	}
}

// A job that is started again keeps in its feed what each of its checkpoints
// needs, since the newest may be found damaged.
func TestFeedKeepsWhatOlderCheckpointsNeed(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	p := newPublished(t, b.Addr())
	f := &folder{t: t, dir: filepath.Join(dir, "state")}
	out := filepath.Join(dir, "out.jsonl")
	text := fmt.Sprintf(feedJob, "job", fmt.Sprintf(`mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}`, b.Addr()), out)
	crash := func(_ *agent.Local, crash func()) { crash() }
	completed, seen, newest := make(chan struct{}, 3), 0, int64(0)
	three := func(o *agent.LocalOptions) { // checkpoints, each further on than the one before
		passed := o.Checkpoints
		o.Checkpoints = func(c durable.Completed) {
			m, err := o.State.Store().Manifest("job/" + c.Name)
			if err != nil {
				t.Error(err)
			}
			at := newest
			for offset := range offsets(m) {
				newest = max(newest, offset)
			}
			if newest == at {
				return // the broker has what was sent, and the job does not yet
			}
			if seen++; seen < 3 {
				completed <- struct{}{}
				return
			}
			passed(c)
		}
	}
	publish := func() {
		p.send(5)
		for range 2 {
			<-completed
			p.send(5)
		}
	}
	if _, err := f.run(text, 1, out, publish, three, crash); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, &f.said)
	}
	view, err := durable.View(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := view.Checkpoints("job")
	if err != nil {
		t.Fatal(err)
	}
	needed := int64(math.MaxInt64)
	for _, e := range kept {
		for offset := range offsets(e.Manifest) {
			needed = min(needed, offset)
		}
	}
	if len(kept) < 2 || needed >= newest {
		t.Fatalf("%d checkpoints, from %d to %d", len(kept), needed, newest)
	}
	var first sync.Once // later ones may let go
	begun := func(o *agent.LocalOptions) {
		passed := o.Checkpoints
		o.Checkpoints = func(c durable.Completed) {
			first.Do(func() {
				text, err := os.ReadFile(filepath.Join(f.dir, "feeds", "job.in", "pins.json"))
				var pins struct{ Pins map[string]map[string]int64 }
				if err = errors.Join(err, json.Unmarshal(text, &pins)); err != nil || pins.Pins["job job"]["0"] > needed {
					t.Errorf("%v; %s; checkpoints need it from %d on", err, text, needed)
				}
			})
			passed(c)
		}
	}
	if _, err := f.run(text, 1, out, func() { p.send(5) }, begun, crash); !errors.Is(err, errCrash) {
		t.Fatalf("%v\n%s", err, &f.said)
	}
}

// offsets are those at which a checkpoint's sources go on.
func offsets(m manifest.Manifest) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for _, o := range m.Operators {
			for _, at := range o.Positions {
				if !yield(at.Offset) {
					return
				}
			}
		}
	}
}

// each checks that the numbers up to n are in a file once each.
func each(t *testing.T, path string, n int, said fmt.Stringer) {
	t.Helper()
	got := values(t, path, "id")
	slices.Sort(got)
	for i := range min(n, len(got)) {
		if got[i] != int64(i) {
			t.Errorf("%s: the %d-th id is %d\n%s", filepath.Base(path), i, got[i], said)
			break
		}
	}
	if len(got) != n {
		t.Errorf("%s: %d ids, want %d", filepath.Base(path), len(got), n)
	}
}

// What a feed's log keeps for a job is let go when the job's folder is gone and
// another job opens the feed; what it keeps for others stays.
func TestADeletedJobHoldsNothing(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	p := newPublished(t, b.Addr())
	f := &folder{t: t, dir: filepath.Join(dir, "state")}
	stop := func(l *agent.Local, _ func()) { go l.Stop() }
	out := func(name string) string { return filepath.Join(dir, name+".jsonl") }
	first := fmt.Sprintf(feedJob, "first", fmt.Sprintf(`mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}`, b.Addr()), out("first"))
	second := fmt.Sprintf(feedJob, "second", "feed: first.in", out("second"))
	third := fmt.Sprintf(feedJob, "third", "feed: first.in", out("third"))
	pins := func() (names []string) {
		info, err := feed.Show(feed.Options{Dir: f.dir}, "first.in")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range info.Pins {
			if strings.HasPrefix(p.Name, "job ") {
				names = append(names, p.Name)
			}
		}
		return names
	}
	for _, name := range []string{first, second} {
		if _, err := f.run(name, 10, "", func() { p.send(20) }, nil, stop); err != nil {
			t.Fatalf("%v\n%s", err, &f.said)
		}
	}
	if got := pins(); !slices.Equal(got, []string{"job first", "job second"}) {
		t.Fatalf("pins %q", got)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "jobs", "second")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(third, 10, "", func() {}, nil, stop); err != nil {
		t.Fatalf("%v\n%s", err, &f.said)
	}
	if got := pins(); !slices.Equal(got, []string{"job first", "job third"}) {
		t.Errorf("after one was deleted: pins %q", got)
	}
}

// A pins.json that was deleted is made anew when a job opens the feed, also with
// what an older savepoint needs, before anything is appended.
func TestLostPinsAreMadeAnew(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	p := newPublished(t, b.Addr())
	f := &folder{t: t, dir: filepath.Join(dir, "state")}
	stop := func(l *agent.Local, _ func()) { go l.Stop() }
	out := func(name string) string { return filepath.Join(dir, name+".jsonl") }
	first := fmt.Sprintf(feedJob, "first", fmt.Sprintf(`mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}`, b.Addr()), out("first"))
	second := fmt.Sprintf(feedJob, "second", "feed: first.in", out("second"))
	file := filepath.Join(f.dir, "feeds", "first.in", "pins.json")
	pins := func() map[string]map[string]int64 {
		text, err := os.ReadFile(file)
		var pins struct{ Pins map[string]map[string]int64 }
		if err = errors.Join(err, json.Unmarshal(text, &pins)); err != nil {
			t.Fatal(err)
		}
		return pins.Pins
	}
	var savepoints []string
	for _, text := range []string{first, second} {
		o, err := f.run(text, 10, "", func() { p.send(20) }, nil, stop)
		if err != nil || o.Savepoint == "" {
			t.Fatalf("%+v, %v\n%s", o, err, &f.said)
		}
		savepoints = append(savepoints, o.Savepoint)
	}
	before := pins()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := f.run(second, 10, "", func() { p.send(20) }, nil, stop); err != nil {
		t.Fatalf("%v\n%s", err, &f.said)
	}
	after := pins()
	// A job's own may stand further on than before: it follows its checkpoints
	// only when one of them is let go.
	if was, is := before["job first"], after["job first"]; len(was) == 0 || len(is) != len(was) || is["0"] < was["0"] {
		t.Errorf("job first: %v, before pins.json was lost %v", is, was)
	}
	for _, name := range []string{"savepoint " + savepoints[0], "savepoint " + savepoints[1]} {
		if fmt.Sprint(after[name]) != fmt.Sprint(before[name]) || before[name] == nil {
			t.Errorf("%s: %v, before pins.json was lost %v", name, after[name], before[name])
		}
	}

	if err := os.WriteFile(file, []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = f.run(second, 10, "", func() {}, nil, stop)
	for _, want := range []string{"pins.json is damaged", "delete it", "pinned anew"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("garbage: %v, want %q", err, want)
		}
	}
}
