package peers

import (
	"sync"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// gates let so many in at a time of each site; the others wait. What goes to another
// site may hold its place for hours, on a slow line: what goes on within the site, and
// with other ones, never waits for it.
type gates struct {
	most int

	mu  sync.Mutex // guards what follows
	all map[mesh.Site]*gate
}

// gate is that of a site, as long as somebody is inside or waits.
type gate struct {
	inside chan struct{}
	users  int // inside, or waiting
}

func newGates(most int) *gates { return &gates{most: most, all: make(map[mesh.Site]*gate)} }

// enter waits until one more may be inside, or quit is closed: then it is not.
func (g *gates) enter(site mesh.Site, quit <-chan struct{}) bool {
	at := g.use(site)
	select {
	case at.inside <- struct{}{}:
		return true
	case <-quit:
		g.unuse(site, at)
		return false
	}
}

// try is enter that does not wait.
func (g *gates) try(site mesh.Site) bool {
	at := g.use(site)
	select {
	case at.inside <- struct{}{}:
		return true
	default:
		g.unuse(site, at)
		return false
	}
}

// leave is for each who is inside, once.
func (g *gates) leave(site mesh.Site) {
	g.mu.Lock()
	at := g.all[site]
	g.mu.Unlock()
	<-at.inside
	g.unuse(site, at)
}

func (g *gates) use(site mesh.Site) *gate {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.all[site]
	if at == nil {
		at = &gate{inside: make(chan struct{}, g.most)}
		g.all[site] = at
	}
	at.users++
	return at
}

func (g *gates) unuse(site mesh.Site, at *gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at.users--; at.users == 0 {
		delete(g.all, site)
	}
}
