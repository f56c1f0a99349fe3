package link

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/quic-go/quic-go"

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

// Total is what the connections of a class to a node have done, those that have ended too,
// since this agent began. It never falls.
type Total struct {
	Node          mesh.NodeID
	Class         string
	BytesSent     uint64 // of UDP payload
	BytesReceived uint64
	PacketsLost   uint64
}

// add adds what a connection has done so far.
func (t *Total) add(q quic.ConnectionStats) {
	t.BytesSent += q.BytesSent
	t.BytesReceived += q.BytesReceived
	t.PacketsLost += q.PacketsLost
}

var classNames = [classes]string{control: "control", data: "data"}

// Totals are those of each node that was ever connected, by node.
func (l *Link) Totals() []Total {
	l.mu.Lock()
	var all []Total
	for _, p := range l.peers {
		for k, t := range p.ended {
			t.Node, t.Class = p.node, classNames[k]
			for _, c := range p.conns[k] {
				t.add(c.q.ConnectionStats())
			}
			if t.BytesSent+t.BytesReceived > 0 {
				all = append(all, t)
			}
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Total) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Class, b.Class)) })
	return all
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
					Peer: c.peer, Class: classNames[k], Dialled: c.dialled, Since: c.since, RTT: q.SmoothedRTT,
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
