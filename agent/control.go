package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// controlSocket is where the process that runs jobs on a state folder can be
// spoken to, by its own user only.
const controlSocket = "control.sock"

// longestSocket is what every system takes as a socket's path.
const longestSocket = 103

// Control lets other processes of this machine ask the one that runs jobs on a
// state folder: HTTP over a Unix socket in the folder.
//
//	GET  /jobs                         the jobs, an array of RunningJob
//	POST /jobs/J/savepoint             {"savepoint": ID}
//	POST /jobs/J/stop[?drain=true]     {"savepoint": ID}, when the job has ended
//
// An error is {"error": TEXT} with status 4xx or 5xx. It is a tool for one
// folder, and holds no state: what it is asked, a running job does.
type Control struct {
	server *http.Server
	done   chan struct{}
	path   string

	mu   sync.Mutex // guards jobs
	jobs map[string]controlled
}

type controlled struct {
	local *Local
	ended <-chan struct{}
}

// RunningJob is a job of a process that runs on a state folder.
type RunningJob struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Totals Totals `json:"totals"`
}

// ServeControl begins to answer on the folder's socket. The caller holds the
// folder's lock, so a socket that is there is nobody's.
func ServeControl(dir string) (*Control, error) {
	path := filepath.Join(dir, controlSocket)
	if len(path) > longestSocket {
		return nil, fmt.Errorf("%s is longer than the %d bytes that a socket's path may have; run it with a shorter --state, or from nearer by", path, longestSocket)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	c := &Control{done: make(chan struct{}), path: path, jobs: make(map[string]controlled)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jobs", c.list)
	mux.HandleFunc("POST /jobs/{job}/savepoint", c.savepoint)
	mux.HandleFunc("POST /jobs/{job}/stop", c.stop)
	c.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(c.done)
		_ = c.server.Serve(ln) // it ends with Close, and there is nobody to tell of another end
	}()
	return c, nil
}

// Add lets a durable job be spoken to until it has ended.
func (c *Control) Add(l *Local, ended <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[l.job.Name] = controlled{l, ended}
}

// Close lets answers under way be finished, for a moment, and ends.
func (c *Control) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := c.server.Shutdown(ctx)
	if err != nil {
		err = c.server.Close()
	}
	<-c.done
	if e := os.Remove(c.path); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func (c *Control) job(w http.ResponseWriter, r *http.Request) (controlled, bool) {
	name := r.PathValue("job")
	c.mu.Lock()
	defer c.mu.Unlock()
	j, ok := c.jobs[name]
	if !ok {
		there := "none does yet"
		if names := slices.Sorted(maps.Keys(c.jobs)); len(names) > 0 {
			there = "there is " + strings.Join(names, ", ")
		}
		answer(w, http.StatusNotFound, map[string]string{"error": fmt.Sprintf("job %q does not run on this folder; %s", name, there)})
	}
	return j, ok
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who asked may be gone
}

func (c *Control) list(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	list := []RunningJob{}
	for name, j := range c.jobs {
		list = append(list, RunningJob{name, j.local.JobStatus().String(), j.local.Totals()})
	}
	c.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	answer(w, http.StatusOK, list)
}

func (c *Control) savepoint(w http.ResponseWriter, r *http.Request) {
	j, ok := c.job(w, r)
	if !ok {
		return
	}
	name, err := j.local.Savepoint(r.Context())
	if err != nil {
		answer(w, http.StatusConflict, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]string{"savepoint": name})
}

func (c *Control) stop(w http.ResponseWriter, r *http.Request) {
	j, ok := c.job(w, r)
	if !ok {
		return
	}
	if r.URL.Query().Get("drain") == "true" {
		j.local.Drain()
	} else {
		j.local.Stop()
	}
	select {
	case <-j.ended:
	case <-r.Context().Done():
		return
	}
	o := j.local.Outcome()
	if o.Savepoint == "" {
		answer(w, http.StatusConflict, map[string]string{"error": fmt.Sprintf("the job is %s without a savepoint", o.Status)})
		return
	}
	answer(w, http.StatusOK, map[string]string{"savepoint": o.Savepoint})
}

// ErrNoProcess means that no process runs jobs on the folder.
var ErrNoProcess = errors.New("no process runs jobs on")

// ControlClient asks the process that runs jobs on a state folder. Every call
// may return ErrNoProcess.
type ControlClient struct{ Dir string }

// Jobs are the jobs that run.
func (c ControlClient) Jobs(ctx context.Context) (jobs []RunningJob, err error) {
	return jobs, c.ask(ctx, http.MethodGet, "/jobs", &jobs)
}

// Savepoint takes a savepoint of a job, which goes on.
func (c ControlClient) Savepoint(ctx context.Context, jobName string) (string, error) {
	return c.name(ctx, "/jobs/"+url.PathEscape(jobName)+"/savepoint")
}

// Stop stops a job with a savepoint, with drain after ending its input, and
// returns when it has ended.
func (c ControlClient) Stop(ctx context.Context, jobName string, drain bool) (string, error) {
	path := "/jobs/" + url.PathEscape(jobName) + "/stop"
	if drain {
		path += "?drain=true"
	}
	return c.name(ctx, path)
}

func (c ControlClient) name(ctx context.Context, path string) (string, error) {
	var out struct{ Savepoint string }
	err := c.ask(ctx, http.MethodPost, path, &out)
	return out.Savepoint, err
}

// longestAnswer bounds what a client reads.
const longestAnswer = 16 << 20

func (c ControlClient) ask(ctx context.Context, method, path string, out any) error {
	socket := filepath.Join(c.Dir, controlSocket)
	if len(socket) > longestSocket {
		return fmt.Errorf("%s is longer than the %d bytes that a socket's path may have; name the folder from nearer by", socket, longestSocket)
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer t.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://folder"+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: t}).Do(r)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w %s", ErrNoProcess, c.Dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s is for the user that runs the job; ask as that user: %w", socket, err)
	case ctx.Err() != nil:
		return errors.New("interrupted; what was asked may still be done")
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the process that runs jobs on %s ended before it answered; look with tidemark job list", c.Dir)
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(body, &e) != nil || e.Error == "" {
			e.Error = fmt.Sprintf("%s: %s", resp.Status, bytes.TrimSpace(body))
		}
		return errors.New(e.Error)
	}
	return json.Unmarshal(body, out)
}
