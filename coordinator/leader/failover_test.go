package leader_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// losses is what is judged of the loss of a site.
type losses struct {
	taken      map[coordinator.JobID][]uint64 // epochs at which a person had the job go on here
	gone       map[coordinator.JobID]uint64   // greatest epoch at which another site was known to have it
	restorable map[coordinator.JobID]dataflow.CheckpointID
	exact      bool // nobody errs who says that a site is lost: never two have a job
	bug        string
	overs      int // failovers
}

func newLosses() losses {
	return losses{taken: make(map[coordinator.JobID][]uint64), gone: make(map[coordinator.JobID]uint64), restorable: make(map[coordinator.JobID]dataflow.CheckpointID)}
}

// took tells whether a person had a job go on here at an epoch.
func (s *site) took(id coordinator.JobID, epoch uint64) bool {
	return slices.Contains(s.losses.taken[id], epoch)
}

// observeOwner judges a command that is in force: what goes on here goes on from the
// newest that was whole here, and what another site has is not deployed.
func (s *site) observeOwner(st *coordinator.State, c *coordinator.Command) {
	if c := c.JobFailedOver; c != nil {
		s.losses.overs++
		s.losses.taken[c.Job] = append(s.losses.taken[c.Job], c.Epoch)
		if n := st.Jobs[c.Job].Newest(); c.From != s.name && (n == nil || n.ID.Less(s.losses.restorable[c.Job])) {
			s.fail("job %s goes on from %v, and %v was whole here", c.Job, n, s.losses.restorable[c.Job])
		}
	}
	if c := c.JobDeployed; c != nil {
		if j := st.Jobs[c.Job]; j.Epoch <= s.losses.gone[c.Job] {
			s.fail("job %s is deployed at epoch %d, and another site had it at %d", c.Job, j.Epoch, s.losses.gone[c.Job])
		}
	}
	for id, j := range st.Jobs {
		if j.Status == coordinator.Moved {
			s.losses.gone[id] = max(s.losses.gone[id], j.Epoch)
		}
	}
	for id, r := range st.Replicas {
		if r.Snapshot != nil {
			s.losses.restorable[id] = r.Snapshot.ID
		}
	}
}

// acts tells whether something of a job can act at a site: an attempt that has
// begun, or a session of its feed, on an agent that has a lease.
func (s *site) acts(id coordinator.JobID) string {
	for _, n := range s.sorted() {
		if !n.up || n.frozen || n.lease <= s.now {
			continue
		}
		if r := n.exec.attempts[id]; r != nil && r.began && !r.closing {
			return "an attempt on " + string(n.id)
		}
		for name, role := range n.exec.roles {
			if first, _ := coordinator.Own(name); first == id && role != nil && n.exec.owns[name] && !role.Epoch.Held && role.Epoch.Mirror == nil {
				return "a session on " + string(n.id)
			}
		}
	}
	return ""
}

// session tells whether an agent of a site takes into a log.
func (s *site) session() bool {
	return slices.ContainsFunc(s.sorted(), func(n *node) bool {
		return n.up && slices.ContainsFunc(slices.Sorted(maps.Keys(n.exec.roles)), func(name string) bool {
			r := n.exec.roles[name]
			return r != nil && n.exec.owns[name] && !r.Epoch.Held && r.Epoch.Mirror == nil
		})
	})
}

// judgeExact: nothing of a job acts at two sites at once.
func (s *site) judgeExact() {
	s.after(20*ms, s.judgeExact)
	for id := range s.state().Jobs {
		var at *site
		var does string
		for _, o := range s.sites {
			acts := o.acts(id)
			if acts != "" && at != nil {
				s.fail("job %s: %s at %s, and %s at %s", id, does, at.name, acts, o.name)
			}
			if acts != "" {
				at, does = o, acts
			}
		}
	}
}

// lose ends all agents of a site.
func (s *site) lose() {
	for _, n := range s.sorted() {
		if n.up {
			n.crash()
		}
	}
}

// comeBack starts them all.
func (s *site) comeBack() {
	for _, n := range s.sorted() {
		if !n.up {
			n.start()
		}
	}
	if s.leads == nil {
		s.lead(mesh.NodeID(s.name + "1"))
	}
}

func (s *script) failover(force, dry bool) {
	s.site.failover(s.args[0], s.number(1), force, dry)
}

// failover is a person's wish about a job by its name: one that is here, or is kept
// here.
func (s *site) failover(name string, ref int, force, dry bool) {
	st := s.state()
	w := &leader.Failover{Force: force, Dry: dry, Why: "a test"}
	for id, r := range st.Replicas {
		if r.Job.Name == name {
			w.Job = id
		}
	}
	if j := s.job(name); j != nil && (w.Job == "" || !j.Status.Ended()) {
		w.Job = j.ID
	}
	if w.Job == "" {
		return
	}
	if !dry && s.leads != nil {
		s.wan.forced, s.wan.twice = true, s.wan.forced
	}
	s.toLeader(leader.Event{Wish: &leader.Wish{Ref: ref, Failover: w}})
}

// Sites are lost and come back, links break, jobs move and are taken, whatever else
// fails: what observeOwner and judgeOwners judge holds; when all is well again one
// site has the job, or a person has to decide, and then one has it.
func TestAnyLoss(t *testing.T) {
	n := (*seeds + 1) / 2
	if testing.Short() {
		n = min(n, 2)
	}
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			t.Logf("%d failovers", anyLoss(seed, "", t.Errorf))
		})
	}
}

func anyLoss(seed uint64, bug string, fail func(string, ...any)) (overs int) {
	rng := rand.New(rand.NewPCG(seed, 3))
	var history strings.Builder
	failed, exact := false, seed%2 == 0
	names := []mesh.Site{"a", "b", "c"}
	if seed%4 == 0 {
		names = names[:2]
	}
	w := newWorldOf(func(c *clock, name mesh.Site) *site {
		s := newSiteOf(c, name, rng, func(format string, args ...any) {
			if !failed {
				failed = true
				fail("seed %d at %d ms, site %s: %s\n%s", seed, c.now/ms, name, fmt.Sprintf(format, args...), tail(history.String()))
			}
		}, func(format string, args ...any) {
			fmt.Fprintf(&history, "%d %s: %s\n", c.now/ms, name, fmt.Sprintf(format, args...))
		})
		s.losses.bug, s.losses.exact = bug, exact
		return s
	}, names...)
	all := []string{}
	for _, name := range names {
		all = append(all, string(name))
	}
	a := w.sites[0]
	if exact {
		a.after(20*ms, a.judgeExact)
	}
	a.run(1000 * ms)
	a.submit("kept", strings.Replace(logged, "name: logged", fmt.Sprintf("name: kept\nreplicate_to: [%s]", strings.Join(all, ", ")), 1), "", coordinator.Feed{Name: "in", Config: []byte(`{"lanes":1}`)})
	a.run(8000 * ms)
	for i := range 16 {
		w.loss(rng, i, exact)
		a.run(a.now + dataflow.Time(rng.Int64N(int64(4000*ms))))
		if failed {
			return 0
		}
	}
	w.wan.off, w.wan.lossy = false, false
	clear(w.wan.cut)
	for _, s := range w.sites {
		s.heal([]mesh.NodeID{mesh.NodeID(s.name + "1"), mesh.NodeID(s.name + "2")})
	}
	a.run(a.now + 40_000*ms)
	for i := range 3 { // what a person says may be lost, and is said again
		if runs, quarantined := w.owners(); len(runs) == 0 && len(quarantined) > 0 {
			quarantined[0].trace("FORCE")
			quarantined[0].failover("kept", 1000+i, true, false)
			a.run(a.now + 30_000*ms)
		}
	}
	if runs, quarantined := w.owners(); len(runs) != 1 || len(quarantined) > 0 {
		a.fail("the job runs at %d sites, and is quarantined at %d", len(runs), len(quarantined))
	} else if !runs[0].session() {
		a.fail("the job runs at site %s, and nobody takes into its log there", runs[0].name)
	}
	for _, s := range w.sites {
		overs += s.losses.overs
	}
	return overs
}

// owners are the sites that run the job, and those where it is quarantined.
func (w *clock) owners() (runs, quarantined []*site) {
	for _, s := range w.sites {
		switch j := s.job("kept"); {
		case j == nil:
		case j.Status == coordinator.Running:
			runs = append(runs, s)
		case j.Status == coordinator.Quarantined:
			quarantined = append(quarantined, s)
		}
	}
	return runs, quarantined
}

// loss does something to a site or a link, or is what a person does about it.
func (w *clock) loss(rng *rand.Rand, i int, exact bool) {
	s := w.sites[rng.IntN(len(w.sites))]
	switch rng.IntN(9) {
	case 0, 1:
		if runs, _ := w.owners(); len(runs) > 0 && rng.IntN(3) > 0 {
			s = runs[0]
		}
		s.trace("FAULT lose %s", s.name)
		s.lose()
		if rng.IntN(3) > 0 {
			s.seen(rng, i, exact)
		}
	case 2, 3:
		s.trace("FAULT return %s", s.name)
		s.comeBack()
	case 4, 5:
		_, r := oneReplica(s)
		if r == nil || exact && s.errs() {
			return
		}
		s.take(i, !exact && rng.IntN(3) == 0, exact)
	case 6:
		w.wan.off = !w.wan.off
		s.trace("FAULT link off: %v", w.wan.off)
	case 7:
		o := w.sites[rng.IntN(len(w.sites))]
		w.wan.cut[[2]mesh.Site{s.name, o.name}] = rng.IntN(2) == 0
	default:
		for _, s := range w.sites {
			if j := s.job("kept"); j != nil && !j.Status.Ended() {
				s.wishMove("migrate", "kept", i+1, false)
				if rng.IntN(2) == 0 && s.prepares(3000*ms) {
					s.run(s.now + dataflow.Time(rng.Int64N(int64(200*ms))))
					s.trace("FAULT lose %s, which moves it", s.name)
					s.lose()
					s.seen(rng, i, exact)
				}
				break
			}
		}
	}
}

// seen: a site is lost, and others take what it had.
func (s *site) seen(rng *rand.Rand, i int, exact bool) {
	s.run(s.now + 3000*ms)
	all := without(s.sites, s)
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for n, o := range all {
		if (n == 0 || rng.IntN(2) == 0) && !(exact && o.errs()) {
			o.take(i, false, exact)
		}
	}
}

func without(sites []*site, but *site) []*site {
	return slices.DeleteFunc(slices.Clone(sites), func(s *site) bool { return s == but })
}

// prepares waits until all of a job that moves is at the other site; false: it is not.
func (s *site) prepares(within dataflow.Time) bool {
	for end := s.now + within; s.now < end; s.run(s.now + 5*ms) {
		for _, arr := range s.other.state().Moves.Arrivals {
			if arr.Phase == coordinator.ArrivalPrepared {
				return true
			}
		}
	}
	return false
}

// take is a person's wish. Where nobody errs, the next one has seen what came of it.
func (s *site) take(i int, force, exact bool) {
	s.trace("WISH failover %d at %s", i, s.name)
	s.failover("kept", i+1, force, false)
	if exact {
		s.run(s.now + 1000*ms)
	}
}

// errs tells whether who has a site take the job would err: another one is there that has it,
// or that is to get it and would not hear of it.
func (s *site) errs() bool {
	_, r := oneReplica(s)
	if r == nil {
		return false
	}
	for _, o := range s.sites {
		st := o.state()
		j, arr := st.Jobs[r.Job.ID], st.Arriving(r.Job.ID)
		if o != s && o.up() && (o.name == r.From || j != nil && !j.Status.Ended() || arr != nil && !s.reaches(o)) {
			return true
		}
	}
	return false
}

// up tells whether somebody of a site is there.
func (s *site) up() bool { return slices.ContainsFunc(s.sorted(), func(n *node) bool { return n.up }) }

func oneReplica(s *site) (coordinator.JobID, *coordinator.Replica) {
	st := s.state()
	for _, id := range slices.Sorted(maps.Keys(st.Replicas)) {
		return id, st.Replicas[id]
	}
	return "", nil
}

// The judges see what is broken.
func TestPlantedBugsOfLoss(t *testing.T) {
	for _, bug := range []string{"never isolated", "nobody asks"} {
		seen := ""
		for seed := uint64(0); seed < 40 && seen == ""; seed++ {
			anyLoss(seed, bug, func(format string, args ...any) {
				seen, _, _ = strings.Cut(fmt.Sprintf(format, args...), "\n")
			})
		}
		if t.Logf("%s: %s", bug, seen); seen == "" {
			t.Errorf("nobody saw it: %s", bug)
		}
	}
}
