package job_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/eventtime"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/decode"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Every broken job has a file beside it with all that check says about it.
// Lines "# set: K=V" at the top are overrides.
func TestBrokenJobs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "broken", "*.yaml"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var opt job.Options
			for line := range strings.Lines(string(text)) {
				if set, ok := strings.CutPrefix(line, "# set: "); ok {
					opt.Set = append(opt.Set, strings.TrimSpace(set))
				}
			}
			j, err := job.Load(name+".yaml", text, opt)
			if err == nil || j != nil {
				t.Fatal("the job passed the check")
			}
			if !errors.Is(err, job.ErrInvalid) {
				t.Errorf("the error is no ErrInvalid: %v", err)
			}
			golden(t, filepath.Join("broken", name+".txt"), err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; it is now:\n%s", file, got)
	}
}

func load(t *testing.T, file string, opt job.Options) *job.Job {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	j, err := job.Load(filepath.Base(file), text, opt)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// Every good job has a file beside it with its three graphs and its notices.
func TestGoodJobs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "good", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			golden(t, filepath.Join("good", name+".txt"), explained(t, load(t, file, job.Options{})))
		})
	}
}

func explained(t *testing.T, j *job.Job) string {
	t.Helper()
	var b strings.Builder
	if err := graph.Explain(&b, graph.Expand(graph.Chain(j.Graph, graph.Options{}))); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n")
	for _, n := range j.NotYet {
		kind := "not yet: "
		if n.Fatal {
			kind = "cannot run: "
		}
		b.WriteString(kind + n.String() + "\n")
	}
	for _, n := range j.WithState {
		kind := "acts with --state: "
		if n.Fatal {
			kind = "needs --state: "
		}
		b.WriteString(kind + n.String() + "\n")
	}
	for _, n := range j.Warnings {
		b.WriteString("warning: " + n.String() + "\n")
	}
	return b.String()
}

// The sample jobs of the repository pass the check; what they explain is kept.
func TestSampleJobs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "configs", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\nsources:") {
			continue // an agent's configuration
		}
		found++
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			j := load(t, file, job.Options{})
			if len(j.NotYet)+len(j.Warnings) > 0 {
				t.Errorf("a sample job has notices: %v %v", j.NotYet, j.Warnings)
			}
			golden(t, filepath.Join("configs", name+".txt"), explained(t, j))
		})
	}
	if found < 4 {
		t.Errorf("%d sample jobs, want wordcount, cold-chain, quakes and silent-stations at least", found)
	}
}

func TestE45_SampleWordCount(t *testing.T) {
	file := filepath.Join("..", "..", "configs", "wordcount.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines++
		}
	}
	if lines > 10 {
		t.Errorf("WordCount has %d lines, at most 10 were promised", lines)
	}
	jg := graph.Chain(load(t, file, job.Options{}).Graph, graph.Options{})
	if jg.Subtasks() != 5 || jg.Slots() != 2 || jg.SlotsUnshared() != 5 {
		t.Errorf("%d tasks, %d slots with sharing, %d without; want 5, 2, 5", jg.Subtasks(), jg.Slots(), jg.SlotsUnshared())
	}
	// All but the sink at parallelism 6: 13 tasks in 6 slots.
	jg = graph.Chain(load(t, file, job.Options{Parallelism: 6}).Graph, graph.Options{})
	if jg.Subtasks() != 13 || jg.Slots() != 6 {
		t.Errorf("%d tasks in %d slots, want 13 in 6", jg.Subtasks(), jg.Slots())
	}
}

// What connectors are built from, field by field.
func TestSpecs(t *testing.T) {
	j := load(t, filepath.Join("testdata", "good", "contract.yaml"), job.Options{})
	s := j.Sources[0]
	if got, want := s.MQTT.Broker, "mqtts://broker.plant:8883"; got != want {
		t.Errorf("broker %q", got)
	}
	if s.Time.Config != (eventtime.Config{Strategy: eventtime.Punctuated, PerDevice: true, Per: "topic level 1 string", IdleAfter: 30 * dataflow.Second, MaxAhead: dataflow.Minute}) {
		t.Errorf("time %+v", s.Time.Config)
	}
	if s.Time.EventAt != 1 || s.Time.DeviceAt != 0 || s.Time.Arrival != -1 || s.Time.When.Source() != "kind = 'flush'" || s.Time.At.Source() != "ts" {
		t.Errorf("time %+v", s.Time)
	}
	wantFields := []decode.Field{
		{Name: "sensor", Type: batch.String, Topic: 1},
		{Name: "ts", Type: batch.Timestamp, Path: []string{"ts"}, Topic: -1},
		{Name: "temp", Type: batch.Double, Path: []string{"data", "temp"}, Topic: -1},
		{Name: "kind", Type: batch.String, Path: []string{"kind"}, Topic: -1},
	}
	if !reflect.DeepEqual(s.Decode.Fields, wantFields) {
		t.Errorf("fields %+v", s.Decode.Fields)
	}
	if j.Checkpoint != (job.Checkpoint{Given: true, Interval: 10 * dataflow.Second, Timeout: dataflow.Minute, TolerableFailures: 3}) {
		t.Errorf("checkpoint %+v", j.Checkpoint)
	}
	if j.Replicas != 2 || j.WhenShort != job.Block || !reflect.DeepEqual(j.ReplicateTo, []string{"depot"}) {
		t.Errorf("replicas %d, %v, %v", j.Replicas, j.WhenShort, j.ReplicateTo)
	}
	m := j.Sinks[0].MQTT
	if m.QoS != 1 || !reflect.DeepEqual(m.Topic.Parts, []job.TemplatePart{{Literal: "alerts/", Column: -1}, {Column: 0}}) {
		t.Errorf("mqtt sink %+v", m)
	}
	if f := j.Sinks[1].File; f.Path != "out/per_sensor.jsonl" || f.Format != job.JSONLines || f.Timestamps != job.TimesMillis {
		t.Errorf("file sink %+v", f)
	}
	if got := j.Sinks[0].Input.String(); got != "sensor string, window_start timestamp, window_end timestamp, avg_temp double, max_temp double, n bigint" {
		t.Errorf("the sink's columns are %s", got)
	}
	if got := j.Graph.Node("per_sensor").Kind; got != graph.Upsert {
		t.Errorf("a window that may fire again makes a stream of kind %v", got)
	}
}

// What names the devices is where the column comes from: another name for it is
// nothing new, another level of the topic under the same name is.
func TestDevicesOf(t *testing.T) {
	const text = `name: devices
sources:
  in:
    mqtt: {broker: "mqtt://h", topics: ["plant/+/+"]}
    format: json
    fields: {device: {type: string, topic: 1}, at: timestamp}
    event_time: at
    watermark: {ascending: true, per: device}
sinks:
  - {id: out, from: in, file: {path: out.csv}}
`
	per := func(old, with string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "job.yaml")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, old, with)), 0o600); err != nil {
			t.Fatal(err)
		}
		return load(t, file, job.Options{}).Sources[0].Time.Config.Per
	}
	for _, c := range []struct{ old, with, want string }{
		{"device", "unit", "topic level 1 string"},
		{"topic: 1", "topic: 2", "topic level 2 string"},
		{"topic: 1", "path: id.no", "id.no string"},
		{"{type: string, topic: 1}", "string", "device string"},
		{"{type: string, topic: 1}", "bigint", "device bigint"},
	} {
		if got := per(c.old, c.with); got != c.want {
			t.Errorf("%s instead of %s: %q, want %q", c.with, c.old, got, c.want)
		}
	}
}

func TestSpecsOfForms(t *testing.T) {
	j := load(t, filepath.Join("testdata", "good", "forms.yaml"), job.Options{})
	if g := j.Sources[0].Generate; *g != (job.GenerateSource{Rate: 0, Keys: 5, Rows: 1000, Seed: 7, Disorder: 2 * dataflow.Second}) {
		t.Errorf("generate %+v", g)
	}
	csv := j.Sources[1]
	if csv.Time.Arrival != 1 || !csv.Time.Config.MarkArrivals || csv.Decode.Header || strings.Join(csv.Decode.Columns, " ") != "k t v" {
		t.Errorf("csv %+v %+v", csv.Time, csv.Decode)
	}
	if j.Sources[0].Time.Config.MarkArrivals {
		t.Error("a source that no processing-time window reads marks every arrival")
	}
	lines := j.Sources[2]
	if lines.Time.Config.Strategy != eventtime.Ingestion || lines.Time.EventAt != -1 || lines.Columns.String() != "line string" {
		t.Errorf("lines %+v", lines.Time)
	}
	arrays := j.Sources[3]
	if got := fmt.Sprint(arrays.Decode.Fields[1].Path, arrays.Decode.Fields[3].Path); got != "[readings [] at] [a.b c]" {
		t.Errorf("paths %s", got)
	}
	if arrays.MQTT.Retained != job.RetainedNever || arrays.MQTT.QoS != 2 || arrays.MQTT.Lanes != 4 || arrays.MQTT.TLS.ServerName != "n" {
		t.Errorf("mqtt %+v", arrays.MQTT)
	}
	if n := j.Graph.Node("all"); n.Parallelism != 1 {
		t.Errorf("a window without a key has parallelism %d", n.Parallelism)
	}
	if x := j.Graph.Node("spread").Inputs[0].Exchange; x != graph.Rescale {
		t.Errorf("spread is dealt by %v", x)
	}
	if e := j.Graph.Node("dealt").Inputs[0]; e.Exchange != graph.Hash || len(e.Keys) != 1 {
		t.Errorf("dealt is dealt by %v %v", e.Exchange, e.Keys)
	}
	sink := j.Sinks[0]
	if sink.File.Path != "out/sum5.csv" || sink.File.Format != job.CSVRows {
		t.Errorf("file sink %+v", sink.File)
	}
	if k := j.Graph.Node("updates").Kind; k != graph.Upsert {
		t.Errorf("a filter of updates is of kind %v", k)
	}
	if k := j.Graph.Node("words").SlotGroup; k != "text" {
		t.Errorf("slot group %q", k)
	}
}

func TestOverrides(t *testing.T) {
	j := load(t, filepath.Join("testdata", "good", "contract.yaml"), job.Options{
		Parallelism: 5,
		Set: []string{
			"sources.readings.mqtt.broker=mqtt://10.0.0.2:1883",
			"sources.readings.mqtt.topics=[a/b, c/d]",
			"steps.hot.where=temp > 9.5",
			"steps.1.window.tumbling=1m",
			"sinks.archive.file={path: out/x.csv}",
			"checkpoint.interval=3s",
		},
	})
	if m := j.Sources[0].MQTT; m.Broker != "mqtt://10.0.0.2:1883" || len(m.Topics) != 2 {
		t.Errorf("source %+v", m)
	}
	if d := j.Graph.Node("hot").Describe; d != "where temp > 9.5" {
		t.Errorf("hot is %q", d)
	}
	if d := j.Graph.Node("per_sensor").Describe; !strings.HasPrefix(d, "tumbling 1m") {
		t.Errorf("per_sensor is %q", d)
	}
	if f := j.Sinks[1].File; f.Path != "out/x.csv" || f.Format != job.CSVRows {
		t.Errorf("archive is %+v", f)
	}
	if p := j.Graph.Node("hot").Parallelism; p != 5 {
		t.Errorf("parallelism %d, want the override's 5", p)
	}
	if j.Checkpoint.Interval != 3*dataflow.Second {
		t.Errorf("checkpoint %+v", j.Checkpoint)
	}
}

// What a shell leaves of "-" and "*.csv" is text, though YAML would make a list
// and an alias of it.
func TestOverridesThatYAMLWouldNotTakeAsText(t *testing.T) {
	const text = "name: j\nsources: {in: {file: {path: a.txt}, format: text}}\nsinks: [{id: out, from: in, stdout: {}}]\n"
	for _, path := range []string{"-", "*.csv", "&x", "!x", "%x", "@x", "`x", "- x"} {
		j, err := job.Load("j.yaml", []byte(text), job.Options{Set: []string{"sources.in.file.path=" + path}})
		if path == "- x" {
			if err == nil || !strings.Contains(err.Error(), "must be text, not a list") {
				t.Errorf("%q: %v", path, err)
			}
			continue
		}
		if err != nil || j.Sources[0].File.Path != path {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestSecretsStaySecret(t *testing.T) {
	const text = `name: j
sources:
  a: {mqtt: {broker: "mqtt://h", topics: [a], username: plain-user, password: "${env:PW}"}, format: text}
  b: {mqtt: {broker: "mqtt://h", topics: [a], username: "${file:/no/such}", password: hunter2}, format: text}
sinks:
  - {id: s, from: a, blackhole: {}}
  - {id: t, from: b, blackhole: {}}
`
	j, err := job.Load("j.yaml", []byte(text), job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s", *j.Sources[0].MQTT, *j.Sources[1].MQTT, *j.Sources[1].MQTT, j.Sources[1].MQTT.Password)
	encoded, err := json.Marshal(j.Sources[1].MQTT)
	if err != nil {
		t.Fatal(err)
	}
	shown += string(encoded) + explained(t, j)
	if strings.Contains(shown, "hunter2") || strings.Contains(shown, "plain-user") {
		t.Errorf("a secret is shown: %s", shown)
	}
	if !strings.Contains(shown, "${env:PW}") {
		t.Errorf("a reference is hidden: %s", shown)
	}
	r := job.Resolver{
		Env:  func(name string) (string, error) { return "value of " + name, nil },
		File: func(string) ([]byte, error) { return []byte("from file\r\n"), nil },
	}
	for want, s := range map[string]job.Secret{"value of PW": j.Sources[0].MQTT.Password, "from file": j.Sources[1].MQTT.Username, "hunter2": j.Sources[1].MQTT.Password, "": {}} {
		if got, err := s.Resolve(r); got != want || err != nil {
			t.Errorf("%v resolves to %q, %v; want %q", s, got, err, want)
		}
	}
	if _, err := j.Sources[0].MQTT.Password.Resolve(job.Resolver{}); err == nil {
		t.Error("a reference resolves without a resolver")
	}
	missing := errors.New("the variable is not set")
	r.Env = func(string) (string, error) { return "", missing }
	_, err = job.Load("j.yaml", []byte(text), job.Options{Resolver: &r})
	if got, want := fmt.Sprint(err), "j.yaml:3: sources.a.mqtt.password: ${env:PW}: the variable is not set"; got != want {
		t.Errorf("the check says %q, want %q", got, want)
	}
}

func TestTooMuch(t *testing.T) {
	const head = "name: j\nsources: {in: {generate: {}}}\nsinks: [{id: out, from: in, blackhole: {}}]\nsteps:\n"
	for text, want := range map[string]string{
		"name: " + strings.Repeat("x", 1<<20):                                           "at most 1048576",
		"name: " + strings.Repeat("[", 500_000):                                         "not YAML",
		head + strings.Repeat("  - {}\n", 1001):                                         "a list of 1001 entries, at most 1000",
		head + strings.Repeat("  - {id: a, from: x, where: true}\n", 1000):              "more than 199 errors",
		head + "  - {id: a, from: in, where: \"" + strings.Repeat("(", 500_000) + "\"}": "steps.a.where",
	} {
		_, err := job.Load("j.yaml", []byte(text), job.Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s…: the error is %.200v, want %q in it", text, err, want)
		}
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]dataflow.Duration{
		"250us": 250, "10ms": 10_000, "5s": 5_000_000, "2m": 120_000_000, "1h": 3_600_000_000, "7d": 7 * dataflow.Day,
		"1h30m": 90 * dataflow.Minute, "-16m": -16 * dataflow.Minute, "0": 0, "0s": 0,
	} {
		if got, err := job.ParseDuration(text); got != want || err != nil {
			t.Errorf("%s is %d µs, %v; want %d", text, got, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := dataflow.Duration(rapid.Int64Range(-1<<62, 1<<62).Draw(t, "d"))
		if got, err := job.ParseDuration(job.FormatDuration(d)); got != d || err != nil {
			t.Fatalf("%d is written %s and read %d, %v", d, job.FormatDuration(d), got, err)
		}
	})
}

// Load answers any text with a job or with errors that have a file, never with
// a panic.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/broken/*.yaml", "testdata/good/*.yaml", "../../configs/*.yaml"} {
		files, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, "steps.hot.where=temp > 1")
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, set string) {
		j, err := job.Load("j.yaml", text, job.Options{Set: []string{set}})
		if (j == nil) != (err != nil) {
			t.Fatalf("job %v, error %v", j, err)
		}
		var errs job.Errors
		if err != nil && (!errors.As(err, &errs) || len(errs) == 0) {
			t.Fatalf("the error is a %T", err)
		}
		for _, e := range errs {
			if e.File == "" || e.Msg == "" {
				t.Fatalf("an error without file or message: %#v", e)
			}
			if strings.Contains(e.Msg, "graph: ") {
				t.Fatalf("the graph found what the check should have: %v", e)
			}
		}
		if j != nil {
			_ = graph.Explain(io.Discard, graph.Expand(graph.Chain(j.Graph, graph.Options{})))
		}
	})
}
