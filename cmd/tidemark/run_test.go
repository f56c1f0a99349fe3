package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// counting is a job that counts readings, and what it does with those that do
// not decode.
const counting = `name: counting
sources:
  in:
    file: {path: %q}
    format: json
    fields: {k: string, temp: double, ts: {type: timestamp, unit: ms}}
    event_time: ts
    watermark: {bounded: 1s}
steps:
  - {id: w, from: in, key_by: [k], window: {tumbling: 10s}, select: {n: count(*), hot: max(temp)}}
sinks:
  - {id: out, from: w, file: {path: %q, timestamps: ms}}
  - {id: bad, from: in.rejected, file: {path: %q}}
`

// place is a job in a folder of its own.
type place struct{ dir, job, in, out, bad string }

func newPlace(t *testing.T, input string) place {
	t.Helper()
	p := place{dir: t.TempDir()}
	p.in, p.out, p.bad = filepath.Join(p.dir, "in.jsonl"), filepath.Join(p.dir, "out.jsonl"), filepath.Join(p.dir, "bad.jsonl")
	p.job = filepath.Join(p.dir, "job.yaml")
	for path, text := range map[string]string{p.in: input, p.job: fmt.Sprintf(counting, p.in, p.out, p.bad)} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

const reading = `{"k":"a","temp":9.5,"ts":1000}` + "\n"

const counted = `{"k":"a","window_start":0,"window_end":10000,"n":1,"hot":9.5}`

func TestBrokenJobReportsEverythingAtOnce(t *testing.T) {
	job := file(t, "job.yaml", `name: broken
sources:
  in: {file: {path: in.jsonl}, format: json, fields: {temp: dubble, ts: {type: timestamp, unit: ms}}, event_tme: ts}
steps:
  - {id: hot, from: in, where: tmp > 8}
  - {id: hot, from: nowhere, where: "ts +"}
sinks:
  - {id: out, from: hot, file: {path: out.txt}}
`)
	for _, verb := range [][]string{{"run", job}, {"job", "check", job}} {
		r := tidemark(t, "", verb...)
		r.want(t, exitFailed, job+":3: ", `"event_tme"; did you mean "event_time"?`, `dubble`, `job.yaml:6: `, `nowhere`, `job.yaml:8: `, `out.txt`, " errors")
		if r.out != "" {
			t.Errorf("%v: stdout: %s", verb, r.out)
		}
	}
	r := tidemark(t, "", "job", "check", job, "--output", "json")
	r.want(t, exitFailed)
	for _, l := range textLines(r.err) {
		var e struct {
			File, Key, Message string
			Line               int
		}
		if err := json.Unmarshal([]byte(l), &e); err != nil || e.File != job || e.Line == 0 || e.Key == "" || e.Message == "" {
			t.Errorf("%v: %s", err, l)
		}
	}
}

func TestBrokenYAML(t *testing.T) {
	tidemark(t, "", "run", file(t, "job.yaml", "name: x\nsources: {in: {\n")).want(t, exitFailed, "job.yaml:", "not YAML")
	tidemark(t, "", "run", file(t, "job.yaml", "")).want(t, exitFailed, "the file is empty")
}

func TestUnknownColumnNamesTheNearest(t *testing.T) {
	p := newPlace(t, reading)
	tidemark(t, "", "run", p.job, "--set", "steps.w.select.hot=max(tmep)").want(t, exitFailed, `no column "tmep" at character 5`, `did you mean "temp"?`)
}

func TestWrongUse(t *testing.T) {
	p := newPlace(t, reading)
	for _, c := range []struct {
		args string
		says string
	}{
		{"run " + p.job + " --frobnicate", "unknown flag: --frobnicate"},
		{"run", "JOB.yaml"},
		{"run a.yaml b.yaml", "b.yaml"},
		{"run " + p.job + " --parallelism many", "--parallelism"},
		{"run " + p.job + " --parallelism -1", "at least 1"},
		{"run " + p.job + " --parallelism 0", "at least 1"},
		{"job check " + p.job + " -p 32769", "at most 32768"},
		{"job explain " + p.job + " --dot --output json", "one or the other"},
		{"sensor tap " + p.job + " -n -3", "--number -3"},
		{"sensor simulate --speed NaN", "--speed"},
		{"bench engine --rounds -1", "--rounds -1"},
		{"bench engine --scale NaN", "--scale NaN"},
		{"help runn", `unknown command "tidemark runn"; did you mean "run"?`},
		{"job chek", `did you mean "check"?`},
		{"help job chek", `unknown command "tidemark job chek"; did you mean "check"?`},
		{"run " + p.job + " --batch-rows 5000", "1 to 4096"},
		{"run " + p.job + " --output xml", "table or json"},
		{"runn " + p.job, `unknown command "tidemark runn"; did you mean "run"?`},
	} {
		tidemark(t, "", strings.Fields(c.args)...).want(t, exitUsage, c.says, "--help")
	}
	if _, err := os.Stat(p.out); err == nil {
		t.Error("a wrong call wrote something")
	}
}

// What is wrong with an override is said once, and counted under the job's name.
func TestWrongOverride(t *testing.T) {
	p := newPlace(t, reading)
	r := tidemark(t, "", "run", p.job, "--set", "steps.w.windw=1s")
	r.want(t, exitFailed, `--set steps.w.windw: unknown key "windw"; did you mean "window"?`, "job.yaml: 1 error")
}

func TestMissingJob(t *testing.T) {
	tidemark(t, "", "run", filepath.Join(t.TempDir(), "none.yaml")).want(t, exitFailed, "none.yaml: no such file", "give the path of a job")
}

func TestMissingInput(t *testing.T) {
	p := newPlace(t, reading)
	for input, says := range map[string]string{
		filepath.Join(p.dir, "none.jsonl"): "none.jsonl: no such file or directory; check the path",
		"*.nothing":                        `"*.nothing"`,
		p.dir:                              "is a folder",
	} {
		r := tidemark(t, "", "run", p.job, "--set", "sources.in.file.path="+input)
		r.want(t, exitFailed, `source "in"`, says)
		if strings.Contains(r.err, "rows in") {
			t.Errorf("totals of a job that never began: %s", r.err)
		}
	}
}

func TestUndecodablePayloadsAreCountedAndReadable(t *testing.T) {
	const noTime = `{"k":"a","temp":1}`
	reasons := map[string]string{
		`{"k":"a","temp":"hot","ts":1000}`: "field temp: not a double", "nonsense": "not JSON at byte 0", noTime: "no event time", "\xff\xfe": "not JSON at byte 0",
	}
	p := newPlace(t, reading+`{"k":"a","temp":"hot","ts":1000}`+"\n"+reading+"nonsense\n"+noTime+"\n\xff\xfe\n"+reading)
	for _, n := range []string{"1", "4096"} {
		tidemark(t, "", "run", p.job, "--overwrite", "--batch-rows", n).
			want(t, exitDone, "rows in 7, out 5, late 0, rejected 4 (first: field temp: not a double), markers 0, filtered 0, watermark end of input")
		if got, want := strings.Join(linesOf(t, p.out), ""), strings.Replace(counted, `"n":1`, `"n":3`, 1); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		rows := linesOf(t, p.bad)
		if len(rows) != len(reasons) {
			t.Fatalf("%d rejected rows, want %d: %v", len(rows), len(reasons), rows)
		}
		for _, l := range rows {
			var row struct {
				Payload, Reason string
				Topic           *string
			}
			if err := json.Unmarshal([]byte(l), &row); err != nil {
				t.Fatal(err)
			}
			payload, err := base64.StdEncoding.DecodeString(row.Payload)
			if err != nil || row.Reason != reasons[string(payload)] || row.Topic != nil {
				t.Errorf("rejected row %s, want %q: %s", l, payload, reasons[string(payload)])
			}
		}
	}
}

func TestTotalsAsJSON(t *testing.T) {
	p := newPlace(t, reading+"nonsense\n")
	r := tidemark(t, "", "run", p.job, "--output", "json")
	r.want(t, exitDone)
	var got map[string]any
	if err := json.Unmarshal([]byte(r.err), &got); err != nil {
		t.Fatalf("%v: %s", err, r.err)
	}
	for key, want := range map[string]any{
		"job": "counting", "rows_in": 2.0, "rows_out": 2.0, "late": 0.0, "rejected": 1.0, "markers": 0.0, "filtered": 0.0, "in_no_window": 0.0,
		"first_rejected": "not JSON at byte 0", "watermark": "end of input",
	} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
	if s, ok := got["wall_seconds"].(float64); !ok || s <= 0 {
		t.Errorf("wall_seconds: %v", got["wall_seconds"])
	}
}

func TestOutputThatHoldsSomethingIsKept(t *testing.T) {
	p := newPlace(t, reading)
	if err := os.WriteFile(p.out, []byte("precious\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	tidemark(t, "", "run", p.job).want(t, exitFailed, `sink "out"`, "out.jsonl already holds 9 bytes", "--overwrite")
	if got := linesOf(t, p.out); len(got) != 1 || got[0] != "precious" {
		t.Errorf("now it holds %q", got)
	}
	tidemark(t, "", "run", p.job, "--overwrite").want(t, exitDone)
	if got := linesOf(t, p.out); len(got) != 1 || got[0] != counted {
		t.Errorf("after --overwrite: %q", got)
	}
}

func TestUnwritableOutput(t *testing.T) {
	p := newPlace(t, reading)
	r := tidemark(t, "", "run", p.job, "--set", "sinks.out.file.path="+filepath.Join(p.in, "out.jsonl")) // below a file
	r.want(t, exitFailed, `sink "out"`, "not a directory")
	if strings.Contains(r.err, "rows in") {
		t.Errorf("totals of a job that never began: %s", r.err)
	}
}

func TestStdin(t *testing.T) {
	p := newPlace(t, "")
	tidemark(t, reading, "run", p.job, "--set", "sources.in.file.path=-").want(t, exitDone, "rows in 1, out 1,")
	if got := linesOf(t, p.out); len(got) != 1 || got[0] != counted {
		t.Errorf("got %q", got)
	}
	// The job itself from stdin.
	text, err := os.ReadFile(p.job)
	if err != nil {
		t.Fatal(err)
	}
	tidemark(t, string(text), "run", "-", "--overwrite", "--set", "sources.in.file.path="+p.in).want(t, exitDone, "rows in 0, out 0,")
}

func TestEmptyInput(t *testing.T) {
	p := newPlace(t, "")
	tidemark(t, "", "run", p.job).want(t, exitDone, "rows in 0, out 0, late 0, rejected 0, markers 0, filtered 0, watermark end of input")
	if got := linesOf(t, p.out); got != nil {
		t.Errorf("got %q", got)
	}
	csv := filepath.Join(p.dir, "out.csv")
	tidemark(t, "", "run", p.job, "--set", "sinks.out.file.path="+csv).want(t, exitDone)
	if got := linesOf(t, csv); len(got) != 1 || got[0] != "k,window_start,window_end,n,hot" {
		t.Errorf("got %q, want a header", got)
	}
}
