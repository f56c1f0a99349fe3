package twosites

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/agent/sim/judge"
	"github.com/tidemark-mesh/tidemark/agent/sim/site"
	"github.com/tidemark-mesh/tidemark/agent/sim/world"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

const (
	ms  = world.Ms
	sec = world.Sec
)

// The bounds of the quiet end. A move gives up what the other site does not answer
// after a minute.
const (
	progressWithin = 100 * sec
	settleWithin   = 20 * sec
	commitWithin   = 3 * sec
)

// Kind is what happens besides faults.
type Kind string

// The kinds of runs.
const (
	Migrate  Kind = "migrate"  // the job moves from a to b
	Failover Kind = "failover" // a is lost, b takes the job, a comes back
	Frozen   Kind = "frozen"   // a failover of a site that stands still for a while, and goes on where it was
	Wander   Kind = "wander"   // the job moves back and forth, as people want, who also cancel
	Stay     Kind = "stay"     // the job moves from a to b while the session of its feed stays, and back
	Return   Kind = "return"   // it moves so, b is lost, a takes it, b comes back
	Torn     Kind = "torn"     // it is moving so when a is lost, b takes it, a comes back
	Roam     Kind = "roam"     // as wander, and at times the session stays
	Err      Kind = "err"      // a runs the job, b does not reach it, and a person takes a for lost: two run it until they meet
	Shared   Kind = "shared"   // two jobs read one feed; both move to b, one after the other, while its session stays, and back
	Leave    Kind = "leave"    // a job moves with the session of a feed that it reads and others may, and back
	Taken    Kind = "taken"    // two jobs read a feed of a, which is lost; b takes both, a comes back, and one of them goes home while the session that b opened stays
	Home     Kind = "home"     // as taken, with one job, which goes home with the session
	Mingle   Kind = "mingle"   // two jobs read one feed, and each moves back and forth as people want; at times its session is to stay
	Force    Kind = "force"    // a move is prepared at b, which does not reach a, and a person forces it: a goes on too
)

// Config is one run.
type Config struct {
	Seed   uint64
	Kind   Kind
	Faults []Fault
	Bugs   world.Bugs
	// Random faults come for so long besides, by the seed.
	Random dataflow.Time
	Trace  func(string) // a line for each thing worth telling; nil: nobody listens
}

// Result is what a run showed.
type Result struct {
	Violation *world.Violation // nil: every invariant held
	Steps     []Step           // that were taken, in order
	Open      []Fault          // that would have changed something, at each step, in that order
	Owner     mesh.Site        // in the end
	Overs     int              // hand-overs and failovers
	Pause     dataflow.Time    // the longest between two rows that were published
	Repeated  int              // rows that were published again
	Lost      int              // messages that a site that was lost had, and nobody else
	Took      dataflow.Time    // of the world's time
	Early     int              // tables that an attempt began with as they were restored before it came
	Fired     int              // faults that came
}

// run is two sites and what happens to them.
type run struct {
	cfg    Config
	w      *world.World
	a, b   *site.Site
	mesh   *site.Mesh
	both   *judge.Sites
	steps  []Step
	could  []Fault
	cuts   map[[2]string]dataflow.Time // until when a direction is cut
	bad    dataflow.Time               // until when the WAN is bad
	seen   map[string]int
	about  string // which job moves, of several: a step of each is one of its own
	faults []Fault
	fired  int
	quiet  dataflow.Time // when the last fault is over
	lost   mesh.Site     // that is lost; empty: none
}

const spec = `
name: %s
parallelism: 2
checkpoint: {interval: 700ms, timeout: 6s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
%s
sources: {in: {%s, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, file: {path: %s.jsonl}}, {id: told, from: a, mqtt: {broker: "mqtt://h", topic: results}}]
`

// The jobs, of which most runs have the first, and the feed that both read where it is
// shared.
const (
	jobName   = "counts"
	otherName = "others"
	feedName  = "f"
)

const feedConfig = `{"lanes":2,"topic":"t"}`

// shares tells whether the feed of a run is one that several jobs may read.
func (k Kind) shares() bool {
	return k == Shared || k == Leave || k == Mingle || k == Taken || k == Home
}

// jobs are those of a run.
func (k Kind) jobs() []string {
	if k == Shared || k == Mingle || k == Taken {
		return []string{jobName, otherName}
	}
	return []string{jobName}
}

// Run runs two sites: a while in peace, then what Kind says with the faults, then a
// quiet end.
func Run(cfg Config) *Result {
	r := &run{cfg: cfg, w: world.New(world.Config{Seed: cfg.Seed, Bugs: cfg.Bugs, Trace: cfg.Trace}), seen: make(map[string]int), cuts: make(map[[2]string]dataflow.Time), faults: slices.Clone(cfg.Faults)}
	r.a, r.b = site.New(r.w, "a"), site.New(r.w, "b")
	for _, s := range []*site.Site{r.a, r.b} {
		s.Level = coordinator.Level
		for i := range 3 {
			s.Add(fmt.Sprintf("%s%d", s.Name, i+1))
		}
	}
	r.both = judge.Together(r.w, r.a.Judge, r.b.Judge)
	r.mesh = site.Join(r.a, r.b)
	r.a.Begin()
	r.b.Begin()
	r.w.Broker.PublishAll()
	r.await(20*sec, "the sites do not know level 4", func() bool { return r.a.State().Level == coordinator.Level && r.b.State().Level == coordinator.Level })
	r.submit()
	r.await(20*sec, "a job does not run", func() bool {
		return !slices.ContainsFunc(cfg.Kind.jobs(), func(name string) bool {
			j := r.a.Job(name)
			return j == nil || j.Status != coordinator.Running || j.Newest() == nil || j.Newest().ID.Token.Attempt != j.Attempt
		})
	})
	r.mesh.Step = r.step
	switch cfg.Kind {
	case Failover, Frozen:
		r.whole(r.b)
		r.randomly()
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.a, r.b)
	case Wander, Roam, Mingle:
		r.wander()
	case Shared:
		r.bothThereAndBack()
	case Leave:
		r.thereAndBack(false)
	case Taken, Home:
		r.whole(r.b)
		r.randomly()
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.a, r.b)
		if r.owner() == r.b {
			r.move(jobName, r.b, r.a, cfg.Kind == Taken)
		}
		r.w.Run(max(r.w.Now(), r.quiet) + sec)
	case Stay:
		r.thereAndBack(true)
	case Return:
		r.goesBack()
	case Torn:
		r.torn()
	case Err:
		r.err()
	case Force:
		r.force()
	default:
		r.migrate()
	}
	if r.w.Failed() == nil {
		r.end()
	}
	return r.result()
}

func (r *run) result() *Result {
	res := &Result{Violation: r.w.Failed(), Steps: r.steps, Open: r.could, Overs: r.both.Overs, Pause: r.both.Longest, Repeated: r.both.Repeated, Lost: r.both.Lost(), Took: r.w.Now(), Fired: r.fired, Early: r.a.Judge.Stats.Early + r.b.Judge.Stats.Early}
	if s := r.owner(); s != nil {
		res.Owner = s.Name
	}
	return res
}

func (r *run) job(s *site.Site) *coordinator.Job { return s.Job(jobName) }

// owner is the site that has the job deployed; nil: none, or both.
func (r *run) owner() *site.Site { return r.ownerOf(jobName) }

func (r *run) ownerOf(name string) (owner *site.Site) {
	for _, s := range []*site.Site{r.a, r.b} {
		if has(s.Job(name)) {
			if owner != nil {
				return nil
			}
			owner = s
		}
	}
	return owner
}

// has tells whether a site, which has j on record, may deploy it.
func has(j *coordinator.Job) bool {
	return j != nil && !j.Status.Ended() && j.Status != coordinator.Quarantined && !j.Isolated
}

// propose has a leader decide something, again and again until one has.
func (r *run) propose(s *site.Site, c *coordinator.Command, done func(jobmanager.Result)) {
	c.Level = c.Needs()
	again := func() { r.w.After(50*ms, func() { r.propose(s, c, done) }) }
	l := s.Leader()
	if l == nil || !l.Reached() {
		again()
		return
	}
	l.Propose(c, func(_ uint64, res jobmanager.Result, refused error) {
		if refused != nil {
			again()
			return
		}
		done(res)
	})
}

func (r *run) submit() {
	kept := ""
	switch r.cfg.Kind {
	case Failover, Frozen, Err, Taken, Home:
		kept = "replicate_to: [b]"
	case Return:
		kept = "replicate_to: [a, b]"
	}
	fine := func(res jobmanager.Result) {
		if res.Err != nil {
			r.w.Fail(0, "it is refused: %v", res.Err)
		}
	}
	if !r.cfg.Kind.shares() {
		r.propose(r.a, &coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: jobName, Request: jobName,
			Spec:  fmt.Appendf(nil, spec, jobName, kept, `mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}`, "out"),
			Feeds: []coordinator.Feed{{Name: "in", Config: []byte(feedConfig)}}}}, fine)
		return
	}
	r.propose(r.a, &coordinator.Command{FeedCreated: &coordinator.Feed{Name: feedName, Config: []byte(feedConfig)}}, func(res jobmanager.Result) {
		fine(res)
		for _, name := range r.cfg.Kind.jobs() {
			r.propose(r.a, &coordinator.Command{JobSubmitted: &coordinator.JobSubmitted{Name: name, Request: name, Reads: []string{feedName},
				Spec: fmt.Appendf(nil, spec, name, kept, "feed: "+feedName, fileOf(name))}}, fine)
		}
	})
}

// fileOf is the file of a job's sink, without what it ends with.
func fileOf(job string) string {
	if job == jobName {
		return "out"
	}
	return job
}

var errNoAnswer = errors.New("there is no answer")

// wish asks a site's leader for something until it has answered without an error, or
// w says that there is nothing to ask for.
func (r *run) wish(s *site.Site, w func() *leader.Wish) {
	again := func() { r.w.After(500*ms, func() { r.wish(s, w) }) }
	wish, over := w(), false
	if wish == nil {
		return
	}
	l := s.Leader()
	if l == nil || !l.Reached() {
		again()
		return
	}
	end := func(err error) {
		if !over && err != nil {
			r.w.Tell("the wish is refused: %v", err)
			again()
		}
		over = true
	}
	r.w.After(2*sec, func() { end(errNoAnswer) })
	l.Wish(*wish, func(a leader.Answer) { end(a.Err) })
}

// migrate has the job move, and waits until it has, or a fault is over.
func (r *run) migrate() {
	r.randomly()
	r.move(jobName, r.a, r.b, false)
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// move has people want a job to move, and waits until it has, or not.
func (r *run) move(name string, from, to *site.Site, stays bool) {
	overs, tries := r.both.Overs, 1
	if r.cfg.Kind.shares() {
		tries = 3
	}
	for n := range tries {
		r.ask(name, from, to, stays, fmt.Sprint("r", n, name))
		r.until(25*sec, func() bool {
			return r.both.Overs > overs && r.goesOn(name) || n+1 < tries && calledOff(from, name)
		})
		if r.both.Overs > overs {
			return
		}
	}
}

// calledOff tells whether the last move of a job has come to nothing.
func calledOff(s *site.Site, name string) bool {
	for _, d := range s.State().Moves.Departures {
		if j := s.Job(name); j != nil && d.Job == j.ID && d.Phase == coordinator.DepartureAborted {
			return true
		}
	}
	return false
}

// ask has people want a job to move.
func (r *run) ask(name string, from, to *site.Site, stays bool, request string) {
	r.wish(from, func() *leader.Wish {
		j := from.Job(name)
		if r.w.Calm || j == nil || j.Status.Ended() || leaving(from, j) {
			return nil
		}
		return &leader.Wish{Migrate: &leader.Migrate{Begin: began(j, to.Name, request, stays)}}
	})
}

// leaving tells whether a job is on its way, or has just been.
func leaving(s *site.Site, j *coordinator.Job) bool {
	d := s.State().Leaving(j.ID)
	return d != nil && !d.Phase.Decided()
}

func began(j *coordinator.Job, to mesh.Site, request string, stays bool) *coordinator.MoveBegan {
	c := &coordinator.MoveBegan{Job: j.ID, Epoch: j.Epoch, To: to, Request: request}
	if stays {
		c.Stay = []string{judge.FeedOf(j)}
	}
	return c
}

// thereAndBack has the job move, while the session of its feed stays or with it, and
// back.
func (r *run) thereAndBack(stays bool) {
	r.randomly()
	r.move(jobName, r.a, r.b, stays)
	r.w.Run(r.w.Now() + sec)
	if r.owner() == r.b {
		r.move(jobName, r.b, r.a, false)
	}
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// bothThereAndBack has two jobs move, one after the other, while the session of the feed
// that both read stays, and back to it.
func (r *run) bothThereAndBack() {
	r.randomly()
	for _, name := range r.cfg.Kind.jobs() {
		r.about = r.of(name)
		r.move(name, r.a, r.b, true)
		r.w.Run(r.w.Now() + sec)
	}
	for _, name := range r.cfg.Kind.jobs() {
		r.about = r.of(name)
		if r.ownerOf(name) == r.b {
			r.move(name, r.b, r.a, true)
		}
	}
	r.w.Run(max(r.w.Now(), r.quiet) + sec)
}

// goesBack has the job move while the session of its feed stays, the site to which it
// went be lost, and the job taken where the session is.
func (r *run) goesBack() {
	r.randomly()
	r.move(jobName, r.a, r.b, true)
	r.until(60*sec, func() bool { return r.owner() != r.b || r.keeps(r.a) })
	if r.owner() == r.b {
		r.w.Run(r.w.Now() + 2*sec)
		r.failover(r.b, r.a)
	}
}

// torn has the site lost from which the job is moving, when the other one has the first
// that it can go on from.
func (r *run) torn() {
	r.randomly()
	r.ask(jobName, r.a, r.b, true, "r")
	r.until(25*sec, func() bool { return r.both.Overs > 0 || r.keeps(r.b) })
	if r.both.Overs == 0 && r.keeps(r.b) {
		r.failover(r.a, r.b)
	}
}

// wander has people move a job to wherever it is not, or call that off.
func (r *run) wander() {
	r.randomly()
	n := 0
	var next func()
	next = func() {
		if r.w.Now() >= r.quiet || r.w.Calm {
			return
		}
		r.w.After(1500*ms, next)
		names := r.cfg.Kind.jobs()
		name := names[n%len(names)]
		s := r.ownerOf(name)
		if n++; s == nil || s.Leader() == nil {
			return
		}
		wish := &leader.Migrate{Why: "they think again"}
		j := s.Job(name)
		if d := s.State().Leaving(j.ID); d != nil {
			if wish.Cancel = d.ID; !r.w.Chance(4) {
				return
			}
		} else {
			to := mesh.Site("a")
			if s == r.a {
				to = "b"
			}
			wish.Begin = began(j, to, fmt.Sprint("r", n), (r.cfg.Kind == Roam || r.cfg.Kind == Mingle) && r.w.Chance(2))
		}
		s.Leader().Wish(leader.Wish{Migrate: wish}, func(a leader.Answer) { r.w.Tell("wish %d: move %s: %v", n, a.Move, a.Err) })
	}
	next()
	r.w.Run(r.quiet + sec)
}

// until lets time pass until something is so, or the time is over; faults that are
// under way are waited for.
func (r *run) until(most dataflow.Time, ok func() bool) {
	for end := r.w.Now() + most; r.w.Failed() == nil && r.w.Now() < end && !ok(); {
		r.w.Run(r.w.Now() + 250*ms)
	}
}

func (r *run) await(within dataflow.Time, what string, ok func() bool) {
	if r.until(within, ok); r.w.Failed() == nil && !ok() {
		r.w.Fail(10, "%d s later %s", within/sec, what)
	}
}

// goesOn tells whether a job runs at its owner, with a checkpoint of its present
// attempt.
func (r *run) goesOn(name string) bool {
	s := r.ownerOf(name)
	if s == nil {
		return false
	}
	j := s.Job(name)
	return j.Status == coordinator.Running && j.Newest() != nil && j.Newest().ID.Token == j.Token(s.Name)
}

// end heals everything and looks that one site has the job, that it goes on (9, 10)
// and that all rows are there (1, 2).
func (r *run) end() {
	r.w.Heal()
	healed := r.w.Now()
	for r.w.Failed() == nil {
		why := r.open()
		if why == "" {
			break
		}
		if r.w.Now() > healed+progressWithin {
			r.w.Fail(9, "%d s after the last fault %s", progressWithin/sec, why)
		}
		r.w.Run(r.w.Now() + 500*ms)
	}
	r.w.Broker.Closed = true
	if r.w.Failed() != nil {
		return
	}
	s := r.owner()
	r.met(s)
	r.await(settleWithin, "not all messages are acknowledged", func() bool { return s.Judge.Acknowledged() == "" })
	feed := judge.FeedOf(r.job(s))
	if r.w.Failed() == nil {
		r.a.Judge.Logs()
		r.b.Judge.Logs()
	}
	if at := r.both.Session(feed); (r.cfg.Kind == Stay || r.cfg.Kind == Return || r.cfg.Kind == Shared) && at != "a" {
		r.w.Fail(9, "the session of feed %s is at site %s, and it was to stay at a", feed, at)
	}
	for _, name := range r.cfg.Kind.jobs() {
		if r.w.Failed() == nil {
			r.endOf(name, r.ownerOf(name))
		}
	}
	if r.w.Failed() == nil {
		r.a.Judge.Cooled()
		r.b.Judge.Cooled()
	}
}

// endOf looks at all that a job has put out.
func (r *run) endOf(name string, s *site.Site) {
	r.await(settleWithin, "not all messages have been read", func() bool { return s.Judge.Behind(s.Job(name)) == "" })
	// All is put out with the second checkpoint from here on, or by the sink's clock.
	read := s.Job(name).Newest().ID
	r.until(commitWithin, func() bool { n := s.Job(name).Newest().ID; return n.Token != read.Token || n.Counter >= read.Counter+2 })
	r.w.Run(r.w.Now() + 300*ms)
	if r.w.Failed() == nil {
		r.judge(s, name)
	}
}

// met: where a person has erred the site that has the job has it at the greatest epoch,
// and the other one knows that, and has ended its copy (9). From here on nobody else acts.
func (r *run) met(s *site.Site) {
	if !r.both.Erred {
		return
	}
	j := r.job(s)
	for _, o := range []*site.Site{r.a, r.b} {
		if other := r.job(o); o != s && other != nil && (other.Status != coordinator.Moved || other.Owner != s.Name || other.Epoch != j.Epoch) {
			r.w.Fail(9, "site %s has the job at epoch %d, and at site %s it is %s, with owner %q at epoch %d", s.Name, j.Epoch, o.Name, other.Status, other.Owner, other.Epoch)
		}
	}
	r.both.Met(j)
}

func (r *run) judge(s *site.Site, name string) {
	j, path := s.Job(name), fileOf(name)+".jsonl"
	s.Judge.Mirrors(j)
	if r.both.Forced {
		s.Judge.Beside(j, path, judge.Counted)
	} else {
		s.Judge.Files(j, path, judge.Counted)
	}
	s.Judge.Published(j, judge.Counted)
}

// open says what is not decided yet; empty: one site has each job, and it runs.
func (r *run) open() string {
	for _, s := range []*site.Site{r.a, r.b} {
		st := s.State()
		if !s.Current() {
			return fmt.Sprintf("nobody leads site %s, or has applied all of its log", s.Name)
		}
		for id, d := range st.Moves.Departures {
			if !d.Phase.Decided() {
				return fmt.Sprintf("move %s is %s", id, d.Phase)
			}
		}
		for id, arr := range st.Moves.Arrivals {
			if !arr.Phase.Decided() {
				return fmt.Sprintf("move %s is %s at site %s", id, arr.Phase, s.Name)
			}
		}
	}
	for _, name := range r.cfg.Kind.jobs() {
		a, b := r.a.Job(name), r.b.Job(name)
		if has(a) && has(b) {
			return "two sites have the job: at a " + plight(a) + "; at b " + plight(b)
		}
		if !r.goesOn(name) {
			return "the job goes on nowhere: at a " + plight(a) + "; at b " + plight(b)
		}
	}
	return ""
}

func plight(j *coordinator.Job) string {
	if j == nil {
		return "it is not there"
	}
	text := fmt.Sprintf("it is %s (%s) at epoch %d, attempt %d", j.Status, j.Why, j.Epoch, j.Attempt)
	if n := j.Newest(); n != nil {
		text += ", newest checkpoint " + n.Name
	}
	return text
}
