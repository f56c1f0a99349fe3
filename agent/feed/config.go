package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
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
	QoS      int          // 0, 1, 2
	ClientID string       // no other client of the broker may use it
	Lanes    int          // splits, by hash of the topic; fixed for the life of the feed. 0: 1
	Retained job.Retained // which retained messages are taken
	Username job.Secret
	Password job.Secret
	TLS      job.TLS

	KeepFor   dataflow.Duration // what is older may be forgotten, unless somebody needs it. 0: 24 h; negative: for ever
	KeepBytes int64             // over this the oldest may be forgotten, unless somebody needs it. 0: no limit
	Cap       int64             // bytes of the log at which nothing more is taken: back-pressure. 0: no limit but the disk's
	Tick      dataflow.Duration // how often time passes on a silent lane that somebody reads. 0: 200 ms
}

// DefaultKeep is how long a feed's log keeps what nobody needs any more.
const DefaultKeep = 24 * dataflow.Hour

// FromSource is the name and the config of the feed of a job's own mqtt source.
func FromSource(jobName string, s *job.Source) (name string, c Config) {
	m := s.MQTT
	c = Config{
		Broker: m.Broker, Topics: m.Topics, QoS: m.QoS, ClientID: m.ClientID, Lanes: m.Lanes, Retained: m.Retained,
		Username: m.Username, Password: m.Password, TLS: m.TLS,
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
	if c.KeepFor == 0 {
		c.KeepFor = DefaultKeep
	}
	if c.ClientID == "" {
		c.ClientID = "feed/" + name
	}
	switch {
	case name == "" || len(name) > 200 || strings.HasPrefix(name, ".") || strings.ContainsFunc(name, notInName):
		return c, fmt.Errorf("feed: the name %q; use up to 200 letters, digits, '-', '_' and '.', not '.' first", name)
	case c.Lanes < 0 || c.Lanes > 1024:
		return c, fmt.Errorf("feed %q: %d lanes; use 1 to 1024", name, c.Lanes)
	case c.QoS < 0 || c.QoS > 2:
		return c, fmt.Errorf("feed %q: qos %d; use 0, 1 or 2", name, c.QoS)
	case c.KeepBytes < 0 || c.Cap < 0:
		return c, fmt.Errorf("feed %q: a size of the log is negative", name)
	case c.Cap > 0 && c.KeepBytes > c.Cap:
		return c, fmt.Errorf("feed %q: it is to keep %d bytes, but its cap is %d; raise the cap", name, c.KeepBytes, c.Cap)
	}
	o := mqtt.ReaderOptions{Connection: mqtt.Connection{Broker: c.Broker, ClientID: c.ClientID}, Topics: c.Topics, QoS: byte(c.QoS), Lanes: c.Lanes}
	if err := o.Check(); err != nil {
		return c, fmt.Errorf("feed %q: %w", name, err)
	}
	return c, nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
}

// same tells whether a running feed need not be opened anew to be c.
func (c Config) same(o Config) bool {
	if c.Username.String() != o.Username.String() || c.Password.String() != o.Password.String() || !slices.Equal(c.Topics, o.Topics) {
		return false
	}
	c.Username, c.Password, c.Topics = o.Username, o.Password, nil
	o.Topics = nil
	a, _ := json.Marshal(stored(c))
	b, _ := json.Marshal(stored(o))
	return string(a) == string(b)
}

// file is feed.json.
type file struct {
	Version    int      `json:"version"`
	Broker     string   `json:"broker"`
	Topics     []string `json:"topics"`
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
	KeepFor    string   `json:"keep_for"` // "forever", or a duration
	KeepBytes  int64    `json:"keep_bytes,omitempty"`
	Cap        int64    `json:"cap,omitempty"`
	Tick       string   `json:"tick,omitempty"`
}

// fileVersion is the version of feed.json that is written. An older one is
// read; a newer one is refused.
const fileVersion = 1

var errSecretInJob = errors.New("its user name or password stands in the job as text, which is not stored: the job can open the feed, or write a reference, ${env:NAME} or ${file:PATH}")

func path(dir, name string) string { return filepath.Join(dir, "feeds", name) }

// retained are the words of `retained:`.
var retained = [...]string{job.RetainedFirst: "first", job.RetainedAll: "all", job.RetainedNever: "never"}

func stored(c Config) file {
	f := file{
		Version: fileVersion, Broker: c.Broker, Topics: c.Topics, QoS: c.QoS, ClientID: c.ClientID, Lanes: c.Lanes, Retained: retained[c.Retained],
		Username: c.Username.String(), Password: c.Password.String(),
		CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName,
		KeepFor: "forever", KeepBytes: c.KeepBytes, Cap: c.Cap,
	}
	if c.KeepFor >= 0 {
		f.KeepFor = job.FormatDuration(c.KeepFor)
	}
	if c.Tick != 0 {
		f.Tick = job.FormatDuration(c.Tick)
	}
	return f
}

// encode is the text of feed.json.
func encode(c Config) ([]byte, error) {
	b, err := json.MarshalIndent(stored(c), "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
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
		Broker: f.Broker, Topics: f.Topics, QoS: f.QoS, ClientID: f.ClientID, Lanes: f.Lanes,
		TLS:       job.TLS{CA: f.CA, Cert: f.Cert, Key: f.Key, ServerName: f.ServerName},
		KeepBytes: f.KeepBytes, Cap: f.Cap, KeepFor: -1,
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
	if f.KeepFor != "forever" {
		if c.KeepFor, err = job.ParseDuration(f.KeepFor); err != nil {
			return c, false, fmt.Errorf("%w: keep_for: %w", store.ErrCorrupt, err)
		}
	}
	if f.Tick != "" {
		if c.Tick, err = job.ParseDuration(f.Tick); err != nil {
			return c, false, fmt.Errorf("%w: tick: %w", store.ErrCorrupt, err)
		}
	}
	return c, whole, nil
}
