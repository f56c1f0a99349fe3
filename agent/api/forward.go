package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"
)

// away tells whether the leader is to answer a request, and is another agent.
func (s *server) away(r *http.Request) bool {
	switch {
	case !strings.HasPrefix(r.URL.Path, "/v1/"), r.URL.Path == pathLeave, r.Header.Get(hop) != "":
		return false
	case s.straight(r):
		return false
	case r.Method == http.MethodGet && r.URL.Query().Get("stale") == "true":
		return false
	}
	return s.b.Leader() != s.b.Self()
}

// unreached is an error of a connection that was not made: nothing was done.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// newProxy passes requests on to whoever leads, as they are.
func (s *server) newProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "leader"
			r.Out.Header.Del("Authorization") // it is this agent's, which the certificate stands for
			r.Out.Header.Set(hop, string(s.b.Self()))
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := s.b.CallLeader(ctx)
				if err != nil {
					return nil, unreached{err}
				}
				return c, nil
			},
			DisableKeepAlives:     true, // whoever leads may be another one next time
			DisableCompression:    true,
			ExpectContinueTimeout: time.Second,
		},
		FlushInterval: -1, // events are not to wait
		ErrorHandler:  s.unanswered,
	}
}

// unanswered says why the leader did not answer.
func (s *server) unanswered(w http.ResponseWriter, r *http.Request, err error) {
	var u unreached
	switch {
	case r.Context().Err() != nil:
		return // nobody waits
	case errors.Is(err, ErrNoLeader):
		w.Header().Set("Retry-After", retryAfter)
		problem(w, http.StatusServiceUnavailable, "the site has no leader at the moment, so nothing was done; a majority of its voters must run and reach each other: see `tidemark member list`")
	case errors.As(err, &u):
		w.Header().Set("Retry-After", retryAfter)
		problem(w, http.StatusServiceUnavailable, "the leader %s is not reached from here, so nothing was done: %v", s.b.Leader(), err)
	default:
		problem(w, http.StatusBadGateway, "the leader ended before it answered, and it is not known whether it was done; look before you ask again: %v", err)
	}
}
