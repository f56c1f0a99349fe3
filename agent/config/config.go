package config

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// Config is what an agent's user decides. The tags are the keys of the file.
type Config struct {
	Name    string            `yaml:"name" help:"the agent's name, unique in its site; the machine's unless given"`
	Site    string            `yaml:"site" help:"the site it belongs to; its certificate says the same"`
	DataDir string            `yaml:"data_dir" help:"everything that outlives the process"`
	Labels  map[string]string `yaml:"labels" help:"what constraints of jobs ask for"`
	Slots   int               `yaml:"slots" help:"subtask slots; the number of CPUs unless given"`
	Memory  int64             `yaml:"memory" help:"bytes for batches in flight of all jobs together: 256MiB"`

	Bind      string `yaml:"bind" help:"host:port of the QUIC port, UDP; gossip takes the port after it, UDP and TCP, unless gossip_bind is given"`
	Advertise string `yaml:"advertise" help:"host:port at which others reach bind, if that is another one"`
	// GossipBind and GossipAdvertise are as Bind and Advertise.
	GossipBind      string `yaml:"gossip_bind" help:"host:port of gossip"`
	GossipAdvertise string `yaml:"gossip_advertise" help:"host:port at which others reach gossip_bind"`
	// WANBind and WANAdvertise are the same of the gossip of all sites.
	WANBind      string `yaml:"wan_bind" help:"host:port of the gossip with other sites, UDP and TCP; the second port after bind unless given"`
	WANAdvertise string `yaml:"wan_advertise" help:"host:port at which other sites reach wan_bind"`
	WAN          WAN    `yaml:"wan"`

	Replication Replication `yaml:"replication"`

	Join  []string `yaml:"join" help:"host:port of agents that are there already; one is enough"`
	Token string   `yaml:"token" help:"the join token of a new agent, ${file:PATH} or ${env:NAME}; not needed once it has joined"`

	HTTP HTTP `yaml:"http"`

	Voters int  `yaml:"voters" help:"the most Raft voters of the site: 1, 3 or 5; that of the agent that leads counts"`
	Dev    bool `yaml:"dev" help:"a mesh of its own on loopback, founded at the first start, for trying things out"`
}

// WAN is `wan:`, what this agent may send to agents of other sites.
type WAN struct {
	Rate        int64 `yaml:"rate" help:"bytes a second to other sites, of all kinds together, such as 2MB; 0B: as much as there is"`
	Connections int   `yaml:"connections" help:"QUIC connections to the same agent of another site for checkpoint parts; more carry more where packets get lost"`
}

// Replication is `replication:`, what this agent does for other sites' copies.
type Replication struct {
	Keep int64 `yaml:"keep" help:"bytes that the log of a feed may have so that it still waits for another site's mirror, such as 1GB"`
}

// HTTP is `http:`.
type HTTP struct {
	Bind  string `yaml:"bind" help:"host:port of the API; beyond loopback only with cert, key and token"`
	Cert  string `yaml:"cert" help:"file of the API's certificate, PEM"`
	Key   string `yaml:"key" help:"file of its key"`
	Token string `yaml:"token" help:"what requests must show, ${file:PATH} or ${env:NAME}"`
}

// The defaults that are no property of the machine.
const (
	DefaultBind   = "0.0.0.0:7071"
	DefaultHTTP   = "127.0.0.1:7070"
	DefaultData   = "/var/lib/tidemark"
	DefaultMemory = 256 << 20
	DefaultVoters = 5
	DefaultSite   = "main"
	// DefaultConnections is WAN.Connections.
	DefaultConnections = 4
	// DefaultKeep is Replication.Keep.
	DefaultKeep = 1_000_000_000
)

// Default is the configuration of an agent whose user says nothing.
func Default() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "agent"
	}
	return Config{
		Name: host, DataDir: DefaultData, Slots: runtime.NumCPU(), Memory: DefaultMemory, Bind: DefaultBind, Voters: DefaultVoters,
		HTTP: HTTP{Bind: DefaultHTTP}, WAN: WAN{Connections: DefaultConnections}, Replication: Replication{Keep: DefaultKeep},
	}
}

// Most of each, so that members and their labels stay small enough to gossip.
const (
	maxName   = 63
	maxLabels = 32
	maxSlots  = 4096
	// Less would not carry what an agent must say in time.
	leastRate      = 64 << 10
	maxConnections = 16
)

// Check settles what follows from the rest, and says everything that is wrong
// with it at once; nil: it will do.
func (c *Config) Check() error {
	var e problems
	if c.Dev {
		c.dev(&e)
	}
	if c.GossipBind == "" && c.Bind != "" {
		c.GossipBind = next(c.Bind)
	}
	if c.GossipAdvertise == "" && c.Advertise != "" {
		c.GossipAdvertise = next(c.Advertise)
	}
	if c.WANBind == "" && c.Bind != "" {
		c.WANBind = WANOf(c.Bind)
	}
	if c.WANAdvertise == "" && c.Advertise != "" {
		c.WANAdvertise = WANOf(c.Advertise)
	}
	e.name("name", c.Name)
	if c.Site != "" {
		e.name("site", c.Site)
	}
	if c.DataDir == "" {
		e.add("data_dir", "is empty; give a folder that outlives restarts")
	} else if abs, err := filepath.Abs(c.DataDir); err == nil {
		c.DataDir = abs
	}
	e.between("slots", c.Slots, 0, maxSlots)
	if c.Memory < 1<<20 {
		e.add("memory", "%d bytes are too few for a batch; give 1MiB or more", c.Memory)
	}
	if !slices.Contains([]int{1, 3, 5}, c.Voters) {
		e.add("voters", "%d; a site has 1, 3 or 5", c.Voters)
	}
	e.address("bind", c.Bind, false)
	e.address("gossip_bind", c.GossipBind, false)
	e.address("advertise", c.Advertise, true)
	e.address("gossip_advertise", c.GossipAdvertise, true)
	e.address("wan_bind", c.WANBind, false)
	e.address("wan_advertise", c.WANAdvertise, true)
	if c.WAN.Rate != 0 && c.WAN.Rate < leastRate {
		e.add("wan.rate", "%d bytes a second are too few for what sites must say to each other; give 64KiB or more, or 0B for no limit", c.WAN.Rate)
	}
	if c.Replication.Keep < 1 {
		e.add("replication.keep", "%d bytes; give a size such as 1GB", c.Replication.Keep)
	}
	e.between("wan.connections", c.WAN.Connections, 1, maxConnections)
	for i, j := range c.Join {
		e.address(fmt.Sprintf("join[%d]", i), j, false)
	}
	e.labels(c.Labels)
	c.HTTP.check(&e)
	for key, v := range map[string]string{"token": c.Token, "http.token": c.HTTP.Token} {
		if _, err := job.ParseSecret(v); err != nil {
			e.add(key, "%v", err)
		}
	}
	return e.err()
}

// dev puts everything on loopback.
func (c *Config) dev(e *problems) {
	for _, p := range []struct {
		key  string
		addr *string
	}{{"bind", &c.Bind}, {"http.bind", &c.HTTP.Bind}, {"gossip_bind", &c.GossipBind}, {"wan_bind", &c.WANBind}} {
		switch {
		case *p.addr == DefaultBind:
			*p.addr = "127.0.0.1:7071"
		case *p.addr != "" && !Loopback(*p.addr):
			e.add(p.key, "%s is not loopback; dev is for this machine alone: leave dev out and run `tidemark init`", *p.addr)
		}
	}
	if len(c.Join) > 0 {
		for i, j := range c.Join {
			if !Loopback(j) {
				e.add(fmt.Sprintf("join[%d]", i), "%s is not loopback, and dev is", j)
			}
		}
	}
}

func (h *HTTP) check(e *problems) {
	if h.Bind == "" {
		e.add("http.bind", "is empty; without the API no verb works: give %s", DefaultHTTP)
		return
	}
	e.address("http.bind", h.Bind, false)
	switch {
	case (h.Cert == "") != (h.Key == ""):
		e.add("http", "cert and key belong together; one is missing")
	case !Loopback(h.Bind) && (h.Cert == "" || h.Token == ""):
		e.add("http.bind", "%s is open to others; give http.cert, http.key and http.token, or bind to 127.0.0.1", h.Bind)
	}
}

// Loopback tells whether an address is this machine's own.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// GossipOf is where an agent gossips that is reached at link, unless its user
// chose another place.
func GossipOf(link string) string { return next(link) }

// WANOf is where an agent gossips with other sites, likewise.
func WANOf(link string) string { return next(next(link)) }

// next is the address whose port is the one after; port 0 stays.
func next(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return ""
	}
	if n > 0 {
		n++
	}
	return net.JoinHostPort(host, strconv.Itoa(n))
}

// problems collects what is wrong.
type problems []string

func (e *problems) add(key, format string, args ...any) {
	*e = append(*e, key+": "+fmt.Sprintf(format, args...))
}

func (e *problems) err() error {
	if len(*e) == 0 {
		return nil
	}
	slices.Sort(*e)
	return Errors(*e)
}

// Errors is all that is wrong with a configuration.
type Errors []string

// Error is one line for each.
func (e Errors) Error() string { return strings.Join(e, "\n") }

// CheckName tells what is wrong with the name of an agent.
func CheckName(v string) error {
	var e problems
	e.name(fmt.Sprintf("%q", v), v)
	return e.err()
}

func (e *problems) name(key, v string) {
	switch {
	case v == "":
		e.add(key, "is empty")
	case len(v) > maxName:
		e.add(key, "%q has more than %d bytes", v, maxName)
	case strings.IndexFunc(v, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	}) >= 0:
		e.add(key, "%q: letters, digits, - _ . only", v)
	}
}

func (e *problems) between(key string, v, least, most int) {
	if v < least || v > most {
		e.add(key, "%d; between %d and %d", v, least, most)
	}
}

func (e *problems) address(key, v string, mayBeEmpty bool) {
	if v == "" {
		if !mayBeEmpty {
			e.add(key, "is empty; it is host:port")
		}
		return
	}
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		e.add(key, "%q is no host:port", v)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		e.add(key, "%q: the port is a number up to 65535", v)
	}
}

func (e *problems) labels(l map[string]string) {
	if len(l) > maxLabels {
		e.add("labels", "%d of them; at most %d", len(l), maxLabels)
	}
	for k, v := range l {
		if k == "" || len(k) > maxName || len(v) > maxName {
			e.add("labels", "%q: %q; a label has a name, and both have at most %d bytes", k, v, maxName)
		}
	}
}
