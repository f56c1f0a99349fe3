package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// ErrNoAgent means that nobody answers at the address.
var ErrNoAgent = errors.New("no agent answers")

// Problem is an error that an agent answered with.
type Problem struct {
	Status int
	Title  string
	Detail string
	Errors []string // all that is wrong, if it is more than one thing

	again bool // nothing was done, and soon may be
	lost  bool // it is not known whether it was done
}

// Error is what a person needs.
func (p *Problem) Error() string { return p.Detail }

// Invalid tells whether it is a job's own errors.
func (p *Problem) Invalid() bool { return p.Title == notValid }

// Malformed tells whether what was asked for cannot be, whatever the site is like.
func (p *Problem) Malformed() bool { return p.Title == malformed }

// Client asks an agent. Any goroutine may call it.
type Client struct {
	addr  *url.URL
	token string
	http  *http.Client
	wait  time.Duration // for a leader, where there is none
}

// Limits of a client.
const (
	waitForLeader = 15 * time.Second
	askAgain      = 500 * time.Millisecond
	maxAnswer     = 256 << 20 // of what is read as a whole
	maxProblem    = 16 << 20
)

// NewClient is a client of the agent at an URL.
func NewClient(addr, token string) (*Client, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no address of an agent; it is like http://127.0.0.1:7070", addr)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &Client{addr: u, token: token, http: &http.Client{}, wait: waitForLeader}, nil
}

// Addr is where it asks.
func (c *Client) Addr() string { return c.addr.String() }

// Path joins the parts of a path, each of which may have any characters.
func Path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteString("/")
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

// Open sends a request and returns the body of its answer, which the caller
// closes. An answer that is an error is a *Problem. Where the site has no leader
// it waits for one, unless the body is a stream; a question whose answer was lost
// is asked again.
func (c *Client) Open(ctx context.Context, method, path string, q url.Values, kind string, body io.Reader) (io.ReadCloser, error) {
	text, again := body.(*bytes.Reader)
	for until := time.Now().Add(c.wait); ; {
		rc, err := c.once(ctx, method, path, q, kind, body)
		var p *Problem
		if !errors.As(err, &p) || !p.again && !(p.lost && method == http.MethodGet) || body != nil && !again || time.Now().After(until) {
			return rc, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, err
		}
		if again {
			_, _ = text.Seek(0, io.SeekStart) // it cannot fail
		}
	}
}

func (c *Client) once(ctx context.Context, method, path string, q url.Values, kind string, body io.Reader) (io.ReadCloser, error) {
	u := c.addr.String() + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", kind)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("interrupted; what was asked may still be done: %w", context.Cause(ctx))
	case err != nil:
		return nil, unanswered(err, c.addr.String())
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, problemOf(resp)
}

// unanswered tells a connection that was not made from one that broke.
func unanswered(err error, addr string) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if dialed(err) {
		return fmt.Errorf("%w at %s: %w", ErrNoAgent, addr, err)
	}
	return fmt.Errorf("the agent at %s ended before it answered, and it is not known whether it was done: %w", addr, err)
}

func problemOf(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return err
	}
	var e huma.ErrorModel
	if json.Unmarshal(text, &e) != nil || e.Detail == "" {
		e.Detail = strings.TrimSpace(fmt.Sprintf("%s: %s", resp.Status, text[:min(len(text), 200)]))
	}
	p := &Problem{Status: resp.StatusCode, Title: e.Title, Detail: e.Detail}
	p.again = resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != ""
	p.lost = resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusServiceUnavailable && !p.again
	for _, d := range e.Errors {
		p.Errors = append(p.Errors, d.Message)
	}
	return p
}

// Do sends in as JSON, unless it is nil, and reads the answer into out, unless
// that is nil.
func (c *Client) Do(ctx context.Context, method, path string, q url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	rc, err := c.Open(ctx, method, path, q, "application/json", body)
	if err != nil {
		return err
	}
	defer rc.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(rc, maxAnswer)).Decode(out)
}

// ask is Do with a typed answer.
func ask[T any](ctx context.Context, c *Client, method, path string, q url.Values, in any) (out T, err error) {
	return out, c.Do(ctx, method, path, q, in, &out)
}

func yes(name string, v bool) url.Values {
	if !v {
		return nil
	}
	return url.Values{name: {strconv.FormatBool(v)}}
}

// askOnce asks for what is done once however often it is asked for: it asks again
// where the answer was lost.
func askOnce[T any](ctx context.Context, c *Client, method, path string, q url.Values, in any) (T, error) {
	for until := time.Now().Add(c.wait); ; {
		out, err := ask[T](ctx, c, method, path, q, in)
		var p *Problem
		if !errors.As(err, &p) || !p.lost || time.Now().After(until) {
			return out, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return out, err
		}
	}
}

// Submit submits a job. With a Request it is made once.
func (c *Client) Submit(ctx context.Context, s Submission) (Submitted, error) {
	if s.Request == "" {
		return ask[Submitted](ctx, c, http.MethodPost, "/v1/jobs", nil, s)
	}
	return askOnce[Submitted](ctx, c, http.MethodPost, "/v1/jobs", nil, s)
}

// Check is the dry run of a job.
func (c *Client) Check(ctx context.Context, d Dry) (Checked, error) {
	return ask[Checked](ctx, c, http.MethodPost, "/v1/check", nil, d)
}

// Jobs are all jobs.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	return ask[[]Job](ctx, c, http.MethodGet, "/v1/jobs", nil, nil)
}

// Job is one, by its id or name.
func (c *Client) Job(ctx context.Context, job string) (JobDetail, error) {
	return ask[JobDetail](ctx, c, http.MethodGet, Path("jobs", job), nil, nil)
}

// Spec is a job's text.
func (c *Client) Spec(ctx context.Context, job string) (JobSpec, error) {
	return ask[JobSpec](ctx, c, http.MethodGet, Path("jobs", job, "spec"), nil, nil)
}

// Stop stops a job with a savepoint, and waits until it has stopped. Asked again, it is the
// same stop.
func (c *Client) Stop(ctx context.Context, job string, drain bool) (Savepointed, error) {
	return askOnce[Savepointed](ctx, c, http.MethodPost, Path("jobs", job, "stop"), yes("drain", drain), nil)
}

// Cancel gives a job up.
func (c *Client) Cancel(ctx context.Context, job string) (Job, error) {
	return ask[Job](ctx, c, http.MethodPost, Path("jobs", job, "cancel"), nil, nil)
}

// Rescale sets a job's parallelism.
func (c *Client) Rescale(ctx context.Context, job string, parallelism int) (Job, error) {
	return ask[Job](ctx, c, http.MethodPost, Path("jobs", job, "rescale"), nil, Rescaling{parallelism})
}

// CreateSavepoint takes a savepoint of a job, which goes on.
func (c *Client) CreateSavepoint(ctx context.Context, job string) (Savepointed, error) {
	return askOnce[Savepointed](ctx, c, http.MethodPost, Path("jobs", job, "savepoints"), nil, Saving{Request: rand.Text()})
}

// Forget drops a job that has ended, with its checkpoints.
func (c *Client) Forget(ctx context.Context, job string) error {
	return c.Do(ctx, http.MethodDelete, Path("jobs", job), nil, nil, nil)
}

// ForgetKept drops what the site that is asked keeps of a job of another one.
func (c *Client) ForgetKept(ctx context.Context, job string) error {
	return c.Do(ctx, http.MethodDelete, Path("replicas", job), nil, nil, nil)
}

// Checkpoints are those of a job.
func (c *Client) Checkpoints(ctx context.Context, job string) ([]Snapshot, error) {
	return ask[[]Snapshot](ctx, c, http.MethodGet, Path("jobs", job, "checkpoints"), nil, nil)
}

// Savepoints are all of them.
func (c *Client) Savepoints(ctx context.Context) ([]Snapshot, error) {
	return ask[[]Snapshot](ctx, c, http.MethodGet, "/v1/savepoints", nil, nil)
}

// Savepoint is a savepoint or checkpoint.
func (c *Client) Savepoint(ctx context.Context, name string) (Snapshot, error) {
	return ask[Snapshot](ctx, c, http.MethodGet, Path("savepoints", name), nil, nil)
}

// Verify reads all of a savepoint.
func (c *Client) Verify(ctx context.Context, name string) (Verified, error) {
	return ask[Verified](ctx, c, http.MethodPost, Path("savepoints", name, "verify"), nil, nil)
}

// DeleteSavepoint deletes one.
func (c *Client) DeleteSavepoint(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, Path("savepoints", name), nil, nil, nil)
}

// Export is the bytes of a savepoint; what ends early is an error.
func (c *Client) Export(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.Open(ctx, http.MethodGet, Path("savepoints", name, "export"), nil, "", nil)
}

// Import takes in what Export gave, under another name if one is given.
func (c *Client) Import(ctx context.Context, in io.Reader, as string) (out Snapshot, err error) {
	q := url.Values{}
	if as != "" {
		q.Set("as", as)
	}
	rc, err := c.Open(ctx, http.MethodPost, pathImport, q, "application/x-tar", struct{ io.Reader }{in})
	if err != nil {
		return out, err
	}
	defer rc.Close()
	return out, json.NewDecoder(io.LimitReader(rc, maxAnswer)).Decode(&out)
}

// ReadState is the rows of a state as JSON lines.
func (c *Client) ReadState(ctx context.Context, savepoint, operator, state string) (io.ReadCloser, error) {
	return c.Open(ctx, http.MethodGet, Path("state", savepoint), url.Values{"operator": {operator}, "state": {state}}, "", nil)
}

// Diff is the differences of two savepoints as JSON lines.
func (c *Client) Diff(ctx context.Context, a, b string) (io.ReadCloser, error) {
	return c.Open(ctx, http.MethodGet, Path("state", a, "diff", b), nil, "", nil)
}

// Feeds are all feeds.
func (c *Client) Feeds(ctx context.Context) ([]Feed, error) {
	return ask[[]Feed](ctx, c, http.MethodGet, "/v1/feeds", nil, nil)
}

// Feed is one.
func (c *Client) Feed(ctx context.Context, name string) (Feed, error) {
	return ask[Feed](ctx, c, http.MethodGet, Path("feeds", name), nil, nil)
}

// CreateFeed makes a shared one.
func (c *Client) CreateFeed(ctx context.Context, f NewFeed) (Feed, error) {
	return ask[Feed](ctx, c, http.MethodPost, "/v1/feeds", nil, f)
}

// DeleteFeed deletes one with its log.
func (c *Client) DeleteFeed(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, Path("feeds", name), nil, nil, nil)
}

// Members are the agents of the site; stale: as the asked one knows them.
func (c *Client) Members(ctx context.Context, stale bool) ([]Agent, error) {
	return ask[[]Agent](ctx, c, http.MethodGet, "/v1/members", yes("stale", stale), nil)
}

// Leave has the asked agent leave the site.
func (c *Client) Leave(ctx context.Context) error {
	return c.Do(ctx, http.MethodPost, pathLeave, nil, nil, nil)
}

// Remove takes out an agent that is gone for good.
func (c *Client) Remove(ctx context.Context, member string, force bool) error {
	return c.Do(ctx, http.MethodDelete, Path("members", member), yes("force", force), nil, nil)
}

// Site is the site; stale: as the asked agent knows it.
func (c *Client) Site(ctx context.Context, stale bool) (SiteInfo, error) {
	return ask[SiteInfo](ctx, c, http.MethodGet, "/v1/site", yes("stale", stale), nil)
}

// Sites are all sites of the mesh that are known.
func (c *Client) Sites(ctx context.Context, stale bool) ([]Site, error) {
	return ask[[]Site](ctx, c, http.MethodGet, "/v1/sites", yes("stale", stale), nil)
}

// Tokens are the join tokens.
func (c *Client) Tokens(ctx context.Context) ([]TokenInfo, error) {
	return ask[[]TokenInfo](ctx, c, http.MethodGet, "/v1/tokens", nil, nil)
}

// CreateToken makes a join token.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (TokenMade, error) {
	return ask[TokenMade](ctx, c, http.MethodPost, "/v1/tokens", nil, t)
}

// CreateSite has an agent of the site let one agent found another one.
func (c *Client) CreateSite(ctx context.Context, n NewSite) (TokenInfo, error) {
	return ask[TokenInfo](ctx, c, http.MethodPost, "/v1/sites", nil, n)
}

// RevokeToken ends a token; who has joined with it stays.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, Path("tokens", id), nil, nil, nil)
}

// Watch calls f with what happens, to a job or (empty) to all, until f fails, the
// job has ended, or ctx ends. When the site's leader changes it goes on with the
// next one; what happened between is not told.
func (c *Client) Watch(ctx context.Context, job string, f func(EventLine) error) error {
	path := "/v1/events"
	if job != "" {
		path = Path("jobs", job, "events")
	}
	last := ""
	for {
		rc, err := c.Open(ctx, http.MethodGet, path, nil, "", nil)
		if err != nil {
			return err
		}
		err = eachEvent(rc, func(e EventLine) error {
			if job != "" && e.What == "job" && e.Text == last {
				return nil // it was told by the leader before
			}
			last = e.Text
			if err := f(e); err != nil || e.What != endOfJob {
				return err
			}
			return io.EOF
		})
		rc.Close()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		select { // the stream ended: its agent leads no more
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// eachEvent reads server-sent events. A stream that ends, or breaks, is no error.
func eachEvent(r io.Reader, f func(EventLine) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		data, ok := strings.CutPrefix(in.Text(), "data: ")
		if !ok {
			continue
		}
		var e EventLine
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("an event that is none: %w", err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}
