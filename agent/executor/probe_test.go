package executor_test

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/worker"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// probeJob reads a broker and writes a file and to another broker.
const probeJob = `name: gate
checkpoint: {interval: 1s}
sources:
  in: {mqtt: {broker: "mqtt://%s", topics: [t]}, format: json, fields: {v: bigint}, event_time: ingestion}
sinks:
  - {id: kept, from: in, file: {path: %s}}
  - {id: told, from: in, mqtt: {broker: "mqtt://%s", topic: x}}
`

// What an agent says of a job that may come: each thing that it is connected with can be
// in the way, and nothing is left behind.
func TestProbe(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	yes, no := open.Addr().String(), sensortest.FreeAddr(t)
	all := []dataflow.OperatorID{"in"}
	for _, c := range []struct {
		name, in, file, out string
		sessions            []dataflow.OperatorID
		elsewhere           bool // the job's subtasks are
		overwrite, known    bool
		want                string // empty: nothing is in the way
	}{
		{"all is there", yes, "new/deep/out.jsonl", yes, all, false, false, false, ""},
		{"no broker of the source", no, "out.jsonl", yes, all, false, false, false, `source "in": mqtt: cannot reach`},
		{"whose session stays", no, "out.jsonl", yes, nil, false, false, false, ""},
		{"no broker of the sink", yes, "out.jsonl", no, all, false, false, false, `sink "told": mqtt: cannot reach`},
		{"at another agent", no, "full.jsonl", no, all, true, false, false, ""},
		{"a file is there", yes, "full.jsonl", yes, all, false, false, false, `sink "kept": file sink: full.jsonl already holds 5 bytes`},
		{"and may be overwritten", yes, "full.jsonl", yes, all, false, true, false, ""},
		{"and is the job's own", yes, "full.jsonl", yes, all, false, false, true, ""},
		{"a folder in its place", yes, "folder.csv", yes, all, false, false, false, "is a folder"},
		{"a file in place of its folder", yes, "full.jsonl/out.jsonl", yes, all, false, false, false, "not a directory"},
		{"a job that cannot be read", yes, "{", yes, all, false, false, false, "gate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			state, err := durable.Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer state.Close()
			said := make(chan coordinator.Probed, 1)
			tr := simnet.New().New("a", "home")
			defer tr.Close()
			x, err := executor.New(executor.Options{
				Node: "a", Site: "home", Dir: dir, State: state, Transport: tr, Events: func(worker.AttemptEvent) {}, Tell: func(string) {},
				Probed: func(p coordinator.Probed) { said <- p },
				Present: func(coordinator.JobID) *coordinator.Job {
					if !c.known {
						return nil
					}
					return &coordinator.Job{Sinks: []coordinator.SinkCommit{{Operator: "kept", Node: "a", Target: "a:full.jsonl", Length: 5}}}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			out := filepath.Join(dir, "out")
			if err = os.WriteFile(filepath.Join(out, "full.jsonl"), []byte("rows\n"), 0o644); err == nil {
				err = os.Mkdir(filepath.Join(out, "folder.csv"), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			node := at("in", 0, "a")
			if c.elsewhere {
				node.Node = "b"
			}
			x.Do(worker.Effect{Probe: &coordinator.Probe{
				Order: 3, Move: "m4-b", Epoch: 2, Places: []coordinator.Place{node}, Sessions: c.sessions,
				Job: coordinator.MovingJob{ID: "j7-b", Name: "gate", Spec: fmt.Appendf(nil, probeJob, c.in, c.file, c.out), Overwrite: c.overwrite},
			}})
			p := <-said
			if p.Order != 3 || p.Move != "m4-b" || (p.Why == "") != (c.want == "") || !strings.Contains(p.Why, c.want) {
				t.Errorf("it says %+v; want %q", p, c.want)
			}
			if after := tree(t, dir); after != before {
				t.Errorf("it left\n%s\nbefore\n%s", after, before)
			}
		})
	}
}

// A job that would not take its state as it is with the settings of a move hears so before
// it goes.
func TestProbeOfState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := fmt.Sprintf(sumsJob, sumsEver, "out.jsonl")
		s := newSite(t, spec, "a", "b")
		if f := s.deploy(at("in", 0, "a"), at("sums", 0, "a"), at("sums", 1, "a")); f != nil {
			t.Fatal(f.Why)
		}
		time.Sleep(600 * time.Millisecond)
		snap := s.trigger(true)
		for set, want := range map[string]string{"": "", "steps.sums.key_by=[seq]": `operator "sums"`} {
			p := coordinator.Probe{
				Order: 1, Places: []coordinator.Place{at("in", 0, "b"), at("sums", 0, "b"), at("sums", 1, "b")}, From: snap,
				Job: coordinator.MovingJob{ID: s.job.ID, Name: s.job.Name, Spec: s.job.Spec},
			}
			if set != "" {
				p.Job.Sets = []string{set}
			}
			s.agents["b"].x.Do(worker.Effect{Probe: &p})
			if said := <-s.probed; (said.Why == "") != (want == "") || !strings.Contains(said.Why, want) {
				t.Errorf("with %q it says %q; want %q", set, said.Why, want)
			}
		}
		s.closeAll()
	})
}

// tree is all that there is in a folder.
func tree(t *testing.T, dir string) string {
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			path += fmt.Sprint(" ", info.Size())
		}
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}
