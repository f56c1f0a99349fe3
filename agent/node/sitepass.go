package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Requests of users about what another site has: jobs, savepoints, moves. They go to
// any agent of that site as they are, under a path of their own, and its leader
// answers them as those of its own users.

// unreachedError is of a connection that was not made: nothing was heard.
type unreachedError struct{ error }

func (u unreachedError) Unwrap() error { return u.error }

// PassSite is api.Backend's.
func (n *Node) PassSite(r *http.Request, site mesh.Site) (*http.Response, error) {
	body, err := io.ReadAll(r.Body) // it is whole
	if err != nil {
		return nil, err
	}
	to := n.siteAgents(site)
	if len(to) == 0 {
		return nil, fmt.Errorf("site %s: %w: no agent of it is known here", site, api.ErrUnreached)
	}
	var errs []error
	for _, node := range to[:min(len(to), siteTries)] {
		resp, err := n.passTo(r, node, body)
		if u := (unreachedError{}); !errors.As(err, &u) {
			return resp, err
		}
		errs = append(errs, fmt.Errorf("agent %s: %w", node, err))
		if r.Context().Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("site %s: %w: %w", site, api.ErrUnreached, errors.Join(errs...))
}

// passTo asks one agent. The answer may be a stream.
func (n *Node) passTo(r *http.Request, node mesh.NodeID, body []byte) (*http.Response, error) {
	t := http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, siteTime/siteTries)
		defer cancel()
		c, err := n.openCall(ctx, node)
		if err != nil {
			return nil, unreachedError{err}
		}
		return c, nil
	}}
	out := r.Clone(r.Context())
	out.URL = &url.URL{Scheme: "http", Host: "site", Path: api.PathPassed + r.URL.Path, RawPath: api.PathPassed + r.URL.EscapedPath(), RawQuery: r.URL.RawQuery}
	out.Host, out.RequestURI, out.Body, out.ContentLength = "site", "", io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	return t.RoundTrip(out)
}

// servePassed answers what users of other sites ask; and agents of this one, that pass
// it on to the leader.
func (n *Node) servePassed(mux *http.ServeMux) {
	inner := http.StripPrefix(api.PathPassed, api.New(n, api.Options{Version: n.o.Version, Inside: true}))
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "leader" },
		Transport:     n.toLeader.Transport,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, fmt.Sprintf("the leader of site %s: %v", n.id.Site(), err), http.StatusServiceUnavailable)
		},
	}
	mux.HandleFunc(api.PathPassed+"/", func(w http.ResponseWriter, r *http.Request) {
		from, _ := callerOf(r.Context())
		passed := from.Site == n.id.Site() && r.Header.Get(headSite) != ""
		switch path := strings.TrimPrefix(r.URL.Path, api.PathPassed); {
		case !api.Passable(path):
			http.Error(w, fmt.Sprintf("site %s answers no %s %s to users of other sites: ask an agent of it", n.id.Site(), r.Method, path), http.StatusNotFound)
		case n.leads() == nil && !passed:
			r.Header.Set(headSite, string(from.Site))
			proxy.ServeHTTP(w, r)
		default:
			inner.ServeHTTP(w, r)
		}
	})
}
