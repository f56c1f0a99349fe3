package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// answerTime is how long requests that are under way when the agent ends are
// given; those that have no end of their own end at once.
const answerTime = 3 * time.Second

// service is an HTTP server with the requests that it answers.
type service struct {
	server *http.Server
	cancel context.CancelFunc // of all requests
	done   chan struct{}      // closed when nothing is accepted any more

	endless context.Context // of requests without an end
	hush    context.CancelFunc

	mu    sync.Mutex // guards what follows
	under int        // requests under way
	over  bool       // none is taken any more
	idle  chan struct{}
}

// serve answers requests with h until end is called. listen is the server's
// Serve; failed hears why it ended by itself.
func serve(h http.Handler, listen func(*http.Server) error, failed func(error)) *service {
	ctx, cancel := context.WithCancel(context.Background())
	s := &service{cancel: cancel, done: make(chan struct{}), idle: make(chan struct{})}
	s.endless, s.hush = context.WithCancel(ctx)
	s.server = &http.Server{
		Handler: s.counted(h), ReadHeaderTimeout: 10 * time.Second, ConnContext: withCaller,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	go func() {
		defer close(s.done)
		if err := listen(s.server); err != nil && !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("api: %w", err))
		}
	}()
	return s
}

func (s *service) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			http.Error(w, "this agent ends", http.StatusServiceUnavailable)
			return
		}
		s.under++
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.under--; s.over && s.under == 0 {
				close(s.idle)
			}
		}()
		if api.Endless(r) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(s.endless, cancel)()
			r = r.WithContext(ctx)
		}
		h.ServeHTTP(w, r)
	})
}

// end lets requests under way be answered within limit, then cuts them, and waits
// for all.
func (s *service) end(limit time.Duration) error {
	s.hush()
	ctx, stop := context.WithTimeout(context.Background(), limit)
	defer stop()
	_ = s.server.Shutdown(ctx) // late: they are cut
	s.cancel()
	err := s.server.Close()
	<-s.done
	s.mu.Lock()
	s.over = true
	wait := s.under > 0
	s.mu.Unlock()
	if wait {
		<-s.idle
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// listenHTTP takes the API's port; nothing is answered yet.
func (n *Node) listenHTTP(ends *ends) (err error) {
	if n.api, err = net.Listen("tcp", n.o.Config.HTTP.Bind); err != nil {
		return fmt.Errorf("http.bind: %w: does another agent run here? --http HOST:PORT names another port", err)
	}
	n.http = n.api.Addr()
	ends.add(func() error { _ = n.api.Close(); return nil }) // its server has closed it, if there was one
	return nil
}

// shownHTTP is where others may ask this agent; empty if nobody else can.
func (n *Node) shownHTTP() string {
	bind := n.o.Config.HTTP.Bind
	if config.Loopback(bind) && !n.o.Config.Dev {
		return ""
	}
	host, _, err := net.SplitHostPort(bind)
	_, port, _ := net.SplitHostPort(n.http.String())
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		host, _, _ = net.SplitHostPort(n.linkAddr())
	}
	return net.JoinHostPort(host, port)
}

// startAPI serves the API to users, and to other agents.
func (n *Node) startAPI(ends *ends) error {
	c := n.o.Config.HTTP
	token, err := n.secret(c.Token)
	if err != nil {
		return fmt.Errorf("http.token: %w", err)
	}
	mux := http.NewServeMux()
	n.internal(mux)
	n.serveSites(mux)
	n.servePassed(mux)
	mux.Handle("/", api.New(n, api.Options{Version: n.o.Version, Inside: true}))
	start := func(h http.Handler, listen func(*http.Server) error) {
		s := serve(h, listen, n.fail)
		ends.add(func() error { return s.end(answerTime) })
	}
	start(n.membersOnly(mux), func(s *http.Server) error { return s.Serve(n.calls) })
	start(api.New(n, api.Options{Version: n.o.Version, Token: token}), func(s *http.Server) error {
		if c.Cert != "" {
			return s.ServeTLS(n.api, c.Cert, c.Key)
		}
		return s.Serve(n.api)
	})
	return nil
}

// membersOnly refuses agents that do not belong to the site any more: their
// certificates are right until they end. Those of other sites have paths of their own.
func (n *Node) membersOnly(h http.Handler) http.Handler {
	foreign := n.foreign()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := callerOf(r.Context())
		if ok && caller.Site != n.id.Site() {
			foreign.ServeHTTP(w, r)
			return
		}
		if ok {
			n.replica.view(func(st *coordinator.State) { ok = st.Agents[caller.Node] != nil || len(st.Agents) == 0 })
		}
		if !ok {
			http.Error(w, "this agent does not belong to the site, as far as is known here: it was removed, or has just joined", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
