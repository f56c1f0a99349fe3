package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// jobText is the demo's job: a sensor above 8 °C is worth telling.
const jobText = `
name: cold-chain-demo
parallelism: 2
sources:
  readings:
    mqtt: {broker: "mqtt://%s", topics: [plant/+/telemetry], qos: 1}
    format: json
    fields:
      sensor: {type: string, topic: 1}
      ts:     {type: timestamp, unit: ms}
      temp:   {type: double, path: data.temp}
      kind:   string
    event_time: ts
    watermark:
      punctuated: {when: "kind = 'flush'", at: ts, emit: false}
      per: sensor
      idle_after: %s
      max_ahead: %s
steps:
  - {id: hot, from: readings, where: temp > 8.0}
  - id: per_sensor
    from: hot
    key_by: [sensor]
    window: {tumbling: %s}
    select: {avg_temp: avg(temp), max_temp: max(temp), n: count(*)}
sinks:
  - {id: alerts, from: per_sensor, stdout: {timestamps: us}}
  - {id: late, from: per_sensor.late, blackhole: {}}
  - {id: rejected, from: readings.rejected, blackhole: {}}
`

// The demo's scale: small windows, so that a minute shows many.
const (
	window    = 2 * dataflow.Second
	idleAfter = 6 * dataflow.Second
	maxAhead  = dataflow.Minute
	slack     = 2 * dataflow.Second
	perSecond = 5 // readings of one sensor
)

// settleTime is how long the demo waits at most for the last rows to arrive.
const settleTime = 20 * time.Second

// Options are the flags of the demo.
type Options struct {
	Sensors int
	For     time.Duration
	Seed    uint64
	Speed   float64 // virtual seconds a second; 0: 1
	Out     io.Writer
	Live    bool // Out is a terminal: draw the view again and again
	Width   int  // columns of the terminal

	sent func() // of tests: called after each message
}

// ErrMismatch means that the job's results are not what the fleet sent.
var ErrMismatch = errors.New("the results differ from what the fleet sent")

// demo is one run.
type demo struct {
	opt    Options
	config simulate.Config
	oracle *simulate.Oracle
	local  *agent.Local
	began  time.Time

	mu      sync.Mutex // guards what follows: the job's sink, the sender and the view meet here
	results []simulate.Result
	partial []byte // the beginning of a line
	sent    int64
	faults  [4]int64 // messages sent with each fault
	notes   []string
	bad     error // a result line that cannot be read
}

// Run runs the demo to its end. It returns ErrMismatch if a count is wrong.
func Run(ctx context.Context, opt Options) error {
	if opt.Speed == 0 {
		opt.Speed = 1
	}
	d := &demo{opt: opt, began: time.Now()}
	d.config = fleetConfig(opt, dataflow.FromGo(time.Now().Truncate(time.Millisecond)))
	d.oracle = simulate.NewOracle(d.config, simulate.Settings{Threshold: simulate.Limit, Window: window, IdleAfter: idleAfter, MaxAhead: maxAhead, Slack: slack})

	b, err := broker.Start(broker.Options{})
	if err != nil {
		return fmt.Errorf("demo: the embedded broker: %w", err)
	}
	defer b.Close()
	clock := &fleet.Clock{}
	if err := d.load(b.Addr(), clock); err != nil {
		return err
	}
	view := newView(d)
	view.intro(b.Addr())

	// An interrupt ends the fleet; the job goes on until it has taken what was
	// sent, and is judged by that.
	jobCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	jobDone := make(chan error, 1)
	go func() { err := d.local.Run(jobCtx); cancel(err); jobDone <- err }()
	stopView := view.start()
	sendCtx, stopSending := context.WithCancelCause(ctx)
	defer stopSending(nil)
	defer context.AfterFunc(jobCtx, func() { stopSending(context.Cause(jobCtx)) })()
	err = d.send(sendCtx, b.Addr(), clock)
	interrupted := ctx.Err() != nil
	if err == nil || interrupted {
		err = d.settle(jobCtx)
	}
	d.local.Stop()
	jobErr := <-jobDone
	stopView()
	if err := errors.Join(err, jobErr, d.bad); err != nil {
		return err
	}
	j := d.judge()
	if interrupted && j.verdict.Right+j.verdict.Wrong+j.verdict.Missing+j.verdict.Surplus == 0 {
		fmt.Fprintln(opt.Out, "Stopped before any window was complete: nothing to check.")
		return nil
	}
	return view.report(j)
}

// fleetConfig is a fleet with every fault, scaled to the demo's windows.
func fleetConfig(opt Options, start dataflow.Time) simulate.Config {
	c := simulate.Default(opt.Sensors)
	c.Seed, c.Start, c.Duration = opt.Seed, start, dataflow.Duration(opt.For.Microseconds())/1000*1000
	c.Every, c.Interval, c.Delay = dataflow.Second/perSecond, window, 20*dataflow.Millisecond
	c.Settle = 2 * slack
	c.Talk = simulate.Span{Min: 6 * dataflow.Second, Max: 15 * dataflow.Second}
	c.Silence = simulate.Span{Min: idleAfter + 3*dataflow.Second, Max: idleAfter + 8*dataflow.Second}
	c.BehindBy = window
	least := c.SureLate(window, idleAfter, slack)
	c.LateBy = simulate.Span{Min: least, Max: least + 2*dataflow.Second}
	return c
}

// load builds the job.
func (d *demo) load(addr string, clock *fleet.Clock) error {
	text := fmt.Sprintf(jobText, addr, job.FormatDuration(idleAfter), job.FormatDuration(maxAhead), job.FormatDuration(window))
	j, err := job.Load("demo", []byte(text), job.Options{})
	if err != nil {
		return fmt.Errorf("demo: its own job: %w", err)
	}
	d.local, err = agent.NewLocal(j, agent.LocalOptions{Stdout: (*resultLines)(d), Clock: clock, Events: d.note})
	return err
}

func (d *demo) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.notes = append(d.notes, line); len(d.notes) > 3 {
		d.notes = d.notes[1:]
	}
}

// send lets the fleet send until its time is over. It never gets further ahead
// of the job than the slack that the oracle assumes.
func (d *demo) send(ctx context.Context, addr string, clock *fleet.Clock) error {
	f, err := simulate.New(d.config)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	p, err := fleet.Connect("mqtt://"+addr, "demo-fleet", 1)
	if err != nil {
		return err
	}
	if err := d.waitForSubscription(ctx); err != nil {
		return errors.Join(err, p.Close())
	}
	// What may be under way between fleet and job: half of what is sent in the
	// slack that the oracle assumes.
	ahead := int64(d.opt.Sensors) * perSecond * int64(slack/dataflow.Second) / 2
	s := &fleet.Sender{Fleet: f, Publisher: p, Start: d.config.Start, Speed: d.opt.Speed, Clock: clock, Sent: func(ev *simulate.Event) {
		d.mu.Lock()
		d.oracle.Add(ev)
		d.sent++
		for i := range d.faults {
			if ev.Fault&(1<<i) != 0 {
				d.faults[i]++
			}
		}
		sent := d.sent
		d.mu.Unlock()
		if d.opt.sent != nil {
			d.opt.sent()
		}
		if sent%max(1, ahead/4) == 0 {
			d.waitFor(ctx, sent-ahead)
		}
	}}
	return errors.Join(s.Send(ctx), p.Close())
}

// poll is how often the demo looks whether the job has come so far.
const poll = 5 * time.Millisecond

// waitForSubscription waits until the job's session is at the broker: what is
// sent before that, nobody would hear.
func (d *demo) waitForSubscription(ctx context.Context) error {
	select {
	case <-d.local.Heard():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitFor waits until the job has taken n messages.
func (d *demo) waitFor(ctx context.Context, n int64) {
	_ = d.until(ctx, settleTime, func() bool { return d.local.Totals().In >= n })
}

// settle waits until the job has taken everything that was sent.
func (d *demo) settle(ctx context.Context) error {
	d.mu.Lock()
	sent := d.sent
	d.mu.Unlock()
	return d.until(ctx, settleTime, func() bool { return d.local.Totals().In >= sent })
}

// until asks again and again whether something has happened.
func (d *demo) until(ctx context.Context, most time.Duration, happened func() bool) error {
	t := time.NewTicker(poll)
	defer t.Stop()
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	for !happened() {
		select {
		case <-t.C:
		case <-deadline.C:
			return fmt.Errorf("demo: the job took %d of %d messages in %v", d.local.Totals().In, d.sent, most)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// resultLines takes the JSON lines of the job's stdout sink.
type resultLines demo

// Write is io.Writer's; the job's sink calls it.
func (r *resultLines) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partial = append(r.partial, p...)
	for {
		line, rest, whole := bytes.Cut(r.partial, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		r.take(line)
		r.partial = append(r.partial[:0], rest...)
	}
}

func (r *resultLines) take(line []byte) {
	var v struct {
		Sensor  string  `json:"sensor"`
		Start   int64   `json:"window_start"`
		AvgTemp float64 `json:"avg_temp"`
		MaxTemp float64 `json:"max_temp"`
		N       int64   `json:"n"`
	}
	if err := json.Unmarshal(line, &v); err != nil {
		r.bad = fmt.Errorf("demo: result %q: %w", line, err)
		return
	}
	r.results = append(r.results, simulate.Result{Sensor: v.Sensor, Start: dataflow.Time(v.Start), Count: v.N, Avg: v.AvgTemp, Max: v.MaxTemp})
}

// judgement is what came out in the end.
type judgement struct {
	verdict simulate.Verdict
	expect  simulate.Totals
	got     agent.Totals
}

// judge compares every window and every count with what was sent.
func (d *demo) judge() judgement {
	d.mu.Lock()
	defer d.mu.Unlock()
	got := d.local.Totals()
	return judgement{verdict: d.oracle.Compare(d.results, got.Watermark), expect: d.oracle.Totals(), got: got}
}
