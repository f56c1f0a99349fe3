package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// HealthInfo is what an agent thinks of itself.
type HealthInfo struct {
	Ready   bool     `json:"ready"`
	Why     []string `json:"why"`
	Applied uint64   `json:"applied"`
	Lease   bool     `json:"lease"`
	Leader  string   `json:"leader"`
	Node    string   `json:"node"`
	Version string   `json:"version"`
}

func (s *server) registerHealth() {
	hidden := func(o *huma.Operation) { o.Security = []map[string][]string{} }
	register(s, op(http.MethodGet, "/healthz", "alive", "The process answers", hidden), func(context.Context, *struct{}) (*body[map[string]bool], error) {
		return answer(map[string]bool{"alive": true}), nil
	})
	type ready struct {
		Status int
		Body   HealthInfo
	}
	register(s, op(http.MethodGet, "/readyz", "ready", "200 if the agent takes requests, else 503, with why not"), func(context.Context, *struct{}) (*ready, error) {
		h := s.b.Health()
		out := &ready{Status: http.StatusOK, Body: HealthInfo{Ready: h.Ready, Why: append([]string{}, h.Why...), Applied: h.Applied, Lease: h.Lease,
			Leader: string(s.b.Leader()), Node: string(s.b.Self()), Version: s.o.Version}}
		if !h.Ready {
			out.Status = http.StatusServiceUnavailable
		}
		return out, nil
	})
}

// metrics answers with this agent's numbers; those of the whole site are on the
// leader only, so that nothing is counted twice.
func (s *server) metrics() http.Handler {
	all := siteMetrics()
	maps.Copy(all, runtimeMetrics())
	room := make(chan struct{}, maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		default:
			http.Error(w, "too many ask for metrics at the same time", http.StatusServiceUnavailable)
			return
		}
		e := newExposition(all)
		collectRuntime(e)
		s.collect(func(name string, kind metricKind, v float64, labels ...string) {
			e.send("tidemark_"+name, kind, v, labels...)
		})
		e.answer(w, r)
	})
}

const maxScrapes = 4 // at the same time; more are refused

// siteMetrics are Tidemark's own.
func siteMetrics() map[string]metric {
	all := make(map[string]metric)
	of := func(labels []string, names map[string]string) {
		for name, help := range names {
			all["tidemark_"+name] = metric{help, labels}
		}
	}
	of([]string{"job", "name", "subtask", "operator"}, map[string]string{
		"operator_in_rows_total":       "Rows into an operator, in this attempt.",
		"operator_out_rows_total":      "Rows out of an operator.",
		"operator_late_rows_total":     "Rows that came too late for their window.",
		"operator_rejected_rows_total": "Rows that were rejected.",
	})
	of([]string{"job", "name", "subtask"}, map[string]string{
		"subtask_busy_seconds_total":    "Time at work.",
		"subtask_blocked_seconds_total": "Time blocked by those behind it.",
		"subtask_watermark_seconds":     "Event time, as seconds since 1970.",
		"subtask_watermark_lag_seconds": "Arrival clock less event time.",
	})
	of([]string{"feed"}, map[string]string{
		"log_end": "Sequence number behind the last entry of a feed's log.", "log_bytes": "Size of a feed's log.", "feed_messages_total": "Messages taken.",
		"feed_connected": "1 while the broker is connected.", "feed_blocked": "1 while nothing is acknowledged.",
		"mirror_connected": "1 while a mirror takes the log of its source.", "mirror_lag_entries": "Entries that a mirror lacks of its source.",
		"mirror_lag_bytes": "Payloads and topics of these.", "mirror_lag_seconds": "The same on the arrival clock.",
		"mirror_lost_entries_total": "Entries that the source did not keep until the mirror had them.",
	})
	of([]string{"job", "from", "to"}, map[string]string{
		"replica_lag_entries": "Entries of a job's logs that another site lacks, on the leader of either site.", "replica_lag_bytes": "Payloads and topics of these, on the leader of the site that lacks them.",
		"replica_lag_seconds": "The same on the arrival clock.", "replica_restorable": "1 if the job could go on from what is kept there.",
	})
	of([]string{"job", "name"}, map[string]string{
		"job_isolated": "1 while a job waits to hear that no other site has taken it, as its own was down.",
		"job_attempt":  "Number of the present attempt.", "job_restarts_total": "Attempts that failed.",
		"checkpoint_duration_seconds": "How long the newest checkpoint took.", "checkpoint_bytes": "What was written for the newest checkpoint.",
		"checkpoint_counter": "Counter of the newest checkpoint.", "checkpoint_completed_seconds": "When the newest checkpoint was begun, as seconds since 1970.",
	})
	of([]string{"job", "name", "status"}, map[string]string{"job_status": "1 for the status that a job has."})
	of([]string{"job", "name", "phase"}, map[string]string{"attempt_prepare_seconds": "How long what led to the present attempt took here, by phase."})
	of([]string{"job", "name"}, map[string]string{
		"attempt_restored_bytes": "Parts of state that the present attempt was restored from here.", "attempt_fetched_bytes": "Of these, what came from other agents.",
	})
	of([]string{"status"}, map[string]string{"members": "Agents of the site, as gossip knows them."})
	of(nil, map[string]string{
		"raft_applied_index": "Index of the last command applied here.", "raft_is_leader": "1 on the leader.", "ready": "1 if the agent takes requests.",
		"lease_held": "1 if the agent may act on the world.", "disk_free_bytes": "Free space where the data folder is.",
	})
	describeNetwork(of)
	return all
}

// put is a number on its way out.
type put func(name string, kind metricKind, v float64, labels ...string)

// collect reads the numbers when they are asked for.
func (s *server) collect(send put) {
	b := s.b
	h, leads := b.Health(), b.Leader() == b.Self()
	send("raft_applied_index", gauge, float64(h.Applied))
	send("raft_is_leader", gauge, one(leads))
	send("ready", gauge, one(h.Ready))
	send("lease_held", gauge, one(h.Lease))
	names, agents := make(map[coordinator.JobID]string), make(map[mesh.NodeID]string)
	var jobs []*coordinator.Job
	var site string
	b.View(func(st *coordinator.State) {
		site = string(st.Site)
		for _, j := range sortedJobs(st) {
			names[j.ID] = j.Name
			jobs = append(jobs, j)
		}
		for id, a := range st.Agents {
			agents[id] = a.Name
		}
	})
	network := b.Network()
	collectNetwork(send, &network, agents, time.Now())
	statuses, logs, free := b.Here()
	if free > 0 {
		send("disk_free_bytes", gauge, float64(free))
	}
	for i := range statuses {
		collectSubtask(send, &statuses[i], names[statuses[i].Job])
	}
	for _, p := range b.Preparations() {
		id, name := string(p.Job), names[p.Job]
		for _, f := range p.Phases {
			send("attempt_prepare_seconds", gauge, f.Took.Seconds(), id, name, f.Name)
		}
		send("attempt_restored_bytes", gauge, float64(p.Bytes), id, name)
		send("attempt_fetched_bytes", gauge, float64(p.Fetched), id, name)
	}
	for _, l := range logs {
		send("log_end", gauge, float64(l.End), l.Feed)
		send("log_bytes", gauge, float64(l.Bytes), l.Feed)
		send("feed_messages_total", counter, float64(l.Messages), l.Feed)
		send("feed_blocked", gauge, one(l.Why != ""), l.Feed)
		if l.Of == nil {
			send("feed_connected", gauge, one(l.Broker == "connected"), l.Feed)
			continue
		}
		collectMirror(send, &l, sensors.Wall{}.Now())
	}
	collectReplicas(send, b.Replicas(), site)
	count := make(map[string]int)
	for _, m := range b.Members() {
		count[m.Status.String()]++
	}
	for _, st := range slices.Sorted(maps.Keys(count)) {
		send("members", gauge, float64(count[st]), st)
	}
	if leads {
		for _, j := range jobs {
			collectJob(send, j)
		}
	}
}

// collectMirror: of a source that was never heard nothing is known.
func collectMirror(send put, l *coordinator.LogStatus, now dataflow.Time) {
	send("mirror_connected", gauge, one(l.Of.Node != ""), l.Feed)
	send("mirror_lost_entries_total", counter, float64(l.Of.Lost), l.Feed)
	if l.Of.Heard == 0 {
		return
	}
	entries, bytes, ms := LagOf(l, now)
	send("mirror_lag_entries", gauge, float64(entries), l.Feed)
	send("mirror_lag_bytes", gauge, float64(bytes), l.Feed)
	send("mirror_lag_seconds", gauge, float64(ms)/1000, l.Feed)
}

// collectReplicas: what is not known is no 0.
func collectReplicas(send put, all []Replica, site string) {
	for _, r := range all {
		if !r.Unknown {
			send("replica_lag_entries", gauge, float64(r.Entries), r.Job, r.From, r.To)
		}
		if !r.Unknown && r.From != site { // only who keeps it knows them
			send("replica_lag_bytes", gauge, float64(r.Bytes), r.Job, r.From, r.To)
			send("replica_lag_seconds", gauge, float64(r.Time)/1000, r.Job, r.From, r.To)
		}
		send("replica_restorable", gauge, one(r.Restorable), r.Job, r.From, r.To)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(d dataflow.Duration) float64 { return float64(d) / float64(dataflow.Second) }

func collectSubtask(send put, s *coordinator.SubtaskStatus, name string) {
	id, sub := string(s.Job), s.Subtask.String()
	for _, o := range s.Operators {
		send("operator_in_rows_total", counter, float64(o.In), id, name, sub, string(o.Operator))
		send("operator_out_rows_total", counter, float64(o.Out), id, name, sub, string(o.Operator))
		send("operator_late_rows_total", counter, float64(o.Late), id, name, sub, string(o.Operator))
		send("operator_rejected_rows_total", counter, float64(o.Rejected), id, name, sub, string(o.Operator))
	}
	send("subtask_busy_seconds_total", counter, seconds(s.Busy), id, name, sub)
	send("subtask_blocked_seconds_total", counter, seconds(s.Blocked), id, name, sub)
	if s.Watermark > dataflow.MinTime && s.Watermark < dataflow.MaxTime {
		send("subtask_watermark_seconds", gauge, seconds(dataflow.Duration(s.Watermark)), id, name, sub)
		if s.Arrival > dataflow.MinTime && s.Arrival < dataflow.MaxTime {
			send("subtask_watermark_lag_seconds", gauge, seconds(dataflow.Duration(s.Arrival-s.Watermark)), id, name, sub)
		}
	}
}

func collectJob(send put, j *coordinator.Job) {
	id := string(j.ID)
	send("job_status", gauge, 1, id, j.Name, j.Status.String())
	if j.Status.Ended() {
		return
	}
	send("job_isolated", gauge, one(j.Isolated), id, j.Name)
	send("job_attempt", gauge, float64(j.Attempt), id, j.Name)
	send("job_restarts_total", counter, float64(j.Restarts), id, j.Name)
	n := j.Newest()
	if n == nil {
		return
	}
	send("checkpoint_bytes", gauge, float64(n.Bytes), id, j.Name)
	send("checkpoint_counter", gauge, float64(n.ID.Counter), id, j.Name)
	if m, err := manifest.Decode(n.Manifest); err == nil {
		send("checkpoint_duration_seconds", gauge, seconds(m.Took), id, j.Name)
		send("checkpoint_completed_seconds", gauge, seconds(dataflow.Duration(m.Created)), id, j.Name)
	}
}
