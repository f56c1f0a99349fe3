package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store"
)

// Config is what a feed reads and how much of it is kept. It is stored in
// DIR/feeds/NAME/feed.json, where secrets are references only.
type Config struct {
	Broker   string       // URL
	Topics   []string     // filters
	Left     []string     // filters that were taken out, the newest last: see After
	QoS      int          // 0, 1, 2
	ClientID string       // no other client of the broker may use it
	Lanes    int          // splits, by hash of the topic; fixed for the life of the feed. 0: 1
	Retained job.Retained // which retained messages are taken
	Username job.Secret
	Password job.Secret
	TLS      job.TLS

	Keep job.Retention     // of the log, beyond what readers and pins need
	Tick dataflow.Duration // how often time passes on a silent lane that somebody reads. 0: 200 ms
}

// DefaultKeep is what Create keeps of a feed unless it is told: jobs that read
// it come later.
const (
	DefaultKeepAge  = 24 * dataflow.Hour
	DefaultKeepSize = 1 << 30
)

// FromSource is the name and the config of the feed of a job's own mqtt source.
func FromSource(jobName string, s *job.Source) (name string, c Config) {
	m := s.MQTT
	c = Config{
		Broker: m.Broker, Topics: m.Topics, QoS: m.QoS, ClientID: m.ClientID, Lanes: m.Lanes, Retained: m.Retained,
		Username: m.Username, Password: m.Password, TLS: m.TLS, Keep: m.Keep,
	}
	if c.ClientID == "" {
		c.ClientID = jobName + "/" + string(s.ID)
	}
	return jobName + "." + string(s.ID), c
}

// fixed fills in what is not given, and refuses what cannot work.
func (c Config) fixed(name string) (Config, error) {
	if c.Lanes == 0 {
		c.Lanes = 1
	}
	if c.ClientID == "" {
		c.ClientID = "feed/" + name
	}
	c.Left = leftOf(c.Topics, c.Left)
	if err := checkName(name); err != nil {
		return c, err
	}
	switch {
	case c.Lanes < 0 || c.Lanes > 1024:
		return c, fmt.Errorf("feed %q: %d lanes; use 1 to 1024", name, c.Lanes)
	case c.QoS < 0 || c.QoS > 2:
		return c, fmt.Errorf("feed %q: qos %d; use 0, 1 or 2", name, c.QoS)
	case c.Keep.Age < 0 || c.Keep.Size < 0 || c.Keep.Cap < 0 || c.Tick < 0:
		return c, fmt.Errorf("feed %q: an age or size of its log is negative", name)
	case c.Keep.Cap > 0 && c.Keep.Size > c.Keep.Cap:
		return c, fmt.Errorf("feed %q: its retention of %s is over its cap of %s; raise the cap", name, job.FormatSize(c.Keep.Size), job.FormatSize(c.Keep.Cap))
	}
	if u, err := url.Parse(c.Broker); err == nil && u.User != nil {
		return c, fmt.Errorf("feed %q: user and password stand in the broker's URL, which is stored; give them as username and password", name)
	}
	o := mqtt.ReaderOptions{Connection: mqtt.Connection{Broker: c.Broker, ClientID: c.ClientID}, Topics: c.Topics, Left: c.Left, QoS: byte(c.QoS), Lanes: c.Lanes}
	if err := o.Check(); err != nil {
		return c, fmt.Errorf("feed %q: %w", name, err)
	}
	return c, nil
}

func checkName(name string) error {
	if name == "" || len(name) > 200 || strings.HasPrefix(name, ".") || strings.ContainsFunc(name, notInName) {
		return fmt.Errorf("feed: the name %q; use up to 200 letters, digits, '-', '_' and '.', not '.' first; '@' only in a mirror's", name)
	}
	return nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' || r == '@')
}

// How much of what was taken out is remembered. What is older is forgotten: unless the
// broker was away ever since its session has not had it for long.
const (
	maxLeft      = 1024
	maxLeftBytes = 64 << 10
)

// After is c, where the session may have the filters of a config of before: what c has
// not of them it has left. They are never forgotten for having been given up once. Who
// knows that may die before it is written down, nor does it cost anything to give them up
// twice. Under another client id c has nothing. At another broker it may: one that goes by
// another address has the session still, and one that was left may be come back to.
func (c Config) After(was Config) Config {
	if c.ClientID != was.ClientID {
		return c
	}
	c.Left = leftOf(c.Topics, was.Left, c.Left, was.Topics)
	return c
}

// leftOf is what a session may have beside topics, of lists of which the newest is last.
func leftOf(topics []string, lists ...[]string) (left []string) {
	size := 0
	for _, list := range slices.Backward(lists) {
		for _, f := range slices.Backward(list) {
			if slices.Contains(topics, f) || slices.Contains(left, f) {
				continue
			}
			if size += len(f); len(left) == maxLeft || size > maxLeftBytes {
				break
			}
			left = append(left, f)
		}
	}
	slices.Reverse(left)
	return left
}

// same tells whether a feed that runs with c need not be opened anew to be o. What the
// session had before does not matter.
func (c Config) same(o Config) bool {
	c.Left, o.Left = nil, nil
	a, errA := encode(c)
	b, errB := encode(o)
	return errA == nil && errB == nil && bytes.Equal(a, b) && c.Username == o.Username && c.Password == o.Password
}

// file is feed.json.
type file struct {
	Version    int      `json:"version"`
	Broker     string   `json:"broker"`
	Topics     []string `json:"topics"`
	Left       []string `json:"left,omitempty"` // not in feed.json
	QoS        int      `json:"qos"`
	ClientID   string   `json:"client_id"`
	Lanes      int      `json:"lanes"`
	Retained   string   `json:"retained"`
	Username   string   `json:"username,omitempty"` // a reference, or that the job has it
	Password   string   `json:"password,omitempty"`
	CA         string   `json:"ca,omitempty"`
	Cert       string   `json:"cert,omitempty"`
	Key        string   `json:"key,omitempty"`
	ServerName string   `json:"server_name,omitempty"`
	Age        int64    `json:"retention_age_us,omitempty"`
	Size       int64    `json:"retention_bytes,omitempty"`
	Cap        int64    `json:"cap_bytes,omitempty"`
	Tick       int64    `json:"tick_us,omitempty"`
}

// fileVersion is the version of feed.json that is written. An older one is
// read; a newer one is refused.
const fileVersion = 1

var errPlainSecret = errors.New("its user name or password is given as text, which is not stored: give a reference, ${env:NAME} or ${file:PATH}")

// retained are the words of `retained:`.
var retained = [...]string{job.RetainedFirst: "first", job.RetainedAll: "all", job.RetainedNever: "never"}

func stored(c Config) file {
	return file{
		Version: fileVersion, Broker: c.Broker, Topics: c.Topics, Left: c.Left, QoS: c.QoS, ClientID: c.ClientID, Lanes: c.Lanes, Retained: retained[c.Retained],
		Username: c.Username.String(), Password: c.Password.String(),
		CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName,
		Age: int64(c.Keep.Age), Size: c.Keep.Size, Cap: c.Keep.Cap, Tick: int64(c.Tick),
	}
}

// encode is the text of feed.json.
func encode(c Config) ([]byte, error) {
	b, err := json.MarshalIndent(stored(c), "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Format is a config as coordinator.Feed.Config has it, and, but for Left, feed.json.
// Secrets that are given as text are not in it. What is Left an agent that does not know
// coordinator.SettledLevel cannot read.
func (c Config) Format() ([]byte, error) { return encode(c) }

// ParseConfig reads what Format wrote, for the feed of that name.
func ParseConfig(name string, b []byte) (Config, error) {
	c, _, err := decode(b)
	if err != nil {
		return c, fmt.Errorf("feed %q: its config: %w", name, err)
	}
	return c.fixed(name)
}

// decode reads feed.json. whole is false if a secret of it stands elsewhere.
func decode(b []byte) (c Config, whole bool, err error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return c, false, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	if f.Version < 1 || f.Version > fileVersion {
		return c, false, fmt.Errorf("version %d of feed.json; this program reads 1 to %d: use a newer one", f.Version, fileVersion)
	}
	c = Config{
		Broker: f.Broker, Topics: f.Topics, Left: f.Left, QoS: f.QoS, ClientID: f.ClientID, Lanes: f.Lanes,
		TLS:  job.TLS{CA: f.CA, Cert: f.Cert, Key: f.Key, ServerName: f.ServerName},
		Keep: job.Retention{Age: dataflow.Duration(f.Age), Size: f.Size, Cap: f.Cap}, Tick: dataflow.Duration(f.Tick),
	}
	at := slices.Index(retained[:], f.Retained)
	if at < 0 {
		return c, false, fmt.Errorf("%w: retained %q", store.ErrCorrupt, f.Retained)
	}
	c.Retained = job.Retained(at)
	whole = true
	for _, s := range []struct {
		text string
		to   *job.Secret
	}{{f.Username, &c.Username}, {f.Password, &c.Password}} {
		if whole = whole && !strings.HasPrefix(s.text, "("); s.text == "" || strings.HasPrefix(s.text, "(") {
			continue
		}
		if *s.to, err = job.ParseSecret(s.text); err != nil {
			return c, false, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
	}
	return c, whole, nil
}
