package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

// jobText is the demo's job: a sensor above 8 °C is worth telling. Every reading
// is kept as well, so that each of them can be looked for at the end.
const jobText = `
name: cold-chain-demo
parallelism: 3
replicas: 2
when_short: degrade
checkpoint: {interval: 500ms}
restart: {strategy: exponential-delay, initial: 100ms, max: 2s}
sources:
  readings:
    mqtt: {broker: "mqtt://%s", topics: [plant/+/telemetry], qos: 1}
    format: json
    fields:
      sensor: {type: string, topic: 1}
      ts:     {type: timestamp, unit: ms}
      temp:   {type: double, path: data.temp}
      kind:   string
      seq:    bigint
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
  - {id: alerts,   from: per_sensor,        file: {path: windows.jsonl, timestamps: us}}
  - {id: archive,  from: readings,          file: {path: readings.jsonl, timestamps: us}}
  - {id: late,     from: per_sensor.late,   file: {path: late.jsonl, timestamps: us}}
  - {id: rejected, from: readings.rejected, file: {path: rejected.jsonl, timestamps: us}}
`

// The demo's scale: small windows, so that a minute shows many.
const (
	window    = 2 * dataflow.Second
	idleAfter = 3 * dataflow.Second
	maxAhead  = dataflow.Minute
	slack     = dataflow.Second
	perSecond = 5 // readings of one sensor
)

// Options are the flags of the demo.
type Options struct {
	Sensors int
	For     time.Duration // of the fleet's clock, which stands while nobody listens
	Seed    uint64
	Out     io.Writer
	// Size is asked for the terminal's columns and lines each time that the view is
	// drawn; nil: Out is no terminal, and gets plain lines.
	Size  func() (width, height int)
	Agent []string // the command of an agent, before its configuration file; nil: this program's own

	temp string        // of tests: where the folder is made; empty: where the system wants it
	away time.Duration // of tests: how long a killed agent stays away; 0: awayFor
	sent func()        // of tests: called after each message
}

// ErrMismatch means that the job's results are not what the fleet sent.
var ErrMismatch = errors.New("the results differ from what the fleet sent")

// demo is one run.
type demo struct {
	opt    Options
	config simulate.Config
	broker *broker.Broker
	site   *site
	output *output
	job    string // its id
	fail   func(error)
	began  time.Time

	mu        sync.Mutex // guards what follows: the sender, the faults, the watch and the view meet here
	oracle    *simulate.Oracle
	readings  map[reading]int // that were sent and must come out, and how often
	sent      int64
	clock     dataflow.Time // the fleet's
	faults    [4]int64      // messages sent with each fault
	now       status
	restarts  int // of the job, at whatever site
	watermark dataflow.Time
	outages   []*outage
	moved     *move // nil: it has not begun
	over      int   // of what is done to the job: so many are over
	rows      int   // windows that were seen last
	notes     []string
	printed   int // notes that plain lines have shown
	phase     string
}

// Run runs the demo to its end. It returns ErrMismatch if a count is wrong.
func Run(ctx context.Context, opt Options) (err error) {
	if opt.Agent == nil {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		opt.Agent = []string{self, "agent", "--config"}
	}
	d := &demo{opt: opt, began: time.Now(), readings: make(map[reading]int), watermark: dataflow.MinTime, phase: "starting"}
	d.configure(dataflow.FromGo(time.Now().Truncate(time.Millisecond)))
	// An interrupt ends the fleet; the job goes on until it has taken what was
	// sent, and is judged by that. A failure ends everything.
	within, fail := context.WithCancelCause(context.WithoutCancel(ctx))
	defer fail(nil)
	d.fail = fail
	if d.broker, err = broker.Start(broker.Options{}); err != nil {
		return fmt.Errorf("demo: the embedded broker: %w", err)
	}
	defer d.broker.Close()
	if d.site, err = newSite(opt.temp, opt.Agent, fail); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.site.close()) }()
	d.output = newOutput(d.site)
	view := newView(d)
	view.intro()
	sending, stopSending := context.WithCancelCause(ctx)
	defer stopSending(nil)
	defer context.AfterFunc(within, func() { stopSending(context.Cause(within)) })()
	if err := d.begin(sending); err != nil {
		return d.unless(ctx, err)
	}
	stop := view.start(within)
	err = d.play(ctx, within, sending)
	stop()
	if err != nil {
		return d.unless(ctx, err)
	}
	return view.report(d.judge(ctx.Err() != nil))
}

// unless says less where a person has ended the demo before there was anything.
func (d *demo) unless(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(d.opt.Out, "Stopped before any window was complete: nothing to check.")
		return nil
	}
	return err
}

// configure makes a fleet with every fault, scaled to the demo's windows.
func (d *demo) configure(start dataflow.Time) {
	c := simulate.Default(d.opt.Sensors)
	c.Seed, c.Start, c.Duration = d.opt.Seed, start, dataflow.Duration(d.opt.For.Microseconds())/1000*1000
	c.Every, c.Interval, c.Delay = dataflow.Second/perSecond, window, 20*dataflow.Millisecond
	c.Settle = 2 * slack
	c.Talk = simulate.Span{Min: 5 * dataflow.Second, Max: 12 * dataflow.Second}
	c.Silence = simulate.Span{Min: idleAfter + 3*dataflow.Second, Max: idleAfter + 6*dataflow.Second}
	c.Excursions = 0.02
	c.Behind = 0 // while the fleet waits, longer than idle_after, nobody would wait for a device whose time is behind
	least := c.SureLate(window, idleAfter, slack)
	c.LateBy = simulate.Span{Min: least, Max: least + 2*dataflow.Second}
	d.config, d.clock = c, start
	d.oracle = simulate.NewOracle(c, simulate.Settings{Threshold: simulate.Limit, Window: window, IdleAfter: idleAfter, MaxAhead: maxAhead, Slack: slack})
}

// begin starts the agents, submits the job and waits until it hears the broker.
func (d *demo) begin(ctx context.Context) error {
	if err := d.gather(ctx); err != nil {
		return err
	}
	fmt.Fprintf(d.opt.Out, "%s: the mesh stands: site %s with %s, site %s with %s.\n",
		seconds(time.Since(d.began)), home, count(agentsAtHome, "agent"), away, count(len(d.site.of(away)), "agent"))
	text := fmt.Sprintf(jobText, d.broker.Addr(), job.FormatDuration(idleAfter), job.FormatDuration(maxAhead), job.FormatDuration(window))
	made, request := api.Submitted{}, rand.Text()
	var why error
	submit := func() bool {
		made, why = d.site.agents[0].client.Submit(ctx, api.Submission{Spec: text, File: "demo", Request: request})
		return why == nil
	}
	if err := d.until(ctx, "the job to be taken", submit); err != nil {
		return errors.Join(err, why)
	}
	d.job = made.ID
	err := d.until(ctx, "the job to run and to hear the broker", func() bool {
		s, err := d.look(ctx)
		return err == nil && s.running() && d.broker.Stats().Subscriptions > 0
	})
	if err == nil {
		fmt.Fprintf(d.opt.Out, "%s: job %s runs at site %s.\n\n", seconds(time.Since(d.began)), d.job, home)
	}
	return err
}

// gather starts the agents and waits until both sites stand and see each other.
func (d *demo) gather(ctx context.Context) error {
	first, other := d.site.agents[0], d.site.of(away)[0]
	if err := first.start(); err != nil {
		return err
	}
	if err := d.until(ctx, "the first agent to lead", func() bool { return first.ready(ctx) }); err != nil {
		return err
	}
	for _, a := range d.site.of(home)[1:] { // they join through it
		if err := a.start(); err != nil {
			return err
		}
	}
	var why error
	found := func() bool {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		why = d.site.found(ctx)
		return why == nil
	}
	if err := d.until(ctx, "the other site to be signed", found); err != nil {
		return errors.Join(err, why)
	}
	if err := other.start(); err != nil {
		return err
	}
	for _, a := range d.site.agents {
		if err := d.until(ctx, "agent "+a.name+" to join", func() bool { return a.ready(ctx) }); err != nil {
			return err
		}
	}
	return d.until(ctx, "all agents to have a vote and the sites to see each other", func() bool { return d.federated(ctx) })
}

// federated tells whether both sites have all their voters and hear each other.
func (d *demo) federated(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, a := range []*process{d.site.agents[0], d.site.of(away)[0]} {
		all, err := a.client.Sites(ctx, false)
		if err != nil || len(all) != 2 {
			return false
		}
		for _, s := range all {
			if n := len(d.site.of(s.Site)); !s.Answers || !s.Self && !s.Reachable || s.Agents != n || s.Voters != n || s.Level < coordinator.SitesLevel {
				return false
			}
		}
	}
	return true
}

// play lets the fleet send and the faults happen, and ends the job when it has
// made of it all that it will.
func (d *demo) play(ctx, within, sending context.Context) error {
	watching, stop := context.WithCancel(within)
	var all, harm sync.WaitGroup
	all.Go(func() { d.watch(watching) })
	harm.Go(func() {
		if err := d.harm(sending); err != nil && sending.Err() == nil {
			d.fail(err)
		}
	})
	defer all.Wait()
	defer stop()
	d.enter("running")
	err := d.send(sending)
	harm.Wait()
	if err != nil && ctx.Err() == nil {
		return err
	}
	if err := d.mend(); err != nil {
		return err
	}
	d.enter("settling")
	if ctx.Err() != nil {
		d.say("interrupted: the fleet has stopped, and the job takes what is under way; Ctrl-C again ends it at once")
	}
	if err := d.settle(within); err != nil {
		return err
	}
	d.enter("stopping")
	return d.stop(within)
}

// mend starts agents that an interrupt found dead.
func (d *demo) mend() error {
	for _, a := range d.site.agents {
		if !a.runs() {
			if err := a.start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle waits until the job has taken all that was sent, or nothing comes any
// more: then the report says what is missing.
func (d *demo) settle(ctx context.Context) error {
	if err := d.until(ctx, "the last messages to be acknowledged", func() bool { return d.underWay() <= 0 }); err != nil {
		return err
	}
	d.mu.Lock()
	want := 0
	for _, n := range d.readings {
		want += n
	}
	totals := d.oracle.Totals()
	end := d.config.Start.Add(d.config.Duration)
	interrupted := d.clock < end.Add(-window)
	d.mu.Unlock()
	seen, since := -1, time.Now()
	return d.until(ctx, "the last rows", func() bool {
		rows, _ := d.output.readings.count()
		rejected, _ := d.output.rejected.count()
		if n := rows + rejected; n != seen {
			seen, since = n, time.Now()
		}
		d.mu.Lock()
		complete := interrupted || d.watermark >= end
		d.mu.Unlock()
		all := rows >= want && int64(rejected) >= totals.Refused+totals.RefusedM
		return all && complete || time.Since(since) > giveUp
	})
}

// giveUp is how long nothing must come for the demo to believe that nothing will.
const giveUp = 30 * time.Second

// stop stops the job with a savepoint, through any agent.
func (d *demo) stop(ctx context.Context) error {
	var last error
	err := d.until(ctx, "the job to stop", func() bool {
		for _, a := range d.site.agents {
			if _, last = a.client.Stop(ctx, d.job, false); last == nil {
				return true
			}
		}
		return false
	})
	return errors.Join(err, last)
}

func (d *demo) enter(phase string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.phase = phase
}

// say tells what happens.
func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(fmt.Sprintf(format, args...))
}

// note is say for who holds the lock.
func (d *demo) note(line string) {
	d.notes = append(d.notes, fmt.Sprintf("%5.1f s  %s", time.Since(d.began).Seconds(), line))
}
