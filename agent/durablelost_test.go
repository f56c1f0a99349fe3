package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// A job whose feed's log is gone is refused before anything is taken from the
// broker. A new log would number what arrives from the beginning, and once it is
// as long as the old one was, all of that would be passed over in silence.
func TestALostLogIsNotReplacedByANewOne(t *testing.T) {
	b, err := broker.Start(broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	dir := t.TempDir()
	p := newPublished(t, b.Addr())
	f := &folder{t: t, dir: filepath.Join(dir, "state")}
	text := fmt.Sprintf(feedJob, "lost", fmt.Sprintf(`mqtt: {broker: "mqtt://%s", topics: [t/+], qos: 1}`, b.Addr()), filepath.Join(dir, "out.jsonl"))
	stop := func(l *agent.Local, _ func()) { l.Stop() }
	if o, err := f.run(text, 20, "", func() { p.send(20) }, nil, stop); err != nil || o.Status != coordinator.Stopped {
		t.Fatalf("%+v, %v\n%s", o, err, f.said.String())
	}
	feeds := filepath.Join(f.dir, "feeds")
	if err := os.RemoveAll(feeds); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o, err := f.run(text, 1, "", func() { t.Error("a session was opened") }, nil, stop)
		if err == nil || !strings.Contains(err.Error(), "put the log back") || o.Status != coordinator.Failed {
			t.Errorf("%+v, %v\n%s", o, err, f.said.String())
		}
	}
	if logs, _ := filepath.Glob(filepath.Join(feeds, "*", "*.log")); len(logs) > 0 {
		t.Errorf("there is a new log: %v", logs)
	}
}
