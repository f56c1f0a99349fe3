package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Options are what an API is made with.
type Options struct {
	Version string
	Token   string // what requests must show as a bearer; empty: nothing
	// Inside is for requests of other agents, whose certificate has been checked:
	// they need no token, and are not passed on.
	Inside bool
}

// Limits of requests. Above the first the answer is 413.
const (
	maxBody    = 4 << 20          // bytes of a body, but for imports
	bodyTime   = 30 * time.Second // for a body to arrive
	quick      = 30 * time.Second // for what is done at once
	patient    = time.Hour        // for what waits for a job, or moves parts
	retryAfter = "1"              // seconds, where nothing was done and the next leader will know
)

// pathImport takes bodies of any size.
const pathImport = "/v1/savepoints/import"

// hop is on requests that were passed on once: they are not passed on again.
const hop = "X-Tidemark-Hop"

// server answers requests. Its fields do not change; any goroutine calls it.
type server struct {
	b     Backend
	o     Options
	token [sha256.Size]byte
	mux   *http.ServeMux
	huma  huma.API
	proxy *httputil.ReverseProxy
}

// New is the API of an agent.
func New(b Backend, o Options) http.Handler {
	s := &server{b: b, o: o, token: sha256.Sum256([]byte(o.Token)), mux: http.NewServeMux()}
	s.huma = humago.New(s.mux, s.config())
	s.proxy = s.newProxy()
	s.registerJobs()
	s.registerMoves()
	s.registerSnapshots()
	s.registerState()
	s.registerFeeds()
	s.registerSite()
	s.registerTokens()
	s.registerEvents()
	s.registerHealth()
	s.mux.Handle("GET /metrics", s.metrics())
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allow := s.methods(r); len(allow) > 0 {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			problem(w, http.StatusMethodNotAllowed, "%s is not for %s; there is %s", r.Method, r.URL.Path, strings.Join(allow, ", "))
			return
		}
		problem(w, http.StatusNotFound, "there is no %s; GET /openapi.json lists what there is", r.URL.Path)
	})
	// Pages of other origins may ask a browser to post here; it says where from.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		problem(w, http.StatusForbidden, "a page of another origin had a browser send this; that is not taken")
	}))
	return guard.Handler(http.HandlerFunc(s.serve))
}

// methods are those that the path of a request takes; none: there is no such path.
func (s *server) methods(r *http.Request) (all []string) {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := s.mux.Handler(other); pattern != "" && pattern != "/" {
			all = append(all, method)
		}
	}
	return all
}

func (s *server) config() huma.Config {
	c := huma.DefaultConfig("Tidemark", s.o.Version)
	c.Info.Description = "Jobs, feeds, savepoints and agents of one site. Any agent takes any request. Errors are RFC 7807 problems; `detail` is a sentence for people."
	c.DocsPath, c.SchemasPath = "", "" // the page would come from the internet
	c.CreateHooks = nil                // no $schema in answers
	c.Formats = maps.Clone(huma.DefaultFormats)
	c.Transformers = []huma.Transformer{sentence}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	c.Security = []map[string][]string{{"token": {}}}
	return c
}

// serve does for all requests what comes before what they are about.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	if !s.o.Inside && s.o.Token == "" && !own(r.Host) {
		problem(w, http.StatusForbidden, "the host %q is not this machine; an API without a token answers to 127.0.0.1, localhost and addresses only", r.Host)
		return
	}
	if !s.allowed(r) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		problem(w, http.StatusUnauthorized, "the API token is missing or wrong; set TIDEMARK_TOKEN to the http.token of the agent's configuration")
		return
	}
	if r.URL.Path != pathImport {
		if err := whole(w, r); err != nil {
			tooLarge(w, err)
			return
		}
	}
	if s.away(r) {
		s.proxy.ServeHTTP(w, r)
		return
	}
	if s.pass(w, r) {
		return
	}
	s.mux.ServeHTTP(w, r)
}

// own tells whether a host cannot be the name of another site's page.
func own(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	return name == "localhost" || net.ParseIP(name) != nil
}

func (s *server) allowed(r *http.Request) bool {
	if s.o.Inside || s.o.Token == "" || r.URL.Path == "/healthz" {
		return true
	}
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1 && ok
}

// whole reads the body, so that who sends it slowly holds nothing but a
// connection.
func whole(w http.ResponseWriter, r *http.Request) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has one
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return nil
}

func tooLarge(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		problem(w, http.StatusRequestEntityTooLarge, "the body has more than %d bytes", large.Limit)
		return
	}
	problem(w, http.StatusRequestTimeout, "the body did not arrive: %v", err)
}

// within bounds how long a request may take.
func within(ctx huma.Context, next func(huma.Context)) {
	d := quick
	if t, ok := ctx.Operation().Metadata["time"].(time.Duration); ok {
		d = t
	}
	if d == 0 { // until who asked goes
		next(ctx)
		return
	}
	c, cancel := context.WithTimeout(ctx.Context(), d)
	defer cancel()
	next(huma.WithContext(ctx, c))
}

// op describes an operation. The client's names of its parts are the path's.
func op(method, path, id, summary string, more ...func(*huma.Operation)) huma.Operation {
	o := huma.Operation{
		Method: method, Path: path, OperationID: id, Summary: summary, Middlewares: huma.Middlewares{within}, Metadata: map[string]any{},
		BodyReadTimeout: -1, MaxBodyBytes: maxBody, Tags: []string{strings.Split(strings.TrimPrefix(path, "/v1/"), "/")[0]},
	}
	for _, f := range more {
		f(&o)
	}
	return o
}

// lasting lets an operation take so long; 0: until who asked goes.
func lasting(d time.Duration) func(*huma.Operation) {
	return func(o *huma.Operation) { o.Metadata["time"] = d }
}

func status(code int) func(*huma.Operation) {
	return func(o *huma.Operation) { o.DefaultStatus = code }
}

func describe(text string) func(*huma.Operation) {
	return func(o *huma.Operation) { o.Description = text }
}

// Stale is the query of reads that any agent may answer by itself.
type Stale struct {
	Stale bool `query:"stale" doc:"what the asked agent knows, which may be old; else the leader answers, with all that was decided before"`
}

// body is an answer with a body.
type body[T any] struct{ Body T }

func answer[T any](v T) *body[T] { return &body[T]{v} }

// read hands f the state: unless stale, with all that was decided before.
func (s *server) read(ctx context.Context, stale Stale, f func(*coordinator.State) error) (err error) {
	if !stale.Stale {
		if err := s.b.Current(ctx); err != nil {
			return failed(err)
		}
	}
	s.b.View(func(st *coordinator.State) { err = f(st) })
	return err
}

// propose applies a command, and waits until it is decided.
func (s *server) propose(ctx context.Context, c coordinator.Command) (coordinator.JobID, error) {
	id, err := s.b.Propose(ctx, c)
	if err != nil {
		return "", failed(err)
	}
	return id, nil
}

// missing says that there is nothing of a name, and what there is.
func missing(what, name string, there []string) error {
	text := "there is none at all"
	const most = 10
	switch n := len(there); {
	case n > most:
		text = "there is " + strings.Join(there[:most], ", ") + ", …"
	case n > 0:
		text = "there is " + strings.Join(there, ", ")
	}
	return huma.Error404NotFound(fmt.Sprintf("no %s %q; %s", what, name, text))
}
