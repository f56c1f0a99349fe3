package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Kind is what an Event tells.
type Kind uint8

// The kinds of events.
const (
	Connecting   Kind = iota + 1 // an attempt begins: Attempt
	Connected                    // the broker accepted the session: Resumed
	Subscribed                   // the broker granted Topics; Err tells of a lower QoS
	Refused                      // the broker said no, to the connection or (Topics) to filters: Err, RetryIn
	Unreachable                  // no connection: Err, RetryIn
	Lost                         // a connection ended: Err, RetryIn
	Contested                    // connections end right after they begin, Count times now: does another client use this id?
	InboxFull                    // the reader stops reading from the socket; the broker must wait
	InboxRoom                    // it reads again
	Shedding                     // messages of QoS 0 are dropped from here on, for want of room
	ShedEnd                      // no longer; Count were dropped
	Closed                       // the session ended because its owner closed it
	Silent                       // the connection stands, but the broker does not answer: nothing can be heard
	Heard                        // it is heard again
	NotPermitted                 // no attempt is made to connect until there is a permit: Err
	Unsubscribed                 // filters of before, Topics, were given up; Err: the broker did not say so
)

var kindNames = [...]string{
	Connecting: "connecting", Connected: "connected", Subscribed: "subscribed", Refused: "refused",
	Unreachable: "unreachable", Lost: "lost", Contested: "contested", InboxFull: "inbox full",
	InboxRoom: "inbox has room", Shedding: "shedding", ShedEnd: "shedding ended", Closed: "closed", Silent: "silent", Heard: "heard again",
	NotPermitted: "waits for permission to connect", Unsubscribed: "unsubscribed",
}

// String is the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Event is something worth telling about a session. Only the fields that its
// kind names are set beside the first four.
type Event struct {
	Kind     Kind
	At       dataflow.Time
	Broker   string // its URL, without user and password
	ClientID string

	Attempt int               // counts from 1 since the last stable connection
	RetryIn dataflow.Duration // until the next attempt
	Resumed bool              // the broker still knew the session
	Topics  []string
	Count   int64
	Err     error
}

// String is one line for a log or a status.
func (e Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", e.Broker, e.Kind)
	switch e.Kind {
	case Connecting:
		fmt.Fprintf(&b, " (attempt %d)", e.Attempt)
	case Connected:
		if e.Resumed {
			b.WriteString(", session resumed")
		}
	case Contested:
		fmt.Fprintf(&b, ": %d connections in a row ended right after they began; is another client using the id %q?", e.Count, e.ClientID)
	case InboxFull:
		b.WriteString(": reading pauses, the broker holds the rest")
	case Silent:
		b.WriteString(": the broker does not answer; until it does, no device counts as silent")
	case ShedEnd:
		fmt.Fprintf(&b, ": %d messages of QoS 0 were dropped", e.Count)
	}
	if len(e.Topics) > 0 {
		fmt.Fprintf(&b, " %s", strings.Join(e.Topics, ", "))
	}
	if e.Err != nil {
		why := strings.TrimPrefix(e.Err.Error(), "mqtt: cannot reach "+e.Broker+": ") // the line says so already
		fmt.Fprintf(&b, ": %s", strings.TrimPrefix(why, "network Error : "))
	}
	if e.RetryIn > 0 {
		fmt.Fprintf(&b, "; next attempt in %v", e.RetryIn.Go().Round(time.Millisecond))
	}
	return b.String()
}

// The kinds of errors that a caller may want to tell apart.
var (
	// ErrClosed: the reader or writer was closed.
	ErrClosed = errors.New("mqtt: closed")
	// ErrRefused: the broker answered, and the answer was no.
	ErrRefused = errors.New("refused by the broker")
)
