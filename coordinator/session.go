package coordinator

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Session names a session at an MQTT broker. Two connections with one client id throw
// each other out for ever, and each message comes to one of them.
type Session struct {
	Broker string // host and port, whatever the rest of its URL
	Client string
}

// TakenClient is the client id of a shared feed that was taken by a site from one that
// was lost, whatever its config says: a session of that name may be at the other one.
func TakenClient(mesh string, by mesh.Site, name string) string {
	return mesh + "/" + string(by) + "/" + name
}

// SessionOf is the session of a feed, as its config has it; zero: it says none.
func (s *State) SessionOf(f *Feed) Session {
	var c struct {
		Broker string `json:"broker"`
		Client string `json:"client_id"`
	}
	if json.Unmarshal(f.Config, &c) != nil || c.Broker == "" || c.Client == "" {
		return Session{}
	}
	if from, by := f.Taken(); from != "" {
		c.Client = TakenClient(s.Mesh, cmp.Or(by, s.Site), f.Name)
	}
	return Session{brokerOf(c.Broker), c.Client}
}

// brokerOf is where a broker is: mqtt://b and tcp://B:1883 are one.
func brokerOf(url string) string {
	scheme, host, _ := strings.Cut(strings.ToLower(url), "://")
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	host = host[strings.LastIndexByte(host, '@')+1:]
	if strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']') {
		return host
	}
	switch scheme {
	case "ws":
		return host + ":80"
	case "wss":
		return host + ":443"
	case "mqtts", "ssl", "tls":
		return host + ":8883"
	}
	return host + ":1883"
}

// HasSession tells whether a feed's session is in use, or will be with nobody's
// submission: a shared feed's, that of a job that has not ended, or has moved and may
// come back, or is on its way here. A mirror of a job that was never here has none, and
// that of a job that has ended only waits for one that goes on with it.
func (s *State) HasSession(f *Feed) bool {
	if s.ArrivingFeed(f) != nil || s.movedWith(f) != nil {
		return true
	}
	j := s.Jobs[f.Job]
	return f.Mirror == nil && (f.Job == "" || j != nil && !j.Status.Ended())
}

// movedWith is the job on record here that moved away with a feed, whether the log of
// that is kept here or not; nil: none did. Over there another one may have gone on with it.
func (s *State) movedWith(f *Feed) *Job {
	if j := s.Jobs[f.Job]; j != nil && j.Status == Moved {
		return j
	}
	for _, id := range f.Past {
		if j := s.Jobs[id]; j != nil && j.Status == Moved && f.Owner != "" {
			return j
		}
	}
	return nil
}

// Sessions are those in use, and the feeds that have each, by name.
type Sessions map[Session][]*Feed

// Sessions are those in use: who asks for many looks once.
func (s *State) Sessions() Sessions {
	all := make(Sessions)
	for _, name := range sortedNames(s.Feeds) {
		if f := s.Feeds[name]; s.HasSession(f) {
			is := s.SessionOf(f)
			all[is] = append(all[is], f)
		}
	}
	delete(all, Session{})
	return all
}

// Taken is State.SessionTaken.
func (all Sessions) Taken(want Session, but string) *Feed {
	for _, f := range all[want] {
		if f.Name != but {
			return f
		}
	}
	return nil
}

// SessionTaken is the feed, other than but, that has a session; nil: none has.
func (s *State) SessionTaken(want Session, but string) *Feed {
	if want == (Session{}) {
		return nil
	}
	for _, name := range sortedNames(s.Feeds) {
		if f := s.Feeds[name]; name != but && s.HasSession(f) && s.SessionOf(f) == want {
			return f
		}
	}
	return nil
}

// plain tells whether it is so already.
func (m *MovingJob) plain() bool { return m.Plain() == m }

// Plain is a job as sites below SettledLevel read it: their agents refuse a feed's config
// that says what its session may have from before, and know nothing of lives. m itself: it is so already.
func (m *MovingJob) Plain() *MovingJob {
	const left = "left" // of agent/feed's config
	plain := m
	for i := range m.Feeds {
		var all map[string]json.RawMessage
		if json.Unmarshal(m.Feeds[i].Config, &all) != nil || all[left] == nil {
			continue
		}
		delete(all, left)
		text, err := json.Marshal(all)
		if err != nil {
			continue // it was read, so it can be written
		}
		if plain == m {
			own := *m
			own.Feeds = slices.Clone(m.Feeds)
			plain = &own
		}
		plain.Feeds[i].Config = text
	}
	return plain.lifeless()
}
