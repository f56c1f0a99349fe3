package api

import (
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/restore"
)

// What goes over the API. Times are RFC 3339, in UTC; a time that is not known
// is empty. Durations are milliseconds, sizes bytes.

// Submission is a job to be run.
type Submission struct {
	Spec             string   `json:"spec" doc:"the job, as YAML" maxLength:"2097151"`
	File             string   `json:"file,omitempty" doc:"what messages call it" maxLength:"4096"`
	Set              []string `json:"set,omitempty" doc:"replaced values, as PATH=VALUE" maxItems:"1000"`
	From             string   `json:"from,omitempty" doc:"a savepoint to begin with; JOB/ID of a checkpoint, or JOB for its newest" maxLength:"4096"`
	AllowNonRestored bool     `json:"allow_non_restored,omitempty" doc:"state that no operator of the job takes may go"`
	Overwrite        bool     `json:"overwrite,omitempty" doc:"files of sinks that are there and not empty are emptied, not refused"`
	Request          string   `json:"request,omitempty" doc:"a random text: sent again with the same one, the job is not made twice" maxLength:"128"`
}

// Submitted is what became of a Submission.
type Submitted struct {
	ID    string   `json:"id"`
	Name  string   `json:"name"`
	Notes []string `json:"notes,omitempty"`
}

// Dry is a job to be checked.
type Dry struct {
	Submission
	Verify bool `json:"verify,omitempty" doc:"also read all parts of the savepoint"`
}

// Checked is what would become of a job.
type Checked struct {
	OK        bool            `json:"ok"`
	Job       string          `json:"job"`
	Operators int             `json:"operators"`
	Tasks     int             `json:"tasks"`
	Slots     int             `json:"slots"`
	Notes     []string        `json:"notes,omitempty"`
	Restore   *restore.Report `json:"restore,omitempty" doc:"with from: what becomes of its state"`
}

// Job is a job in short.
type Job struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Namespace   string `json:"namespace"`
	Status      string `json:"status" enum:"created,restoring,running,restarting,stopping,stopped,finished,failed,cancelled,suspended,moved,quarantined"`
	Why         string `json:"why"`
	Attempt     uint64 `json:"attempt"`
	Restarts    int    `json:"restarts"`
	From        string `json:"from" doc:"the checkpoint or savepoint that the present attempt went on from"`
	Parallelism int    `json:"parallelism" doc:"that it was rescaled to, else the greatest that the job says"`
	Created     string `json:"created"`
	Since       string `json:"since" doc:"when its status changed last"`
	Checkpoint  string `json:"checkpoint,omitempty" doc:"its newest"`
	Savepoint   string `json:"savepoint,omitempty" doc:"that it stopped with"`
	Site        string `json:"site" doc:"that has it; of one that has moved another one than is asked"`
	Move        string `json:"move,omitempty" doc:"for which it stops, or has stopped"`
	Isolated    bool   `json:"isolated,omitempty" doc:"its site was down, and another one may have taken it: nothing of it runs until those that keep it have said that they have not"`
	Hint        string `json:"hint,omitempty" doc:"of one that is isolated or quarantined: what a person can do"`
}

// Tenure is from when on a site had a job.
type Tenure struct {
	Site  string `json:"site"`
	Epoch uint64 `json:"epoch" doc:"of owners, from 1"`
	At    string `json:"at"`
}

// JobSpec is what a job was made of.
type JobSpec struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Spec        string   `json:"spec" doc:"as YAML, with references to secrets, never the secrets"`
	Set         []string `json:"set,omitempty" doc:"replaced values, as PATH=VALUE"`
	Parallelism int      `json:"parallelism,omitempty" doc:"that it was rescaled to; 0: as the spec says"`
}

// JobDetail is all that is known of a job.
type JobDetail struct {
	Job
	MaxParallelism int         `json:"max_parallelism"`
	Subtasks       []Subtask   `json:"subtasks"`
	Totals         Totals      `json:"totals"`
	Checkpoints    Checkpoints `json:"checkpoints"`
	Feeds          []Feed      `json:"feeds"`
	Sinks          []SinkFile  `json:"sinks,omitempty" doc:"how far targets are committed, by agent"`
	History        []Tenure    `json:"history,omitempty" doc:"of a job that has moved: who had it"`
	Replicas       []Replica   `json:"replicas,omitempty" doc:"what other sites keep of it"`
}

// Replica is what a site keeps of another one's job.
type Replica struct {
	Job        string `json:"job"`
	Name       string `json:"name"`
	From       string `json:"from" doc:"the site that has the job"`
	To         string `json:"to" doc:"the site that keeps it"`
	Snapshot   string `json:"snapshot,omitempty" doc:"that is complete there"`
	Fetching   string `json:"fetching,omitempty" doc:"the next one"`
	Restorable bool   `json:"restorable" doc:"the job could go on from it, as far as is known where it is asked"`
	Why        string `json:"why,omitempty" doc:"it could not"`
	Entries    int64  `json:"lag_entries" doc:"of its logs that are missing there"`
	Bytes      int64  `json:"lag_bytes,omitempty" doc:"their payloads and topics; only the site that keeps it knows"`
	Time       int64  `json:"lag_ms,omitempty" doc:"the same on the arrival clock, and since the other site was heard, if that is long ago; only the site that keeps it knows"`
	Unknown    bool   `json:"lag_unknown,omitempty" doc:"more may be missing: nothing is known of some of its logs"`
	Heard      int64  `json:"heard,omitempty" doc:"when the other site said so, of several logs the earliest, in us since 1970; 0: it has not"`
}

// Subtask is where one runs, and what it has done in this attempt.
type Subtask struct {
	Subtask   string     `json:"subtask"`
	Agent     string     `json:"agent"`
	Node      string     `json:"node"`
	In        int64      `json:"in" doc:"rows into its first operator"`
	Out       int64      `json:"out" doc:"rows out of its last operator; of a sink: into it"`
	Watermark string     `json:"watermark"`
	Busy      int64      `json:"busy" doc:"ms"`
	Blocked   int64      `json:"blocked" doc:"ms"`
	Late      int64      `json:"late"`
	Rejected  int64      `json:"rejected"`
	Operators []Operator `json:"operators,omitempty"`
}

// Operator is the counters of an operator of a subtask.
type Operator struct {
	ID            string `json:"id"`
	In            int64  `json:"in"`
	Out           int64  `json:"out"`
	Late          int64  `json:"late,omitempty"`
	InNoWindow    int64  `json:"in_no_window,omitempty"`
	Rejected      int64  `json:"rejected,omitempty"`
	Markers       int64  `json:"markers,omitempty"`
	Filtered      int64  `json:"filtered,omitempty"`
	Duplicates    int64  `json:"duplicates,omitempty"`
	Forgotten     int64  `json:"dedupe_forgotten,omitempty"`
	DivByZero     int64  `json:"division_by_zero,omitempty"`
	Overflow      int64  `json:"overflow,omitempty"`
	FirstRejected string `json:"first_rejected,omitempty"`
}

// Totals adds up a job's counters of its present attempt.
type Totals struct {
	In            int64  `json:"rows_in" doc:"rows of all sources"`
	Out           int64  `json:"rows_out" doc:"rows that went into sinks"`
	Late          int64  `json:"late"`
	InNoWindow    int64  `json:"in_no_window"`
	Rejected      int64  `json:"rejected"`
	Markers       int64  `json:"markers"`
	Filtered      int64  `json:"filtered"`
	Duplicates    int64  `json:"duplicates"`
	DivByZero     int64  `json:"division_by_zero"`
	Overflow      int64  `json:"overflow"`
	Watermark     string `json:"watermark" doc:"the least of all sources'"`
	FirstRejected string `json:"first_rejected,omitempty"`
}

// Checkpoints is how a job's checkpoints go.
type Checkpoints struct {
	Completed uint64          `json:"completed" doc:"so far, in all attempts"`
	Kept      int             `json:"kept"`
	Last      *LastCheckpoint `json:"last"`
}

// LastCheckpoint is a job's newest.
type LastCheckpoint struct {
	ID    string `json:"id"`
	Took  int64  `json:"took" doc:"ms"`
	Bytes int64  `json:"bytes" doc:"written for it"`
	At    string `json:"at"`
}

// SinkFile is how far a sink's target is committed on an agent.
type SinkFile struct {
	Operator string `json:"operator"`
	Agent    string `json:"agent"`
	Target   string `json:"target"`
	Length   int64  `json:"length"`
}

// Savepointed names a savepoint that was taken.
type Savepointed struct {
	Savepoint string `json:"savepoint"`
}

// Saving asks for a savepoint.
type Saving struct {
	Request string `json:"request,omitempty" doc:"a random text: sent again with the same one, it is the same savepoint" maxLength:"128"`
}

// Rescaling is a parallelism to go on with.
type Rescaling struct {
	Parallelism int `json:"parallelism" minimum:"1"`
}

// EventLine is something that happened.
type EventLine struct {
	At   string `json:"at"`
	Job  string `json:"job,omitempty"`
	What string `json:"what" doc:"its kind: job, checkpoint, agent, feed, leader, site, move; end: the job has ended, and nothing follows"`
	Text string `json:"text"`
	Lost int    `json:"lost,omitempty" doc:"events that were lost before it: whoever listens was too slow"`

	MoveID string    `json:"move,omitempty" doc:"of an event move"`
	Step   *MoveStep `json:"step,omitempty" doc:"of an event move: what happened to it"`
}

// Snapshot is a checkpoint or a savepoint.
type Snapshot struct {
	ID             string             `json:"id"`
	Namespace      string             `json:"namespace"`
	Job            string             `json:"job,omitempty"`
	JobID          string             `json:"job_id,omitempty"`
	Kind           string             `json:"kind"`
	Created        string             `json:"created,omitempty"`
	Mode           string             `json:"mode,omitempty"`
	MaxParallelism int                `json:"max_parallelism,omitempty"`
	Drained        bool               `json:"drained,omitempty"`
	Finished       bool               `json:"finished,omitempty"`
	Duration       int64              `json:"duration_ms"`
	Bytes          int64              `json:"bytes"`
	Delta          int64              `json:"delta_bytes" doc:"not in the checkpoint before it"`
	Rows           int64              `json:"rows"`
	Copies         int                `json:"copies" doc:"of the part that has the fewest"`
	Where          []string           `json:"where" doc:"agents that have parts of it"`
	Error          string             `json:"error,omitempty" doc:"why it cannot be read"`
	Operators      []SnapshotOperator `json:"operators,omitempty"`
}

// SnapshotOperator is what is saved of an operator.
type SnapshotOperator struct {
	ID          string             `json:"id"`
	Parallelism int                `json:"parallelism"`
	Positions   []SnapshotPosition `json:"positions,omitempty"`
	States      []SnapshotState    `json:"states,omitempty"`
}

// SnapshotPosition is where a split of a source goes on.
type SnapshotPosition struct {
	Split  string `json:"split"`
	Offset int64  `json:"offset"`
	Ended  bool   `json:"ended,omitempty"`
}

// SnapshotState is a state of an operator.
type SnapshotState struct {
	Name    string `json:"name"`
	Keyed   bool   `json:"keyed"`
	Columns string `json:"columns"`
	Rows    int64  `json:"rows" doc:"of parts; deltas count what they change"`
	Bytes   int64  `json:"bytes"`
	Parts   int    `json:"parts"`
}

// Verified says that all parts were read.
type Verified struct {
	ID    string `json:"id"`
	OK    bool   `json:"ok"`
	Parts int    `json:"parts"`
	Bytes int64  `json:"bytes"`
}

// Feed is a durable ingestion.
type Feed struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Job       string   `json:"job,omitempty" doc:"whose source it is; empty: it is shared"`
	Broker    string   `json:"broker"`
	Topics    []string `json:"topics"`
	QoS       int      `json:"qos"`
	Lanes     int      `json:"lanes"`
	ClientID  string   `json:"client_id"`
	Replicas  int      `json:"replicas" doc:"copies asked for; 0: 2, or 1 in a site that has only ever had one agent"`
	WhenShort string   `json:"when_short" enum:"block,degrade"`
	Epoch     uint64   `json:"epoch"`
	Owner     string   `json:"owner" doc:"the agent that has the session and appends"`
	Members   []string `json:"members" doc:"agents that have its log"`
	Entries   int64    `json:"entries" doc:"sequence number behind its last entry"`
	Bytes     int64    `json:"bytes"`
	Messages  int64    `json:"messages"`
	State     string   `json:"state" doc:"connected, or why not; stopped: its job has ended"`
	Why       string   `json:"why,omitempty" doc:"it does not acknowledge, if so"`
	Readers   []string `json:"readers" doc:"live jobs that read it"`
	Error     string   `json:"error,omitempty"`
	Hint      string   `json:"hint,omitempty" doc:"of one whose job has ended: what can be done with it"`
	// Mirror is of one that is a copy of another site's, and has no session.
	Mirror  *FeedMirror   `json:"mirror,omitempty" doc:"the feed of another site that it is a copy of"`
	Mirrors []FeedMirrors `json:"mirrors,omitempty" doc:"copies of it at other sites"`
}

// FeedMirror is the source of a mirror, and how far behind it the mirror is, as the
// source said last.
type FeedMirror struct {
	Site    string `json:"site"`
	Feed    string `json:"feed"`
	Agent   string `json:"agent,omitempty" doc:"id of the agent that it is taken from; empty: from nobody now"`
	Entries int64  `json:"lag_entries"`
	Bytes   int64  `json:"lag_bytes" doc:"payloads and topics"`
	Time    int64  `json:"lag_ms" doc:"by the arrival clock, and since the source was heard, if that is long ago"`
	Heard   int64  `json:"heard_us,omitempty" doc:"when the source said so; absent: never"`
	Lost    int64  `json:"lost_entries,omitempty" doc:"that the source did not keep long enough, since the mirror was opened"`
}

// FeedMirrors is a copy at another site, as the source knows it.
type FeedMirrors struct {
	Site    string `json:"site"`
	Feed    string `json:"feed,omitempty" doc:"empty: it has never asked"`
	Agent   string `json:"agent,omitempty" doc:"id of the agent that takes it; empty: nobody does now"`
	Entries int64  `json:"lag_entries"`
	Heard   int64  `json:"heard_us,omitempty" doc:"when it said so; absent: never"`
	Let     bool   `json:"let,omitempty" doc:"the log does not have any more what it lacks"`
}

// NewFeed is a shared feed to be made.
type NewFeed struct {
	Name      string   `json:"name" minLength:"1" maxLength:"128"`
	Broker    string   `json:"broker" minLength:"1" maxLength:"4096"`
	Topics    []string `json:"topics" minItems:"1" maxItems:"1000"`
	QoS       int      `json:"qos,omitempty" minimum:"0" maximum:"2"`
	Lanes     int      `json:"lanes,omitempty" minimum:"0" maximum:"1024"`
	ClientID  string   `json:"client_id,omitempty"`
	Username  string   `json:"username,omitempty" doc:"text, or a reference"`
	Password  string   `json:"password,omitempty" doc:"a reference: ${env:NAME} or ${file:PATH}, looked up on the agent that connects"`
	Retained  string   `json:"retained,omitempty" enum:"first,all,never"`
	KeepAge   int64    `json:"keep_age_ms,omitempty" minimum:"0"`
	KeepSize  int64    `json:"keep_bytes,omitempty" minimum:"0"`
	Cap       int64    `json:"cap_bytes,omitempty" minimum:"0"`
	CA        string   `json:"ca,omitempty"`
	Cert      string   `json:"cert,omitempty"`
	Key       string   `json:"key,omitempty"`
	Replicas  int      `json:"replicas,omitempty" minimum:"0" maximum:"9"`
	WhenShort string   `json:"when_short,omitempty" enum:"block,degrade"`
}

// Agent is a member of the site.
type Agent struct {
	Node    string            `json:"node"`
	Name    string            `json:"name"`
	Site    string            `json:"site"`
	Status  string            `json:"status" enum:"alive,suspect,failed,left"`
	Role    string            `json:"role" doc:"leader, voter, non-voter; empty: not in the Raft group"`
	Slots   int               `json:"slots"`
	Free    int               `json:"free"`
	Host    string            `json:"host"`
	Labels  map[string]string `json:"labels"`
	Version string            `json:"version"`
	Level   uint32            `json:"level"`
	Addr    string            `json:"addr" doc:"host:port of its QUIC port"`
	HTTP    string            `json:"http" doc:"host:port of its API; empty: only through others"`
}

// SiteInfo is the site that is asked.
type SiteInfo struct {
	Mesh   string `json:"mesh"`
	Site   string `json:"site"`
	Leader string `json:"leader" doc:"its name"`
	Agents int    `json:"agents"`
	Voters int    `json:"voters"`
	Level  uint32 `json:"level"`
	Index  uint64 `json:"index" doc:"of the last command applied by who answers"`
}

// SiteSelf is what a site says of itself to other sites.
type SiteSelf struct {
	Mesh   string `json:"mesh"`
	Site   string `json:"site"`
	Leader string `json:"leader"`
	Node   string `json:"node"` // of the leader
	Agents int    `json:"agents"`
	Voters int    `json:"voters"`
	Level  uint32 `json:"level"`
	Index  uint64 `json:"index"` // of the last command applied
}

// Site is a site of the mesh, as the one that was asked sees it.
type Site struct {
	Mesh      string `json:"mesh" doc:"empty: the site does not answer"`
	Site      string `json:"site"`
	Self      bool   `json:"self" doc:"it is the one that was asked"`
	Leader    string `json:"leader" doc:"its name; empty: the site does not answer"`
	Agents    int    `json:"agents" doc:"that belong to it, as it says"`
	Seen      int    `json:"seen" doc:"agents of it that are seen from here"`
	Voters    int    `json:"voters"`
	Level     uint32 `json:"level"`
	Index     uint64 `json:"index" doc:"of the last command applied by its leader"`
	Answers   bool   `json:"answers" doc:"its leader answered now"`
	Why       string `json:"why,omitempty" doc:"why it did not"`
	Reachable bool   `json:"reachable" doc:"somebody of it is seen"`
	Since     string `json:"since,omitempty" doc:"since when that is so, by the clock of who answers; empty: it was not seen since that one was started"`
	RoundTrip int64  `json:"round_trip_us,omitempty" doc:"until its leader answered"`
	LagTo     string `json:"lag_to,omitempty" doc:"how far it is behind with what is replicated there"`
	LagFrom   string `json:"lag_from,omitempty" doc:"how far this site is behind with what is replicated from there"`
}

// NewToken is a join token to be made.
type NewToken struct {
	TTL  int64 `json:"ttl_ms,omitempty" minimum:"0" doc:"0: it does not expire"`
	Uses int   `json:"uses,omitempty" minimum:"0" maximum:"1000" doc:"0: any number"`
}

// NewSite is another site of the mesh that one agent may found with a token.
type NewSite struct {
	Mesh   string `json:"mesh" doc:"that the site's key was signed for"`
	Site   string `json:"site" maxLength:"63"`
	Token  string `json:"token" maxLength:"63" doc:"its id"`
	Hash   []byte `json:"hash" maxLength:"64" doc:"SHA-256 of what the token shows"`
	Sealed []byte `json:"sealed" maxLength:"8192" doc:"the site's certificate and key, which only the token opens"`
	TTL    int64  `json:"ttl_ms,omitempty" minimum:"0" doc:"0: it does not expire"`
}

// TokenMade is a token with its secret, which is shown this once.
type TokenMade struct {
	TokenInfo
	Token string `json:"token"`
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	ID      string   `json:"id"`
	Created string   `json:"created"`
	Expires string   `json:"expires" doc:"empty: never"`
	Uses    int      `json:"uses" doc:"joins that are left; -1: any number"`
	State   string   `json:"state" enum:"good,revoked,expired,used up"`
	Nodes   []string `json:"nodes" doc:"that joined with it"`
	Founds  string   `json:"founds,omitempty" doc:"the site that its user founds; empty: it lets agents join this one"`
}

// stamp is a time for people.
func stamp(t dataflow.Time) string {
	if t <= 0 || t == dataflow.MaxTime {
		return ""
	}
	return t.GoTime().Format(time.RFC3339)
}

// watermark is one for people; empty: there is none.
func watermark(t dataflow.Time) string {
	switch t {
	case dataflow.MinTime:
		return ""
	case dataflow.MaxTime:
		return "end"
	}
	return t.GoTime().Format("2006-01-02T15:04:05.000000Z07:00")
}

func millis(d dataflow.Duration) int64 { return int64(d / dataflow.Millisecond) }
