package sim

// The jobs that run. Each row of the first says how many messages of its key
// there were, so that any message that is counted twice or not at all shows; its
// files are exactly once. The second publishes the same to a broker, which knows
// no tokens.
const (
	countsSpec = `
name: counts
parallelism: 2
checkpoint: {interval: 700ms, timeout: 3s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, file: {path: out.jsonl}}]
`
	publishSpec = `
name: publish
parallelism: 2
checkpoint: {interval: 900ms, timeout: 3s, tolerable_failures: 100000}
restart: {strategy: fixed-delay, attempts: 100000, delay: 100ms}
sources: {in: {mqtt: {broker: "mqtt://h", topics: [t], lanes: 2}, format: json, fields: {key: string, id: bigint}, event_time: ingestion}}
steps: [{id: a, from: in, key_by: [key], select: {n: count(*), id: max(id)}}]
sinks: [{id: out, from: a, mqtt: {broker: "mqtt://h", topic: results}}]
`
)

// feedConfig is what agent/feed would write of it, as far as the leader reads it.
const feedConfig = `{"lanes":2}`
