package api

import (
	"cmp"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

// Network is what an agent's connections, its Raft and its gossip say of
// themselves.
type Network struct {
	Links  []link.ConnStats
	Totals []link.Total
	Raft   consensus.Stats
	Gossip int // gossip.Pool.Health
	// Raw and Packed are the bytes of logs and parts that were packed for other sites, and
	// what was sent in their place, since the process began.
	Raw, Packed int64
}

// describeNetwork adds what collectNetwork sends.
func describeNetwork(of func(labels []string, names map[string]string)) {
	of([]string{"peer", "class"}, map[string]string{
		"quic_connections": "Open QUIC connections to another agent.", "quic_open_streams": "Streams that are open on them.",
		"quic_rtt_seconds": "Smoothed round trip time, the longest of them.", "quic_lost_packets_total": "Packets taken for lost.",
		"quic_sent_bytes_total": "Bytes of UDP payload sent.", "quic_received_bytes_total": "Bytes of UDP payload received.",
	})
	of(nil, map[string]string{
		"gossip_health_score": "How much gossip distrusts this agent's own timeliness: 0 is well, 8 the worst.",
		"raft_term":           "Raft's term.", "raft_last_index": "Index of the last entry of the log.", "raft_commit_index": "Index of the last committed entry.",
		"raft_voters": "Voters of the group.", "raft_log_bytes": "Size of the log's file, the reserve included.",
		"raft_leader_changes_total": "How often a leader, or a new term of one, became known.", "raft_leader_contact_seconds": "Since the leader was heard.",
		"wan_raw_bytes_total": "Bytes of logs and parts for other sites, before they were packed.", "wan_packed_bytes_total": "What was sent in their place.",
		"raft_commands_total": "Commands proposed here that were applied.", "raft_command_seconds_total": "Time from their proposal until they were applied.",
	})
}

// collectNetwork sends the numbers; names are the agents'.
func collectNetwork(send put, n *Network, names map[mesh.NodeID]string, now time.Time) {
	r := &n.Raft
	send("gossip_health_score", gauge, float64(n.Gossip))
	send("wan_raw_bytes_total", counter, float64(n.Raw))
	send("wan_packed_bytes_total", counter, float64(n.Packed))
	send("raft_term", gauge, float64(r.Term))
	send("raft_last_index", gauge, float64(r.Last))
	send("raft_commit_index", gauge, float64(r.Committed))
	send("raft_voters", gauge, float64(r.Voters))
	send("raft_log_bytes", gauge, float64(r.FileBytes))
	send("raft_leader_changes_total", counter, float64(r.Changes))
	send("raft_commands_total", counter, float64(r.Commands))
	send("raft_command_seconds_total", counter, r.Waited.Seconds())
	if !r.Contact.IsZero() {
		send("raft_leader_contact_seconds", gauge, now.Sub(r.Contact).Seconds())
	}
	type way struct{ node, class string }
	sums, conns := make(map[way]link.ConnStats), make(map[way]int)
	to := func(node mesh.NodeID, class string) way { return way{cmp.Or(names[node], string(node)), class} }
	for _, c := range n.Links {
		at := to(c.Peer.Node, c.Class)
		sum := sums[at]
		sum.RTT = max(sum.RTT, c.RTT)
		sum.Streams += c.Streams
		sums[at] = sum
		conns[at]++
	}
	for at, c := range sums {
		send("quic_connections", gauge, float64(conns[at]), at.node, at.class)
		send("quic_open_streams", gauge, float64(c.Streams), at.node, at.class)
		send("quic_rtt_seconds", gauge, c.RTT.Seconds(), at.node, at.class)
	}
	all := make(map[way]link.Total) // a name may have had two ids
	for _, t := range n.Totals {
		at := to(t.Node, t.Class)
		sum := all[at]
		sum.PacketsLost += t.PacketsLost
		sum.BytesSent += t.BytesSent
		sum.BytesReceived += t.BytesReceived
		all[at] = sum
	}
	for at, t := range all {
		send("quic_lost_packets_total", counter, float64(t.PacketsLost), at.node, at.class)
		send("quic_sent_bytes_total", counter, float64(t.BytesSent), at.node, at.class)
		send("quic_received_bytes_total", counter, float64(t.BytesReceived), at.node, at.class)
	}
}
