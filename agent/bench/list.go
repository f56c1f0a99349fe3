package bench

import (
	"slices"
	"strings"
)

// All lists the benchmarks in the order in which they run.
func All() []Benchmark {
	return []Benchmark{
		{"engine", "where, select, key_by, tumbling window, beside a hand-written loop", []string{"engine"}, runEngine},
		{"engine-sliding", "sliding windows beside tumbling ones of the slide", []string{"engine-sliding/60s", "engine-sliding/10m"}, runSliding},
		{"punctuated", "a marker after each row, or each 100, beside one a batch", []string{"punctuated/1", "punctuated/100", "punctuated/1-p4", "punctuated/100-p4"}, runPunctuated},
		{"devices", "a watermark for each device beside one for all", []string{"devices/1k", "devices/100k"}, runDevices},
		{"json", "81-byte JSON messages into columns beside a loop that finds the quotes", []string{"json/ns", "json/ratio"}, runJSON},
		{"latency/qos0", "through broker, where and broker, beside the broker alone", []string{"latency/qos0"}, runLatency},
		{"latency/qos1", "the same with QoS 1 and a log", []string{"latency/qos1"}, runLatencyLogged},
		{"mqtt", "messages of QoS 1 into log, window and black hole, beside a client that only acknowledges", []string{"mqtt"}, runMQTT},
		{"durability", "the same without a log, and with checkpoints each 10 s and each second", []string{"durability/off", "durability/10s", "durability/1s"}, runDurability},
		{"checkpoint-1", "checkpoints of a million keys, one in a hundred changed, beside none", []string{"checkpoint/pause-1", "checkpoint/rate-1"}, runCheckpointSome},
		{"checkpoint-100", "the same with all of them changed", []string{"checkpoint/pause-100", "checkpoint/rate-100"}, runCheckpointAll},
		{"exchange", "keyed rows from one agent's process to another's, beside a bare QUIC stream", []string{"exchange"}, runExchange},
		{"recovery", "an agent with 100 MB of state is killed: until the next row", []string{"recovery"}, runRecovery},
		{"leader", "a leader is killed while rows flow elsewhere", []string{"leader"}, runLeader},
		{"migration", "a job with 100 MB of state moves to another site and back, while rows pass through", []string{"migration", "migration/sent", "migration/back"}, runMigration},
		{"replication", "checkpoints of 100,000 keys, one in a hundred changed, come to another site", []string{"replication"}, runReplication},
		{"footprint/rss", "memory of an agent that has nothing to do", []string{"footprint/rss"}, runIdle},
		{"footprint/binary", "size of the program", []string{"footprint/binary"}, runBinary},
		{"scale/keys", "a row with a million keys in memory beside a thousand", []string{"scale/keys"}, runKeys},
		{"scale/statedb", "ten million keys in the state of one operator, most of them on disk", []string{"scale/statedb"}, runStateDB},
		{"scale/agents", "what an agent costs the JobManager among a thousand beside among ten", []string{"scale/agents"}, runAgents},
		{"scale/jobs", "what a job costs the JobManager among a hundred beside alone", []string{"scale/jobs"}, runJobs},
	}
}

// Choose is the benchmarks with the given ids, or names, in their order, and a
// function that tells which of their figures were asked for. wrong is the first
// id that there is not.
func Choose(ids []string) (chosen []Benchmark, wanted func(id string) bool, wrong string) {
	asked := func(ask, id, name string) bool { return ask == id || ask == name || strings.HasPrefix(id, ask+"/") }
	used := make([]bool, len(ids))
	for _, b := range All() {
		any := false
		for i, ask := range ids {
			if slices.ContainsFunc(b.IDs, func(id string) bool { return asked(ask, id, b.Name) }) {
				used[i], any = true, true
			}
		}
		if any || len(ids) == 0 {
			chosen = append(chosen, b)
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, nil, ids[i]
	}
	return chosen, func(id string) bool {
		return len(ids) == 0 || slices.ContainsFunc(ids, func(ask string) bool {
			i := slices.IndexFunc(chosen, func(b Benchmark) bool { return slices.Contains(b.IDs, id) })
			return i >= 0 && asked(ask, id, chosen[i].Name)
		})
	}, ""
}
