package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// contacts is the library's network transport, and remembers what followers
// answered to heartbeats: the library itself does not tell how far they are.
type contacts struct {
	*raft.NetworkTransport
	mu   sync.Mutex // guards seen
	seen map[raft.ServerID]contact
}

var (
	_ raft.Transport   = (*contacts)(nil)
	_ raft.WithPreVote = (*contacts)(nil)
	_ raft.WithClose   = (*contacts)(nil)
)

// contact is a follower's last answer.
type contact struct {
	at   time.Time
	last uint64 // index in its log
}

// AppendEntries sends entries, or a heartbeat.
func (c *contacts) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := c.NetworkTransport.AppendEntries(id, target, args, resp); err != nil {
		return err
	}
	c.mu.Lock()
	c.seen[id] = contact{time.Now(), resp.LastLog}
	c.mu.Unlock()
	return nil
}

// of is a follower's last answer; the zero contact if it never answered.
func (c *contacts) of(id raft.ServerID) contact {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[id]
}

// keep forgets all others.
func (c *contacts) keep(ids map[raft.ServerID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.seen {
		if !ids[id] {
			delete(c.seen, id)
		}
	}
}
