package consensus

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// sayAgain is how long the library's lines that say the same are told as one.
const sayAgain = time.Minute

// libraryLog makes events of what the library warns of. It says the same several
// times a second to a follower that is not there: what differs only in numbers and
// nodes is told once a minute, with how often it was said meanwhile.
func libraryLog(tell func(Event)) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: &lines{tell: tell, said: make(map[string]*said)}, DisableTime: true})
}

type lines struct {
	tell func(Event)
	mu   sync.Mutex // guards said
	said map[string]*said
}

// said is a line that was told.
type said struct {
	at   time.Time
	more int // times since
}

// Write takes one line: "[WARN]  what happened: key=value …".
func (l *lines) Write(p []byte) (int, error) {
	text := strings.TrimRight(string(p), "\n")
	what, _, _ := strings.Cut(text, ": ")
	now := time.Now()
	l.mu.Lock()
	s := l.said[what] // as many as the library has messages
	if s != nil && now.Sub(s.at) < sayAgain {
		s.more++
		l.mu.Unlock()
		return len(p), nil
	}
	if s != nil && s.more > 0 {
		text += fmt.Sprintf(" (said %d times more in the last %v)", s.more, now.Sub(s.at).Round(time.Second))
	}
	l.said[what] = &said{at: now}
	l.mu.Unlock()
	l.tell(Event{Kind: Library, Text: text})
	return len(p), nil
}
