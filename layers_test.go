package tidemark

// layer is what a package may be. Imports point down.
type layer int

const (
	vocabulary layer = iota + 1 // nouns and contracts
	pure                        // decides, does nothing: no clock, disk, network, goroutine
	ground                      // the machine as drivers are given it: each may stand on it, pure code may not
	driver                      // does I/O; drivers of different folders meet only in agent
	support                     // helps tests; nothing else imports it
	agent                       // wires everything
	command                     // the binary
)

var layerNames = [...]string{vocabulary: "vocabulary", pure: "pure", ground: "ground", driver: "a driver", support: "test support", agent: "agent", command: "a command"}

// layers lists every package. A new one is added here first: that is the moment
// to decide what it may know.
var layers = map[string]layer{
	"dataflow":                vocabulary,
	"dataflow/batch":          vocabulary,
	"dataflow/expr":           pure,
	"dataflow/eventtime":      pure,
	"dataflow/state":          pure,
	"dataflow/process":        pure,
	"dataflow/avro":           pure,
	"dataflow/window":         pure,
	"dataflow/operator":       pure,
	"dataflow/job":            pure,
	"dataflow/graph":          pure,
	"dataflow/task":           pure,
	"dataflow/exchange":       pure,
	"dataflow/restore":        pure,
	"dataflow/dedupe":         pure,
	"dataflow/runtime":        driver,
	"dataflow/optest":         support,
	"dataflow/statetest":      support,
	"sensors":                 vocabulary,
	"sensors/decode":          pure,
	"sensors/encode":          pure,
	"sensors/simulate":        pure,
	"sensors/mqtt":            driver,
	"sensors/file":            driver,
	"sensors/generate":        driver,
	"sensors/pending":         driver,
	"sensors/broker":          driver,
	"sensors/sensortest":      support,
	"store":                   vocabulary,
	"store/disk":              ground,
	"store/ingestlog":         driver,
	"store/logepoch":          pure,
	"store/statedb":           driver,
	"store/manifest":          pure,
	"store/part":              driver,
	"store/part/peers":        driver,
	"store/storetest":         support,
	"coordinator":             vocabulary,
	"coordinator/checkpoint":  pure,
	"coordinator/restart":     pure,
	"coordinator/codec":       pure,
	"coordinator/jobmanager":  pure,
	"coordinator/migration":   pure,
	"coordinator/replication": pure,
	"coordinator/schedule":    pure,
	"coordinator/leader":      pure,
	"coordinator/worker":      pure,
	"coordinator/lease":       pure,
	"coordinator/consensus":   driver,
	"mesh":                    vocabulary,
	"mesh/pace":               pure,
	"mesh/wire":               pure,
	"mesh/pack":               pure,
	"mesh/identity":           driver,
	"mesh/join":               driver,
	"mesh/gossip":             driver,
	"mesh/link":               driver,
	"mesh/simnet":             support,
	"agent/config":            agent,
	"agent/channel":           agent,
	"agent/connect":           agent,
	"agent/executor":          agent,
	"agent/node":              agent,
	"agent/api":               agent,
	"agent/sim":               support,
	"agent/sim/twosites":      support,
	"agent/sim/site":          support,
	"agent/sim/work":          support,
	"agent/sim/judge":         support,
	"agent/sim/world":         support,
	"agent":                   agent,
	"agent/bench":             agent,
	"agent/hosts":             support,
	"agent/vectors":           support,
	"agent/demo":              agent,
	"agent/fleet":             agent,
	"agent/durable":           agent,
	"agent/feed":              agent,
	"cmd/tidemark":            command,
}
