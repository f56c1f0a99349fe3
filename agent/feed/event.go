package feed

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

// Kind is what an Event tells.
type Kind uint8

// The kinds of events.
const (
	Session   Kind = iota + 1 // the session with the broker tells: MQTT
	Opened                    // the log is open: Away if it was not empty
	Log                       // the log tells of damage that it found, or of what a crash left: Log
	Full                      // the log has no room: nothing is read or acknowledged until it has: Err, RetryIn
	Failing                   // the same, because writing fails
	Room                      // it takes entries again
	Failed                    // the session failed for good: Err. The feed has ended; Open makes it anew
	Closed                    // its owner closed it
	Held                      // nothing is acknowledged while this agent has no permit: Err
	Copying                   // a copy of a log that another agent owns tells: Err
	Overtaken                 // a log begins anew: its source did not keep what it lacks, or nothing that is here belongs to it: Err
)

// Event is something worth telling about a feed. Only the fields that its kind
// names are set beside Kind and Feed.
type Event struct {
	Kind    Kind
	Feed    string
	MQTT    mqtt.Event
	Log     ingestlog.Event
	Err     error
	RetryIn dataflow.Duration
	Away    dataflow.Duration // from the last entry of the log until now: it counts as nobody's silence
}

// String is one line for a log or a status.
func (e Event) String() string {
	switch e.Kind {
	case Session:
		return e.MQTT.String()
	case Opened:
		if e.Away > 0 {
			return fmt.Sprintf("feed %s: its log goes on after %v", e.Feed, e.Away)
		}
		return fmt.Sprintf("feed %s: its log is new", e.Feed)
	case Log:
		return fmt.Sprintf("feed %s: its log: %s: %v", e.Feed, e.Log.File, e.Log.Err)
	case Full, Failing:
		return fmt.Sprintf("feed %s: reading pauses, the broker holds the rest: %v; next attempt in %v", e.Feed, e.Err, e.RetryIn)
	case Room:
		return fmt.Sprintf("feed %s: the log takes messages again", e.Feed)
	case Failed:
		return fmt.Sprintf("feed %s: failed: %v", e.Feed, e.Err)
	case Held:
		return fmt.Sprintf("feed %s: nothing is said to the broker: %v", e.Feed, e.Err)
	case Copying:
		return fmt.Sprintf("feed %s: its copy here takes nothing: %v", e.Feed, e.Err)
	case Overtaken:
		return fmt.Sprintf("feed %s: its log begins anew: %v", e.Feed, e.Err)
	case Closed:
		return fmt.Sprintf("feed %s: closed", e.Feed)
	}
	return fmt.Sprintf("feed %s: kind(%d)", e.Feed, uint8(e.Kind))
}
