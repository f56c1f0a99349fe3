package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/executor"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/coordinator/migration"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
)

// Backend is the agent that the API speaks for. Any goroutine may call it.
type Backend interface {
	Self() mesh.NodeID
	// Leader is who leads the site, empty if nobody is known to.
	Leader() mesh.NodeID
	// View calls f with the replicated state as this agent knows it; f must not
	// keep the maps, and may keep what they lead to.
	View(f func(*coordinator.State))
	// Current waits until this agent, which must lead, is sure that it still does
	// and knows all that was committed. ErrNotLeader.
	Current(ctx context.Context) error
	// Members are the site's, as gossip and Raft know them.
	Members() []Member

	// Propose applies a command and returns the error with which it changed
	// nothing, and the job that it made, if it made one. Only the leader can.
	Propose(ctx context.Context, c coordinator.Command) (coordinator.JobID, error)
	// Ask has the leader's machine do what takes more than a command.
	Ask(ctx context.Context, w leader.Wish) (leader.Answer, error)
	// Statuses are what agents said last of a job's subtasks, Logs of all feeds;
	// only the leader has them.
	Statuses(job coordinator.JobID) []coordinator.SubtaskStatus
	Logs() []coordinator.LogStatus
	// Here are the subtasks that run on this agent, the feeds that it owns, and the
	// free bytes of its data folder; 0: not known.
	Here() ([]coordinator.SubtaskStatus, []coordinator.LogStatus, int64)
	// Preparations are how what runs here came to run.
	Preparations() []executor.Preparation

	// Network is how this agent reaches the others, and how its gossip and Raft do.
	Network() Network

	// Sites are this site, which is the first, and the others of the mesh that are
	// known. It asks each of them, for 5 s at most.
	Sites(ctx context.Context) []Site

	// SiteSeen tells whether another site is known, and whether somebody of it is
	// seen now; OtherSites are all that are seen, in order.
	SiteSeen(site mesh.Site) (known, seen bool)
	OtherSites() []mesh.Site
	// Unfounded says why no other site of a name may be founded now; only the leader
	// can. It is asked again when one is.
	Unfounded(site mesh.Site) error
	// PassSite has another site's leader answer a request, whose body is whole.
	// ErrUnreached: nobody of it was reached, and nothing was done.
	PassSite(r *http.Request, site mesh.Site) (*http.Response, error)
	// Told is what was told of moves since this agent leads, oldest first; only the
	// leader has it, and only the last steps.
	Told() []MoveTold

	// Replicas are what is kept here of other sites' jobs, and what other sites say that
	// they keep of this one's; only the leader has it.
	Replicas() []Replica

	// CallLeader opens a connection to the leader's API. ErrNoLeader.
	CallLeader(ctx context.Context) (net.Conn, error)
	// OpenPart reads a part from here, or from an agent that has it.
	OpenPart(ctx context.Context, p store.Part, copies []coordinator.PartCopies) (io.ReadCloser, error)
	// PutPart stores a part in as many copies as the site keeps, and says where.
	PutPart(ctx context.Context, write func(io.Writer) error) (store.Part, []mesh.NodeID, error)

	// Now is what time it is for tokens and certificates: both are judged by it.
	Now() time.Time
	// NewToken makes a join token and what of it is to be stored.
	NewToken() (text string, stored coordinator.Token, err error)
	// Leave takes this agent out of the site in order: it hands over what it does,
	// and the process ends. Remove takes out one that is gone for good.
	Leave(ctx context.Context) error
	Remove(ctx context.Context, node mesh.NodeID) error

	// Subscribe hands out what happens from now on, until ctx ends. Who is too slow
	// loses events, and is told how many.
	Subscribe(ctx context.Context) <-chan Event
	Health() Health
}

// The errors of a Backend that the API answers with a status of their own.
var (
	ErrNotLeader = errors.New("this agent does not lead the site")
	ErrNoLeader  = errors.New("the site has no leader at the moment")
	ErrUnreached = errors.New("nobody of the site is reached")
)

// Member is an agent with its role.
type Member struct {
	mesh.Member
	Role string // leader, voter, non-voter; empty: not in the Raft group
}

// MoveTold is a step of a move between sites.
type MoveTold struct {
	At   dataflow.Time
	Move coordinator.MoveID
	Job  coordinator.JobID
	To   mesh.Site
	migration.Progress
}

// Event is something that happened, for people.
type Event struct {
	At   dataflow.Time
	Job  coordinator.JobID // empty: the site's
	What string            // its kind: job, checkpoint, agent, feed, leader
	Text string            // a line
	Lost int               // events that were lost before it
	Move *MoveTold         // of a move; nil: of something else
}

// Health is what an agent thinks of itself.
type Health struct {
	Ready   bool     // it takes requests: it knows the state and the leader
	Why     []string // what is not as it should be
	Applied uint64
	Lease   bool // it may act on the world
}
