package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// siteSample is the folder of the sample of a site; from the repository's root,
// as are the paths in its files.
const siteSample = "configs/site"

// sampleAgents are the sample's configurations of agents.
func sampleAgents(t *testing.T) (all []config.Config) {
	t.Helper()
	for _, name := range []string{"n1", "n2", "n3"} {
		c, err := config.Load(filepath.Join(siteSample, name+".yaml"))
		if err == nil {
			err = c.Check()
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Name != name {
			t.Errorf("%s.yaml is of %q", name, c.Name)
		}
		all = append(all, c)
	}
	return all
}

// TestSiteSample: the three do not get in each other's way, those that join name
// the founder, the job passes, and all that the README has them type is there.
func TestSiteSample(t *testing.T) {
	t.Chdir("../..")
	taken := make(map[string]string)
	all := sampleAgents(t)
	for _, c := range all {
		for _, addr := range []string{c.Bind, c.GossipBind, c.HTTP.Bind, c.DataDir} {
			if was, there := taken[addr]; there {
				t.Errorf("%s has %s, which is %s's", c.Name, addr, was)
			}
			taken[addr] = c.Name
		}
		if c.Site != all[0].Site {
			t.Errorf("%s is of site %s", c.Name, c.Site)
		}
		if c.Name != "n1" && !slices.Contains(c.Join, all[0].Bind) {
			t.Errorf("%s joins %v, and n1 is at %s", c.Name, c.Join, all[0].Bind)
		}
	}
	r := tidemark(t, "", "job", "check", siteSample+"/machines.yaml")
	r.want(t, exitDone)
	if r.err != "" {
		t.Errorf("check says: %s", r.err)
	}
	text, err := os.ReadFile(siteSample + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files := regexp.MustCompile(`configs/site/[a-z0-9.-]+[a-z0-9]`).FindAllString(string(text), -1)
	if len(files) == 0 {
		t.Error("the README names no file")
	}
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Errorf("the README: %v", err)
		}
	}
}

// TestSiteSampleRuns founds the sample's site, at other ports and in other
// folders, and runs its job, shortened: the three together have the rows that the
// job has in one process.
func TestSiteSampleRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Chdir("../..")
	data := t.TempDir()
	all := sampleAgents(t)
	made := tidemark(t, "", "init", "--data-dir", filepath.Join(data, "n1"), "--name", "n1", "--site", all[0].Site, "--output", "json")
	made.want(t, exitDone)
	var founding struct{ Token string }
	if err := json.Unmarshal([]byte(made.out), &founding); err != nil {
		t.Fatal(err)
	}
	founder := ""
	for i, c := range all {
		c.DataDir, c.Bind, c.GossipBind, c.WANBind, c.HTTP.Bind = filepath.Join(data, c.Name), freePorts(t), "", "", "127.0.0.1:0"
		if i > 0 {
			c.Join, c.Token = []string{founder}, founding.Token
		}
		n := startSample(t, c)
		if i == 0 {
			founder = c.Bind
			t.Setenv(addrVariable, "http://"+n.HTTP())
		}
	}

	short := []string{"--set", "sources.readings.generate.rate=20000", "--set", "sources.readings.generate.rows=40000",
		"--set", "steps.per_machine.window={tumbling: 500ms}"}
	alone := filepath.Join(data, "alone.jsonl")
	tidemark(t, "", append([]string{"run", siteSample + "/machines.yaml", "--set", "sinks.out.file.path=" + alone}, short...)...).want(t, exitDone)
	want := sampleRows(t, alone)
	if len(want) < 400 {
		t.Fatalf("only %d rows in one process", len(want))
	}
	submitted := tidemark(t, "", append([]string{"job", "submit", siteSample + "/machines.yaml"}, short...)...)
	submitted.want(t, exitDone)
	metricsAreDocumented(t)
	tidemark(t, "", "job", "watch", strings.TrimSpace(submitted.out)).want(t, exitDone)
	files, err := filepath.Glob(filepath.Join(data, "n*", "out", "machines.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no file of the sink: %v", err)
	}
	if got := sampleRows(t, files...); !slices.Equal(got, want) {
		t.Errorf("%d rows on the site, %d in one process:\n%v\n%v", len(got), len(want), got, want)
	}
}

// metricsAreDocumented asks the agent for its numbers: the page has each name.
func metricsAreDocumented(t *testing.T) {
	t.Helper()
	page, err := os.ReadFile("docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.Get(os.Getenv(addrVariable) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^# TYPE (tidemark_\w+) `).FindAllStringSubmatch(string(text), -1)
	if len(names) == 0 {
		t.Errorf("no metric of its own:\n%s", text)
	}
	for _, n := range names {
		if !strings.Contains(string(page), "`"+n[1]+"`") {
			t.Errorf("docs/METRICS.md does not have %s", n[1])
		}
	}
}

// startSample starts an agent; it ends with the test.
func startSample(t *testing.T, c config.Config) *node.Node {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n, err := node.Start(ctx, node.Options{Config: c, Version: "test", Level: coordinator.Level, Secrets: machineSecrets()})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := n.Wait(); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	})
	return n
}

// sampleRows are the rows of all files, sorted, without the mean: how its sum is
// rounded depends on the order in which rows came.
func sampleRows(t *testing.T, files ...string) (rows []string) {
	t.Helper()
	for _, f := range files {
		for _, l := range linesOf(t, f) {
			var r struct {
				Key         string
				WindowStart string `json:"window_start"`
				N           int64
				First, Last int64
			}
			if err := json.Unmarshal([]byte(l), &r); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, fmt.Sprintf("%+v", r))
		}
	}
	slices.Sort(rows)
	return rows
}

// freePorts is an address of loopback that is free for QUIC, and the two after it
// for gossip. For why so low see sensortest.FreeAddr.
func freePorts(t *testing.T) string {
	t.Helper()
	free := func(at string) bool {
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			return false
		}
		tcp, err := net.Listen("tcp", at)
		if err == nil {
			_ = tcp.Close()
		}
		_ = udp.Close()
		return err == nil
	}
	for range 1000 {
		quic, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(8000)))
		if err != nil {
			continue
		}
		addr := quic.LocalAddr().String()
		ok := free(config.GossipOf(addr)) && free(config.WANOf(addr))
		_ = quic.Close()
		if ok {
			return addr
		}
	}
	t.Fatal("no three free ports side by side")
	return ""
}
