package leader

import (
	"encoding/json"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/checkpoint"
	"github.com/tidemark-mesh/tidemark/coordinator/restart"
	"github.com/tidemark-mesh/tidemark/coordinator/schedule"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Parsed is what the leader must know of a job's text.
type Parsed struct {
	Graph      *graph.ExecutionGraph
	Slots      []schedule.Slot // without pins, and what is near
	Feeds      []FeedUse
	Checkpoint checkpoint.Config // its times and limits only
	Restart    restart.Config
	Replicas   int  // copies of each part; 0: the default
	Degrade    bool // when_short: degrade
	// Unfenced are the tasks with a sink that acts where no token is looked at. A
	// broker knows none.
	Unfenced    map[dataflow.TaskID]bool
	ReplicateTo []mesh.Site // what is needed to go on with it is kept there too
	Continues   bool        // on_isolation: continue
}

// FeedUse is a source that reads a feed.
type FeedUse struct {
	Source dataflow.OperatorID
	Feed   string // its name in the state
	Wants  []schedule.Want
}

// What a job does that says nothing of it.
const (
	interval  = 10 * dataflow.Second // from one checkpoint to the next
	timeout   = 10 * dataflow.Minute // for one
	tolerable = 3                    // checkpoints in a row that may fail
)

// Parse reads a job's text as it was submitted.
func Parse(j *coordinator.Job) (*Parsed, error) {
	loaded, err := job.Load(j.Name, j.Spec, job.Options{Set: j.Sets, Parallelism: j.Parallelism})
	if err != nil {
		return nil, err
	}
	x := graph.Expand(graph.Chain(loaded.Graph, graph.Options{}))
	p := &Parsed{Graph: x, Slots: schedule.Slots(x, loaded.Constraints, loaded.Placement), Restart: restartConfig(loaded.Restart), Replicas: loaded.Replicas,
		Degrade: loaded.WhenShort == job.Degrade, Continues: loaded.OnIsolation == job.ContinueIsolated, Unfenced: make(map[dataflow.TaskID]bool)}
	ck := loaded.Checkpoint
	p.Checkpoint = checkpoint.Config{Interval: ck.Interval, MinPause: ck.MinPause, Timeout: ck.Timeout, Tolerable: ck.TolerableFailures, Retain: coordinator.RetainedCheckpoints, Whole: true}
	if ck.Interval == 0 {
		p.Checkpoint.Interval = interval
	}
	if !ck.Given {
		p.Checkpoint.Timeout, p.Checkpoint.Tolerable = timeout, tolerable
	}
	for _, s := range x.Subtasks {
		p.Checkpoint.Subtasks = append(p.Checkpoint.Subtasks, s.ID)
	}
	for _, s := range loaded.Sources {
		use := FeedUse{Source: s.ID, Wants: append(schedule.Wants("", loaded.Constraints), schedule.Wants(s.ID, loaded.Placement[s.ID])...)}
		switch {
		case s.MQTT != nil:
			use.Feed = j.OwnFeed(s.ID)
		case s.Feed != nil:
			use.Feed = j.SharedFeed(s.Feed.Name)
		default:
			continue
		}
		p.Feeds = append(p.Feeds, use)
	}
	for _, s := range loaded.ReplicateTo {
		p.ReplicateTo = append(p.ReplicateTo, mesh.Site(s))
	}
	for _, s := range loaded.Sinks {
		if t, _ := x.Job.Task(s.ID); s.MQTT != nil && t != nil {
			p.Unfenced[t.ID] = true
		}
	}
	return p, nil
}

func restartConfig(r job.Restart) restart.Config {
	if !r.Given {
		return restart.Default(true)
	}
	kinds := map[job.RestartStrategy]restart.Kind{job.ExponentialDelay: restart.ExponentialDelay, job.FixedDelay: restart.FixedDelay,
		job.FailureRate: restart.FailureRate, job.NoRestart: restart.None}
	return restart.Config{
		Kind: kinds[r.Strategy], Attempts: r.Attempts, Delay: r.Delay, MaxFailures: r.MaxFailures, Interval: r.Interval,
		Initial: r.Initial, Max: r.Max, Multiplier: r.Multiplier, Jitter: r.Jitter, ResetAfter: r.ResetAfter,
	}
}

// lanes of a feed, as agent/feed writes its config: subtask i of a source has
// those of which i is the rest, divided by the parallelism. 0: nobody can tell.
func lanes(f *coordinator.Feed) int {
	var c struct {
		Lanes int `json:"lanes"`
	}
	if json.Unmarshal(f.Config, &c) != nil {
		return 0
	}
	return max(c.Lanes, 1)
}
