package api

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A request about a job, a savepoint or a move that this site does not have goes to
// the site that has it. The leader here passes it on to the leader there.

// PathPassed is before the paths of requests that come from another site.
const PathPassed = "/v1/sites/passed"

// passed is on requests that another site has passed on: the sites that they came
// through, the first first.
const passed = "X-Tidemark-Sites"

// headSite names, in an answer, the site that gave it, if it is another one.
const headSite = "Tidemark-Site"

// mostSites is how many sites a request goes through: a job that was moved again and
// again is found where the last one has it.
const mostSites = 4

// Passable tells whether the path of a request is one that goes to other sites.
// Bytes of savepoints do not: they are for an agent that has them.
func Passable(path string) bool {
	kind, _, rest := about(path)
	switch kind {
	case "jobs", "moves":
		return true
	case "savepoints":
		return rest != "export" && path != pathImport
	}
	return false
}

// about splits a path: what it is about, its name, and the verb.
func about(path string) (kind, ref, rest string) {
	path, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return "", "", ""
	}
	parts := strings.SplitN(path, "/", 3)
	for i, p := range parts {
		if text, err := url.PathUnescape(p); err == nil {
			parts[i] = text
		}
	}
	parts = append(parts, "", "")
	return parts[0], parts[1], parts[2]
}

// found says which sites a request may be for, in the order in which to ask them.
// None: this one.
type found struct {
	sites []mesh.Site
	sure  bool // the first of them has it, or knows who does
	here  bool // if that one is not reached this site answers all the same
	gone  bool // if that one knows nothing of it any more this site answers
}

// elsewhere looks for what a request is about.
func (s *server) elsewhere(r *http.Request) (f found) {
	kind, ref, rest := about(r.URL.EscapedPath())
	through := sitesOf(r)
	if r.Method == http.MethodGet && r.URL.Query().Get("stale") == "true" || !Passable(r.URL.Path) || len(through) >= mostSites {
		return found{}
	}
	self := mesh.Site("")
	s.b.View(func(st *coordinator.State) {
		self = st.Site
		switch {
		case ref == "":
		case kind == "jobs":
			f = ofJob(st, ref, rest, r.Method)
		case kind == "savepoints":
			if _, _, err := findSnapshot(st, ref); err != nil {
				f.sites = []mesh.Site{""}
			}
		default:
			f = ofMove(st, coordinator.MoveID(ref))
		}
	})
	if chosen := cmp.Or(mesh.Site(r.URL.Query().Get("site")), toSite(r)); chosen != "" {
		if f = (found{}); chosen != self {
			f = found{sites: []mesh.Site{chosen}, sure: true}
		}
	}
	if slices.Contains(f.sites, "") { // anybody's
		f.sites = slices.DeleteFunc(f.sites, func(site mesh.Site) bool { return site == "" })
		if len(through) == 0 {
			for _, site := range s.b.OtherSites() {
				if !slices.Contains(f.sites, site) {
					f.sites = append(f.sites, site)
				}
			}
		}
	}
	f.sites = slices.DeleteFunc(f.sites, func(site mesh.Site) bool { return site == self || slices.Contains(through, site) })
	return f
}

// sitesOf are the sites that a request came through.
func sitesOf(r *http.Request) (all []mesh.Site) {
	for _, site := range strings.Split(r.Header.Get(passed), ",") {
		if site != "" {
			all = append(all, mesh.Site(site))
		}
	}
	return all
}

// ofJob says which sites may have a job; "": any.
func ofJob(st *coordinator.State, ref, verb, method string) found {
	get := method == http.MethodGet
	comes := arriving(st, ref) != nil
	j, err := findJob(st, ref)
	switch {
	case verb == verbFailover: // of the site that is to have it
		return found{}
	case err == nil && j.Status == coordinator.Moved && j.Owner != "":
		return found{sites: []mesh.Site{j.Owner}, sure: true, here: get || comes, gone: method == http.MethodDelete}
	case err == nil:
		return found{}
	}
	f := found{here: comes, sites: []mesh.Site{""}}
	if _, first, ok := coordinator.JobID(ref).Parts(); ok && first != "" {
		f.sites, f.sure = []mesh.Site{first, ""}, true
	}
	return f
}

// ofMove says which site began a move: that one knows most of it.
func ofMove(st *coordinator.State, id coordinator.MoveID) found {
	_, source, ok := id.Parts()
	if !ok {
		return found{}
	}
	return found{sites: []mesh.Site{source}, sure: true, here: st.Moves.Arrivals[id] != nil}
}

// pass has another site answer a request, if it is for one. false: it is for this one.
func (s *server) pass(w http.ResponseWriter, r *http.Request) bool {
	if s.passes(w, r) {
		return true
	}
	if q := r.URL.Query(); Passable(r.URL.Path) && q.Has("site") { // it is this one
		q.Del("site")
		r.URL.RawQuery = q.Encode()
	}
	return false
}

func (s *server) passes(w http.ResponseWriter, r *http.Request) bool {
	if len(s.elsewhere(r).sites) == 0 || !s.straight(r) && s.b.Current(r.Context()) != nil {
		return false // if nobody leads, whoever answers says so
	}
	f := s.elsewhere(r) // with all that was decided before
	if len(f.sites) == 0 {
		return false
	}
	text, err := io.ReadAll(r.Body) // it is whole
	if err != nil {
		tooLarge(w, err)
		return true
	}
	for i, site := range f.sites {
		resp, err := s.passTo(r, site, text)
		switch {
		case r.Context().Err() != nil:
			if err == nil {
				_ = resp.Body.Close()
			}
			return true // nobody waits
		case errors.Is(err, ErrUnreached) && i == 0 && f.sure && !f.here && !s.known(site):
			problem(w, http.StatusNotFound, "no site %q is known here: see `tidemark site list`", site)
			return true
		case errors.Is(err, ErrUnreached) && i == 0 && f.sure && !f.here:
			problem(w, http.StatusConflict, "site %s is to answer this, and is not reached, so nothing was done: %s", site, strings.ReplaceAll(err.Error(), "\n", "; "))
			return true
		case errors.Is(err, ErrUnreached):
		case err != nil:
			problem(w, http.StatusBadGateway, "site %s did not answer, and it is not known whether it was done; look before you ask again: %v", site, err)
			return true
		case resp.StatusCode == http.StatusNotFound && i < len(f.sites)-1:
			_ = resp.Body.Close()
		case resp.StatusCode == http.StatusNotFound && (!f.sure || f.here || f.gone):
			_ = resp.Body.Close() // it has it no more, or nobody has it: here is said what there is
		default:
			passBack(w, resp, site)
			return true
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return false
}

func (s *server) known(site mesh.Site) bool {
	known, _ := s.b.SiteSeen(site)
	return known
}

// passTo has one site answer.
func (s *server) passTo(r *http.Request, site mesh.Site, text []byte) (*http.Response, error) {
	var self mesh.Site
	s.b.View(func(st *coordinator.State) { self = st.Site })
	out := r.Clone(r.Context())
	out.Body = io.NopCloser(bytes.NewReader(text))
	out.Header.Del("Authorization") // it is this agent's
	out.Header.Set(hop, string(s.b.Self()))
	out.Header.Set(passed, strings.TrimPrefix(r.Header.Get(passed)+","+string(self), ","))
	return s.b.PassSite(out, site)
}

// passBack copies an answer, which may be a stream of events.
func passBack(w http.ResponseWriter, resp *http.Response, site mesh.Site) {
	defer resp.Body.Close()
	for _, name := range []string{"Content-Type", "Cache-Control", "Retry-After", "Allow", "Location"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	if w.Header().Get(headSite) == "" {
		w.Header().Set(headSite, string(site))
	}
	w.WriteHeader(resp.StatusCode)
	c := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil || c.Flush() != nil {
				return // nobody reads on
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // so that it is not taken for whole
		}
	}
}
