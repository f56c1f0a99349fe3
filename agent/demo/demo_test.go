package demo

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// The whole demo, with virtual time going ten times as fast.
func TestDemoFindsEveryWindowRight(t *testing.T) {
	defer goleak.VerifyNone(t)
	var out bytes.Buffer
	err := Run(t.Context(), Options{Sensors: 100, For: 40 * time.Second, Seed: 7, Speed: 10, Out: &out})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"Every window is right.", "ok   late readings", "ok   rejected: clock too far ahead"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "late readings                           0 of 0") {
		t.Errorf("no reading was late, so nothing was shown of it:\n%s", &out)
	}
}

func TestDemoInterruptedJudgesWhatThereIs(t *testing.T) {
	defer goleak.VerifyNone(t)
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	err := Run(ctx, Options{Sensors: 50, For: time.Hour, Seed: 7, Speed: 10, Out: &out, sent: func() {
		if sent++; sent == 3000 {
			cancel()
		}
	}})
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
}

// Every kind of wrong answer must end in ErrMismatch.
func TestReportRefusesWrongCounts(t *testing.T) {
	right := judgement{verdict: simulate.Verdict{Right: 3}, expect: simulate.Totals{Messages: 10, Late: 2}, got: agent.Totals{In: 10, Late: 2}}
	report := func(change func(*judgement)) error {
		j := right
		change(&j)
		return newView(&demo{opt: Options{Out: &bytes.Buffer{}}}).report(j)
	}
	if err := report(func(*judgement) {}); err != nil {
		t.Fatalf("the right answer was refused: %v", err)
	}
	for name, change := range map[string]func(*judgement){
		"a window wrong":           func(j *judgement) { j.verdict.Wrong = 1 },
		"a window missing":         func(j *judgement) { j.verdict.Missing = 1 },
		"a window too many":        func(j *judgement) { j.verdict.Surplus = 1 },
		"nothing at all":           func(j *judgement) { j.verdict.Right = 0 },
		"a message lost":           func(j *judgement) { j.got.In-- },
		"one late too many":        func(j *judgement) { j.got.Late++ },
		"a marker counted as data": func(j *judgement) { j.got.Markers-- },
	} {
		if err := report(change); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: the report said %v", name, err)
		}
	}
}
