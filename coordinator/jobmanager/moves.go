package jobmanager

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// facts are what the rules of a move must know of the jobs.
type facts struct{ *coordinator.State }

// Facts are what coordinator/migration must know of the jobs of a state.
func Facts(st *coordinator.State) migration.Jobs { return facts{st} }

// Job is what the state says of a job. One that was forgotten leaves the epoch in
// State.Forgotten, and in the records of its moves.
func (f facts) Job(id coordinator.JobID) migration.JobFacts {
	out := migration.JobFacts{Epoch: f.Tenure(id).Epoch}
	if j := f.Jobs[id]; j != nil {
		out.Here = !j.Status.Ended() && j.Status != coordinator.Quarantined // such a one is nobody's to hand over
		if j.Status == coordinator.Suspended {
			out.Halted = j.Savepoint
		}
		out.Isolated = j.Isolated && f.Level >= coordinator.SettledLevel
	}
	for _, d := range f.Moves.Departures {
		if d.Job == id && d.Phase == coordinator.DepartureHandedOver {
			out.Epoch = max(out.Epoch, d.Epoch+1)
		}
	}
	for _, arr := range f.Moves.Arrivals {
		if arr.Job.ID == id && arr.Phase == coordinator.ArrivalActive {
			out.Epoch = max(out.Epoch, arr.Epoch)
		}
	}
	return out
}

// NameFree tells whether no live job has the name.
func (f facts) NameFree(namespace, name string) bool {
	return f.Names[coordinator.NameKey(namespace, name)] == ""
}

// moveError is an error of migration as one of here.
func moveError(err error) error {
	for of, kind := range map[error]error{migration.ErrStale: ErrStale, migration.ErrUnknown: ErrUnknown} {
		if errors.Is(err, of) {
			return &refusal{kind, err.Error()}
		}
	}
	return &refusal{ErrRefused, err.Error()}
}

// move applies a command about a move: what migration says becomes of its record,
// and in the same entry of the job and its feeds. Of what is checked here nothing
// stands in the way of a decision: the other site counts on that.
func (a *apply) move(c *coordinator.MoveCommand) error {
	if a.Level < coordinator.SitesLevel {
		return refuse(ErrRefused, "jobs move between sites from feature level %d on, and level %d is in force", coordinator.SitesLevel, a.Level)
	}
	c, err := ownMove(c)
	if err != nil {
		return err
	}
	if c.Forgotten != nil && c.Forgotten.Taken {
		if err := a.checkTakenAway(c.Forgotten); err != nil {
			return err
		}
	}
	before := a.Moves
	moves := before.Clone()
	did, err := migration.Apply(&moves, facts{a.State}, migration.Entry{Index: a.Index, At: a.c.At, Site: a.Site, Level: a.Level}, c)
	if err != nil {
		return moveError(err)
	}
	a.moved = did.Move
	d, arr := moves.Departures[did.Move], moves.Arrivals[did.Move]
	switch {
	case d != nil && d != before.Departures[did.Move]:
		err = a.checkDeparture(d)
	case arr != nil && arr != before.Arrivals[did.Move]:
		err = a.checkArrival(arr)
	}
	if err != nil {
		return err
	}
	halted := a.halted()
	a.Moves = moves
	a.changedMoves(&before)
	switch did.Order {
	case migration.Nothing:
	case migration.Halt:
		a.halt(d)
	case migration.GoOn:
		a.goOn(d)
	case migration.Leave:
		a.leave(d)
	case migration.Fence:
		a.fence(&before, c.Fenced)
	case migration.Arrive:
		a.arrive(arr)
	}
	if arr != nil && arr != before.Arrivals[did.Move] {
		a.receive(arr)
	}
	if was := before.Departures[did.Move]; c.Forgotten != nil && c.Forgotten.Taken && was != nil && was.MayBePrepared() {
		a.takenAway(was)
	}
	a.dropHalted(halted)
	return nil
}

// changedMoves says which records are not as they were, and has the feeds looked
// at for which that may matter.
func (a *apply) changedMoves(before *coordinator.Moves) {
	feeds := make(map[string]bool)
	of := func(is func(f *coordinator.Feed) bool) {
		for name, f := range a.Feeds {
			if is(f) {
				feeds[name] = true
			}
		}
	}
	ids := make(map[coordinator.MoveID]bool)
	for _, m := range []*coordinator.Moves{before, &a.Moves} {
		for id, d := range m.Departures {
			if before.Departures[id] != a.Moves.Departures[id] {
				ids[id] = true
				of(func(f *coordinator.Feed) bool { j := a.Jobs[d.Job]; return d.Offers(f) || j != nil && d.Takes(j, f) })
			}
		}
		for id, arr := range m.Arrivals {
			if before.Arrivals[id] != a.Moves.Arrivals[id] {
				ids[id] = true
				of(func(f *coordinator.Feed) bool { return brings(arr, f.Name) })
			}
		}
	}
	for _, id := range sorted(ids) {
		a.changed(Move, string(id))
	}
	for _, name := range sorted(feeds) {
		a.changed(Feed, name)
	}
}

// brings tells whether a feed's session comes with a job.
func brings(arr *coordinator.Arrival, name string) bool {
	return slices.ContainsFunc(arr.Job.Feeds, func(m coordinator.MovingFeed) bool { return m.Name == name && !m.Stay })
}

// halt tells a job to stop with a savepoint, for a move.
func (a *apply) halt(d *coordinator.Departure) {
	next := *a.Jobs[d.Job]
	next.Then, next.Move = dataflow.Halt, d.ID
	a.put(&next)
}

// goOn: the move was aborted, and the job goes on here. What had begun to stop is
// restarted from its newest checkpoint, as it stands still already.
func (a *apply) goOn(d *coordinator.Departure) {
	job := a.Jobs[d.Job]
	next := *job
	next.Then, next.Move = dataflow.GoOn, ""
	if job.Status == coordinator.Suspended || job.Status == coordinator.Stopping {
		next.Status, next.Savepoint, next.Since = coordinator.Restarting, "", a.c.At
		next.Why = cut(fmt.Sprintf("it does not move to site %s (%s)", d.To, d.Why))
	}
	a.put(&next)
}

// leave: the job is the target's.
func (a *apply) leave(d *coordinator.Departure) {
	job := a.Jobs[d.Job]
	a.leaveFeeds(job, d)
	a.movedTo(job, coordinator.Tenure{Epoch: d.Epoch + 1, Site: d.To, At: a.c.At}, fmt.Sprintf("site %s has it, by %s", d.To, d.ID))
}

// leaveFeeds: sessions go with the job, or stay, though no job here has them then.
// Those of mirrors are elsewhere.
func (a *apply) leaveFeeds(job *coordinator.Job, d *coordinator.Departure) {
	for _, name := range sorted(a.Feeds) {
		switch f := a.Feeds[name]; {
		case d.Takes(job, f):
			a.disownFeed(f, d)
		case f.Job == job.ID && f.Mirror == nil:
			next := *f
			next.Job, next.Past = "", append(slices.Clone(f.Past), job.ID)
			a.Feeds[name] = &next
			a.changed(Feed, name)
		}
	}
}

func (a *apply) disownFeed(f *coordinator.Feed, d *coordinator.Departure) {
	next := *f
	next.Owner = d.To
	if i := slices.IndexFunc(d.Configs, func(c coordinator.FeedConfig) bool { return c.Feed == f.Name }); i >= 0 && a.Level >= coordinator.SettledLevel {
		next.Config = slices.Clone(d.Configs[i].Config) // the session that it has there
	}
	a.Feeds[f.Name] = &next
	a.changed(Feed, f.Name)
}

// fence: another site has the job at a greater epoch, whatever it is at here.
func (a *apply) fence(before *coordinator.Moves, c *coordinator.JobFenced) {
	job := a.Jobs[c.Job]
	if job == nil {
		a.follow(c)
		return
	}
	by := &coordinator.Departure{To: c.Owner} // no move: it takes what is the job's own
	for _, id := range sorted(before.Departures) {
		if d := before.Departures[id]; d.Job == job.ID && d.To == c.Owner && d != a.Moves.Departures[id] && d.Epoch >= by.Epoch && a.forced(d, c) {
			by = d
		}
	}
	if by.ID != "" {
		a.leaveFeeds(job, by)
	} else {
		for _, name := range sorted(a.Feeds) {
			if f := a.Feeds[name]; f.Job == job.ID && f.Mirror == nil {
				a.disownFeed(f, by)
			}
		}
	}
	why, since := fmt.Sprintf("site %s has it, at epoch %d", c.Owner, c.Epoch), a.c.At
	if c.Since > 0 {
		since = c.Since
		why = fmt.Sprintf("site %s has had it since %s, at epoch %d", c.Owner, since, c.Epoch)
	}
	a.movedTo(job, coordinator.Tenure{Epoch: c.Epoch, Site: c.Owner, At: since}, fmt.Sprintf("%s; this site heard of it at %s, and ended its copy", why, a.c.At))
}

// forced tells whether an owner of whom this site hears may have the job by a move that
// was prepared, and that a person has forced: then sessions stay where that said. Who took
// what was kept of the job took its sessions.
func (a *apply) forced(d *coordinator.Departure, c *coordinator.JobFenced) bool {
	return a.Level < coordinator.SettledLevel || d.Savepoint != "" && c.Epoch == d.Epoch+1
}

// movedTo ends a job here because another site has it. Its files stay on record:
// it goes on with them when it comes back.
func (a *apply) movedTo(job *coordinator.Job, to coordinator.Tenure, why string) {
	next := *job
	if !job.Status.Ended() {
		delete(a.Names, coordinator.NameKey(job.Namespace, job.Name))
		next.End = a.Index
	}
	next.Status, next.Why, next.Since, next.Places = coordinator.Moved, cut(why), a.c.At, nil
	next.Then, next.Cancel, next.Move, next.Isolated = dataflow.GoOn, false, "", false
	next.Epoch, next.Owner = to.Epoch, to.Site
	if job.Status == coordinator.Suspended && a.Level >= coordinator.SettledLevel {
		next.Savepoint = "" // it goes, too
	}
	next.History = trimHistory(job.Passed(a.Site, to))
	a.put(&next)
	a.dropMirrors(func(f *coordinator.Feed) bool { return f.Job == job.ID || slices.Contains(job.Reads, f.Name) })
	a.forgetOldest()
}

func trimHistory(h []coordinator.Tenure) []coordinator.Tenure { return h[max(0, len(h)-MaxHistory):] }

// arrive makes a job this site's. One that was here before is replaced: its files
// and the numbers of its attempts go on. If yet another site is known to have it at
// a greater epoch that one keeps it.
func (a *apply) arrive(arr *coordinator.Arrival) {
	m, old := &arr.Job, a.Jobs[arr.Job.ID]
	job := &coordinator.Job{
		ID: m.ID, Namespace: coordinator.DefaultNamespace, Name: m.Name, Spec: m.Spec, Sets: m.Sets, Parallelism: m.Parallelism, Created: m.Created, Since: a.c.At,
		Epoch: arr.Epoch, Attempt: arr.Savepoint.ID.Token.Attempt, Checkpoints: []*coordinator.Snapshot{a.Savepoints[arr.Savepoint.Name]},
		Reads: m.ReadsAt(arr.From, a.Site, arr.ID), Adopted: m.Adopted, Overwrite: m.Overwrite, AllowNonRestored: m.Lossy, Completed: m.Completed,
		History: trimHistory(append(slices.Clone(m.History), coordinator.Tenure{Epoch: arr.Epoch, Site: a.Site, At: a.c.At})),
	}
	if old != nil {
		job.Attempt, job.Sinks, job.Request = max(job.Attempt, old.Attempt), old.Sinks, old.Request
		if old.Epoch >= arr.Epoch {
			return
		}
	}
	a.Names[coordinator.NameKey(job.Namespace, job.Name)] = job.ID
	a.put(job)
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		if f.Job == "" && f.Mirror == nil && f.Of(job.ID) { // its session stayed here
			next := *f
			next.Job, next.Past = job.ID, without(f.Past, job.ID)
			a.Feeds[name] = &next
			a.changed(Feed, name)
			continue
		}
		if i := slices.IndexFunc(m.Feeds, func(o coordinator.MovingFeed) bool { return o.Name == name && !o.Stay }); i >= 0 {
			epoch := arr.Epoch
			if a.Level >= coordinator.SettledLevel && slices.Contains(m.Reads, name) { // other jobs had it, at epochs of theirs
				epoch = max(epoch, newest(coordinator.LineageOf(f, a.Site)).Epoch+1)
			}
			if err := a.own(name, epoch); err == nil {
				f = a.Feeds[name]
			} else {
				a.takenMeanwhile(job.ID, f)
			}
			next := *f
			next.Owner, next.Config, next.Replicas, next.Degrade = "", m.Feeds[i].Config, m.Feeds[i].Replicas, m.Feeds[i].Degrade
			if slices.Contains(m.Reads, name) {
				a.readsNoMore(name)
				a.isBack(func(_ *coordinator.Departure, feed string) bool { return feed == name })
			} else {
				next.Job = job.ID
			}
			next.Move = ""
			a.Feeds[name] = &next
			a.changed(Feed, name)
		}
	}
}

// receive makes room for what an arrival brings, and gives it back if the job does
// not come.
func (a *apply) receive(arr *coordinator.Arrival) {
	switch arr.Phase {
	case coordinator.ArrivalReceiving:
		delete(a.Forgotten, arr.Job.ID)
		for i := range arr.Job.Feeds {
			a.receiveFeed(arr, &arr.Job.Feeds[i])
		}
	case coordinator.ArrivalPrepared:
		a.Savepoints[arr.Savepoint.Name] = arr.Savepoint
		a.changed(Savepoint, arr.Savepoint.Name)
	case coordinator.ArrivalActive, coordinator.ArrivalDropped:
		if arr.Savepoint != nil { // the job has it among its checkpoints, or nobody needs it
			delete(a.Savepoints, arr.Savepoint.Name)
			a.changed(Savepoint, arr.Savepoint.Name)
		}
		for _, name := range sorted(a.Feeds) {
			if a.Feeds[name].Move == arr.ID {
				delete(a.Feeds, name)
				a.changed(Feed, name)
			}
		}
		a.unmirror(arr)
		a.dropFeeds()
	}
}

// expects finds the arrival of a job of this name that is not decided.
func (a *apply) expects(name string) *coordinator.Arrival {
	for _, id := range sorted(a.Moves.Arrivals) {
		if arr := a.Moves.Arrivals[id]; !arr.Phase.Decided() && arr.Job.Name == name {
			return arr
		}
	}
	return nil
}

// moving is the move of a job that is not decided; empty: there is none.
func (a *apply) moving(job coordinator.JobID) coordinator.MoveID {
	if d := a.Leaving(job); d != nil {
		return d.ID
	}
	if arr := a.Arriving(job); arr != nil {
		return arr.ID
	}
	return ""
}

// movesWith is the move that is not decided, and needs a savepoint; empty: none
// does.
func (a *apply) movesWith(savepoint string) coordinator.MoveID {
	for _, id := range sorted(a.Moves.Departures) {
		d := a.Moves.Departures[id]
		if j := a.Jobs[d.Job]; !d.Phase.Decided() && (d.Savepoint == savepoint || j != nil && j.Status == coordinator.Suspended && j.Savepoint == savepoint) {
			return id
		}
	}
	for _, id := range sorted(a.Moves.Arrivals) {
		if arr := a.Moves.Arrivals[id]; arr.Phase == coordinator.ArrivalPrepared && arr.Savepoint.Name == savepoint {
			return id
		}
	}
	return ""
}

// checkReader checks that a shared feed is not another site's, or about to be.
func (a *apply) checkReader(job string, f *coordinator.Feed) error {
	switch d := a.LeavingFeed(f); {
	case f.Owner != "":
		return refuse(ErrRefused, "job %q reads feed %q, which is site %s's", job, f.Name, f.Owner)
	case d != nil:
		return refuse(ErrRefused, "job %q reads feed %q, which leaves for site %s, by %s", job, f.Name, d.To, d.ID)
	}
	return nil
}

// named tells whether a name is one in the whole mesh: that of a job since
// SitesLevel, or of such a job's own feed.
func named(id coordinator.JobID) bool {
	_, site, ok := id.Parts()
	return ok && site != ""
}

// checkDeparture checks what migration does not know of: a record that is to be.
func (a *apply) checkDeparture(d *coordinator.Departure) error {
	switch d.Phase {
	case coordinator.DepartureCopying:
		return a.checkBegan(d)
	case coordinator.DepartureHalting:
		if j := a.Jobs[d.Job]; j.Cancel || j.Then != dataflow.GoOn {
			return refuse(ErrStale, "job %s was told to end, and does not move", j.ID)
		}
	case coordinator.DepartureOffered:
		job := a.Jobs[d.Job]
		for _, name := range sorted(a.Feeds) {
			f := a.Feeds[name]
			i := slices.IndexFunc(d.Ends, func(e coordinator.FeedEnd) bool { return e.Feed == name })
			if d.Takes(job, f) && (!f.Log.Held || i < 0 || d.Ends[i].End != f.Log.Start) {
				return refuse(ErrStale, "move %s: feed %q, which moves, is not held, or ends elsewhere", d.ID, name)
			}
		}
	}
	return nil
}

// CheckMove says why a state would not take a MoveBegan. It changes nothing.
func CheckMove(st *coordinator.State, c *coordinator.MoveBegan) error {
	moves := st.Moves.Clone()
	did, err := migration.Apply(&moves, facts{st}, migration.Entry{Index: st.Index + 1, Site: st.Site, Level: st.Level}, &coordinator.MoveCommand{Began: c})
	if err != nil {
		return moveError(err)
	}
	a, d := &apply{State: st}, moves.Departures[did.Move]
	if err := a.checkBegan(d); err != nil {
		return err
	}
	return a.checkAway(d)
}

func (a *apply) checkBegan(d *coordinator.Departure) error {
	job := a.Jobs[d.Job]
	switch {
	case !named(job.ID):
		return refuse(ErrRefused, "job %s is from before feature level %d: another site may have one of that id. Stop it, and submit it again from its savepoint", job.ID, coordinator.SitesLevel)
	case job.Cancel || job.Then != dataflow.GoOn:
		return refuse(ErrRefused, "job %s was told to end", job.ID)
	case len(d.To) > MaxName || len(d.Request) > MaxName || len(d.Sets)+len(job.Sets) > MaxSets || max(len(d.Stay), len(d.Configs)) > MaxSources || long(d.Sets) || long(d.Stay):
		return refuse(ErrRefused, "job %s: too many settings or feeds, or a text that is too long", job.ID)
	}
	for _, c := range d.Configs {
		if f := a.Feeds[c.Feed]; f == nil || f.Job != job.ID || !d.Takes(job, f) || len(c.Config) > MaxSpec {
			return refuse(ErrRefused, "job %s: a config of feed %q, which is none of its own that moves, or one of more than %d bytes", job.ID, c.Feed, MaxSpec)
		}
	}
	for _, name := range sorted(a.Feeds) {
		f := a.Feeds[name]
		first, own := coordinator.Own(name)
		switch {
		case !d.Takes(job, f):
		case f.Job != "" && !(own && named(first)):
			return refuse(ErrRefused, "job %s: feed %q is from before feature level %d: another site may have one of that name. Let it stay", job.ID, name, coordinator.SitesLevel)
		case f.Job == "" && a.reader(f, job.ID) != "":
			return refuse(ErrRefused, "job %s: job %s reads feed %q too: let it stay", job.ID, a.reader(f, job.ID), name)
		}
	}
	if a.Level >= coordinator.SettledLevel {
		if err := a.checkAway(d); err != nil {
			return err
		}
	}
	for _, name := range d.Stay {
		if f := a.Feeds[name]; f == nil || f.Job != job.ID && (f.Job != "" || !slices.Contains(job.Reads, name)) {
			return refuse(ErrUnknown, "job %s does not read feed %q, which is to stay", job.ID, name)
		}
	}
	return nil
}

func long(all []string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return len(s) > MaxText })
}

// checkArrival checks what migration does not know of: a record that is to be. A
// decision is never refused.
func (a *apply) checkArrival(arr *coordinator.Arrival) error {
	switch arr.Phase {
	case coordinator.ArrivalReceiving:
		return a.checkReceiving(arr)
	case coordinator.ArrivalPrepared:
		s := arr.Savepoint
		if err := checkSnapshot(s); err != nil {
			return err
		}
		if s.Job != arr.Job.ID || s.ID.Token.Epoch >= arr.Epoch || s.ID.Token.Attempt > 1<<62 {
			return refuse(ErrRefused, "move %s: savepoint %q is not one of job %s from before epoch %d", arr.ID, s.Name, arr.Job.ID, arr.Epoch)
		}
		for _, m := range arr.Job.Feeds {
			f := a.Feeds[m.Name]
			ends := slices.ContainsFunc(arr.Ends, func(e coordinator.FeedEnd) bool { return e.Feed == m.Name })
			if !m.Stay && (!ends || f == nil || f.Log.Epoch == 0 || !f.Log.Held && f.Log.Mirror == nil) {
				return refuse(ErrStale, "move %s: the log of feed %q is not here", arr.ID, m.Name)
			}
			if err := a.checkCopy(arr, &m); err != nil {
				return err
			}
		}
		return a.roomFor(s.Name)
	}
	return nil
}

func (a *apply) checkReceiving(arr *coordinator.Arrival) error {
	m := &arr.Job
	if err := manifest.CheckName(m.Name); err != nil {
		return refuse(ErrRefused, "move %s: a job called %q", arr.ID, m.Name)
	}
	open := 0
	for _, other := range a.Moves.Arrivals {
		if !other.Phase.Decided() {
			open++
		}
	}
	switch {
	case !named(m.ID) || len(m.ID) > MaxName:
		return refuse(ErrRefused, "move %s: the id %q could be of two jobs of the mesh", arr.ID, m.ID)
	case m.Namespace != "" && m.Namespace != coordinator.DefaultNamespace:
		return refuse(ErrRefused, "move %s: namespace %q: there is only %q", arr.ID, m.Namespace, coordinator.DefaultNamespace)
	case arr.Epoch < 2 || arr.Epoch > a.maxEpoch() || len(m.Spec) > MaxSpec || len(m.Sets) > MaxSets || long(m.Sets) || m.Parallelism < 0 || m.Parallelism > dataflow.MaxMaxParallelism || len(m.History) > MaxHistory:
		return refuse(ErrRefused, "move %s: a job that was never anywhere, or with a spec, settings, or a parallelism that is too large", arr.ID)
	case len(m.Feeds) > 2*MaxSources || len(m.Reads) > MaxSources || len(m.Adopted) > MaxSources || long(m.Reads):
		return refuse(ErrRefused, "move %s: more than %d sources of a job", arr.ID, MaxSources)
	case len(a.Names)+open >= MaxLiveJobs || len(a.Feeds)+len(m.Feeds) > MaxFeeds:
		return refuse(ErrRefused, "%d jobs have not ended, or are on their way, or there are %d feeds: stop some first, or delete some", MaxLiveJobs, MaxFeeds)
	}
	for _, name := range m.Reads {
		if !slices.ContainsFunc(m.Feeds, func(f coordinator.MovingFeed) bool { return f.Name == name }) {
			return refuse(ErrRefused, "move %s: nothing is known of feed %q, which the job reads", arr.ID, name)
		}
	}
	for i := range m.Feeds {
		if a.Level >= coordinator.SettledLevel && slices.ContainsFunc(m.Feeds[:i], func(f coordinator.MovingFeed) bool { return f.Name == m.Feeds[i].Name }) {
			return refuse(ErrRefused, "move %s: feed %q is there twice", arr.ID, m.Feeds[i].Name)
		}
		if err := a.checkReceivingFeed(arr, &m.Feeds[i]); err != nil {
			return err
		}
	}
	return nil
}

// ownMove is a copy that nobody else can change, of a command that can be read.
func ownMove(c *coordinator.MoveCommand) (*coordinator.MoveCommand, error) {
	own := *c
	switch {
	case c.Fenced != nil && (c.Fenced.Owner == "" || len(c.Fenced.Owner) > MaxName):
		return nil, refuse(ErrRefused, "job %s: fenced by no site, or one with a name that is too long", c.Fenced.Job)
	case c.ArrivalDecided != nil && c.ArrivalDecided.Verdict > coordinator.DecisionFenced:
		return nil, refuse(ErrRefused, "move %s: a verdict that nobody knows", c.ArrivalDecided.ID)
	case c.Offered != nil && !sane(c.Offered.Ends):
		return nil, refuse(ErrRefused, "move %s: too many logs, or one that ends before it begins", c.Offered.ID)
	case c.ArrivalPrepared != nil:
		if p := *c.ArrivalPrepared; p.Savepoint == nil || !sane(p.Ends) {
			return nil, refuse(ErrRefused, "move %s: no savepoint, too many logs, or one that ends before it begins", p.ID)
		}
		p := *c.ArrivalPrepared
		p.Savepoint = ownSnapshot(p.Savepoint)
		own.ArrivalPrepared = &p
	case c.ArrivalBegan != nil:
		arr := *c.ArrivalBegan
		m := &arr.Job
		m.Spec, m.Sets, m.Reads, m.Adopted, m.History = slices.Clone(m.Spec), slices.Clone(m.Sets), slices.Clone(m.Reads), slices.Clone(m.Adopted), slices.Clone(m.History)
		m.Feeds = slices.Clone(m.Feeds)
		for i := range m.Feeds {
			m.Feeds[i].Config, m.Feeds[i].Lineage = slices.Clone(m.Feeds[i].Config), slices.Clone(m.Feeds[i].Lineage)
		}
		own.ArrivalBegan = &arr
	}
	return &own, nil
}
