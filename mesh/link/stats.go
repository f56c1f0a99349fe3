package link

import (
	"cmp"
	"sort"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// ConnStats is what a connection has done so far.
type ConnStats struct {
	Peer          mesh.Peer
	Class         string // "control" or "data"
	Dialled       bool   // by this agent
	Since         time.Time
	RTT           time.Duration // smoothed
	BytesSent     uint64        // of UDP payload
	BytesReceived uint64
	PacketsLost   uint64
	Streams       int // open here
}

// Stats are the connections, by node.
func (l *Link) Stats() []ConnStats {
	l.mu.Lock()
	var all []ConnStats
	for _, p := range l.peers {
		for k, list := range p.conns {
			for _, c := range list {
				q := c.q.ConnectionStats()
				all = append(all, ConnStats{
					Peer: c.peer, Class: [...]string{"control", "data"}[k], Dialled: c.dialled, Since: c.since, RTT: q.SmoothedRTT,
					BytesSent: q.BytesSent, BytesReceived: q.BytesReceived, PacketsLost: q.PacketsLost, Streams: int(c.streams.Load()),
				})
			}
		}
	}
	l.mu.Unlock()
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(a.Peer.Node, b.Peer.Node), cmp.Compare(a.Class, b.Class)) < 0
	})
	return all
}
