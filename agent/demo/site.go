package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// The two sites: where the job begins, and where it goes.
const (
	home, away   = "plant", "depot"
	agentsAtHome = 3
	slotsAtHome  = 2
	slotsAway    = 4 // one agent has the whole job there
)

// site is the agents of both sites, each a process with a folder of its own.
type site struct {
	folder string
	run    []string // the command of an agent, before the path of its configuration
	agents []*process
	failed func(error) // an agent ended by itself
}

// process is one agent; it may be killed and started again.
type process struct {
	s      *site
	name   string
	at     string // its site
	dir    string // its data folder
	config string // its configuration file
	log    string // where its log goes
	addr   string // host:port of its API
	link   string // host:port of its QUIC port
	client *api.Client

	mu    sync.Mutex // guards what follows
	cmd   *exec.Cmd  // nil: it does not run
	leash io.Closer  // its stdin
	ended chan struct{}
	wish  bool // that it ends
}

// newSite makes the folder, the mesh and the configurations. Nothing runs yet.
func newSite(temp string, run []string, failed func(error)) (*site, error) {
	folder, err := os.MkdirTemp(temp, folderPrefix)
	if err != nil {
		return nil, err
	}
	s := &site{folder: folder, run: run, failed: failed}
	if err := s.configure(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return s, nil
}

func (s *site) configure() error {
	var token string
	for i := range agentsAtHome {
		a, err := s.add(fmt.Sprintf("n%d", i+1), home)
		if err != nil {
			return err
		}
		if i > 0 {
			err = a.configure(slotsAtHome, fmt.Sprintf("join: [%q]\ntoken: %q\n", s.agents[0].link, token))
		} else if _, t, err2 := node.Found(a.dir, "demo", mesh.Site(home), time.Now()); err2 != nil {
			err = err2
		} else {
			token = t.String()
			err = a.configure(slotsAtHome, "")
		}
		if err != nil {
			return err
		}
	}
	_, err := s.add("d1", away)
	return err
}

// add adds an agent without a configuration.
func (s *site) add(name, at string) (*process, error) {
	a := &process{s: s, name: name, at: at}
	a.dir, a.log, a.config = filepath.Join(s.folder, a.name), filepath.Join(s.folder, a.name+".log"), filepath.Join(s.folder, a.name+".yaml")
	var err error
	if a.link, a.addr, err = s.freePorts(); err != nil {
		return nil, err
	}
	if a.client, err = api.NewClient(a.addr, ""); err != nil {
		return nil, err
	}
	s.agents = append(s.agents, a)
	return a, nil
}

func (a *process) configure(slots int, more string) error {
	text := fmt.Sprintf("name: %s\nsite: %s\ndata_dir: %q\nslots: %d\nmemory: %dMiB\nbind: %q\nhttp: {bind: %q}\n%s", a.name, a.at, a.dir, slots, 32*slots, a.link, a.addr, more)
	return os.WriteFile(a.config, []byte(text), 0o600)
}

// found has the first site let the other one be founded, and configures its agent
// for that. It fails as long as not all agents of the first one are known.
func (s *site) found(ctx context.Context) error {
	first, a := s.agents[0], s.of(away)[0]
	key, err := identity.OpenFolder(disk.Secret, filepath.Join(first.dir, "identity"), time.Now).RootKey()
	if err != nil {
		return err
	}
	meshName, made, err := identity.SignSite(key, mesh.Site(away), time.Now())
	if err != nil {
		return err
	}
	token, sealed, err := identity.NewSiteToken(key, mesh.Site(away), made)
	if err != nil {
		return err
	}
	hash := token.SecretHash()
	if _, err := first.client.CreateSite(ctx, api.NewSite{Mesh: meshName, Site: away, Token: token.ID, Hash: hash[:], Sealed: sealed}); err != nil {
		return err
	}
	return a.configure(slotsAway, fmt.Sprintf("join: [%q]\ntoken: %q\n", first.link, token.String()))
}

// of are the agents of a site.
func (s *site) of(name string) (all []*process) {
	for _, a := range s.agents {
		if a.at == name {
			all = append(all, a)
		}
	}
	return all
}

// Ports of the agents are below those that systems give to outgoing connections:
// an agent that is away for a moment finds its own again.
const leastPort, mostPort = 18000, 32000

// freePorts are ports of loopback that nobody has: of an agent's link, with the two
// after it, which gossip takes, and of its API.
func (s *site) freePorts() (link, http string, err error) {
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	free := func(port int) bool {
		u, err := net.ListenPacket("udp", at(port))
		if err != nil {
			return false
		}
		t, err := net.Listen("tcp", at(port))
		if err == nil {
			_ = t.Close()
		}
		_ = u.Close()
		return err == nil
	}
	for range 1000 {
		p := leastPort + rand.IntN((mostPort-leastPort)/4)*4
		taken := slices.ContainsFunc(s.agents, func(a *process) bool { return a.link == at(p) })
		if !taken && free(p) && free(p+1) && free(p+2) && free(p+3) {
			return at(p), at(p + 3), nil
		}
	}
	return "", "", fmt.Errorf("no four free ports side by side on 127.0.0.1 between %d and %d", leastPort, mostPort)
}

// start starts the process.
func (a *process) start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(a.s.run[0], append(append([]string(nil), a.s.run[1:]...), a.config)...)
	cmd.Env = append(os.Environ(), leashEnv+"="+a.s.folder)
	cmd.Stdout, cmd.Stderr = log, log
	apart(cmd)
	if a.leash, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("agent %s cannot be started: %w", a.name, err)
	}
	a.cmd, a.wish, a.ended = cmd, false, make(chan struct{})
	go a.wait(cmd, a.ended)
	return nil
}

func (a *process) wait(cmd *exec.Cmd, ended chan struct{}) {
	err := cmd.Wait()
	a.mu.Lock()
	wish := a.wish
	a.cmd = nil
	a.mu.Unlock()
	close(ended)
	if !wish {
		a.s.failed(fmt.Errorf("agent %s ended by itself (%v); the last it said:\n%s", a.name, err, a.tail()))
	}
}

// end ends the process, at once or in order, and waits for it.
func (a *process) end(atOnce bool) {
	a.mu.Lock()
	cmd, ended := a.cmd, a.ended
	a.wish = true
	if cmd == nil {
		a.mu.Unlock()
		return
	}
	if atOnce {
		_ = cmd.Process.Kill() // it has ended otherwise
	} else {
		_ = ask(cmd)
	}
	a.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(goodbye):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// goodbye is how long an agent may take to end in order.
const goodbye = 10 * time.Second

func (a *process) runs() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cmd != nil
}

// tailLines is how much of a log is shown.
const tailLines = 15

// tail is the last lines of the agent's log.
func (a *process) tail() string {
	text, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(string(bytes.TrimSpace(text)), "\n")
	for i := range lines {
		lines[i] = "    " + lines[i]
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// tails is what all agents said last.
func (s *site) tails() string {
	var b strings.Builder
	for _, a := range s.agents {
		fmt.Fprintf(&b, "\n  %s:\n%s", a.name, a.tail())
	}
	return b.String()
}

// ready tells whether the agent serves, knows a leader and has a lease.
func (a *process) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// close ends all agents and removes the folder.
func (s *site) close() error {
	var all sync.WaitGroup
	for _, a := range s.agents {
		all.Go(func() { a.end(false) })
	}
	all.Wait()
	http.DefaultClient.CloseIdleConnections()
	return os.RemoveAll(s.folder)
}

func (s *site) byName(name string) *process {
	for _, a := range s.agents {
		if a.name == name {
			return a
		}
	}
	return nil
}
