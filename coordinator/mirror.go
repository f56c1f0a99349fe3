package coordinator

import (
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Mirror names the feed that another site's feed is a copy of: the same groups
// under the same sequence numbers, but for the epochs, which are each site's own.
type Mirror struct {
	Site mesh.Site `cbor:"1,keyasint"`
	Feed string    `cbor:"2,keyasint"`
}

// Reign is the time in which one site had the session of a feed: the log grew
// there and nowhere else. Entries from Start on, up to the start of the next, are
// that site's.
type Reign struct {
	// Epoch is that of the job at its owner, or greater; the first of a shared feed has
	// Feed.Made. Two reigns of a feed, or of feeds that have its name one after the
	// other, have different ones, or different sites.
	Epoch uint64    `cbor:"1,keyasint"`
	Site  mesh.Site `cbor:"2,keyasint"`
	Start int64     `cbor:"3,keyasint"` // sequence number
	// Life is the site's (Life of its indexes) in which the reign began. A site that is
	// recovered begins one with what of the log is there still, at the epoch of the one
	// before, as nobody else had the feed. And it may begin anew what it has forgotten that
	// it began. SettledLevel.
	Life uint64 `cbor:"4,keyasint,omitempty"`
}

// Follows tells whether a reign may come behind another one in a lineage.
func (r Reign) Follows(before Reign) bool {
	return r.Epoch > before.Epoch || r.Relives(before)
}

// Relives tells whether a reign is of the same time of a site as another one, begun after the
// site was recovered.
func (r Reign) Relives(before Reign) bool {
	return r.Epoch == before.Epoch && r.Site == before.Site && r.Life > before.Life
}

// Fork is where a log left what it is to be: from At on it has entries that the
// newest reign does not have.
type Fork struct {
	At int64 `cbor:"1,keyasint"`
}

// LineageOf is the lineage of a feed of site: one that never was anywhere else had
// one reign.
func LineageOf(f *Feed, site mesh.Site) []Reign {
	if len(f.Lineage) > 0 || f.Mirror != nil {
		return slices.Clone(f.Lineage)
	}
	return []Reign{{Epoch: max(1, f.Made), Site: site}}
}

// MirrorName is how a shared feed of another site is called where it is mirrored:
// names of shared feeds are each site's own. A job's own feeds have names of the
// whole mesh.
func MirrorName(feed string, site mesh.Site) string { return feed + ".at." + string(site) }

// Origin is the feed that has the session, while the job is on its way from a site.
func (f *MovingFeed) Origin(from mesh.Site) Mirror {
	if f.Of != nil {
		return *f.Of
	}
	return Mirror{Site: from, Feed: f.Name}
}

// NameAt is how a feed that a job of another site reads is called at a site: where
// its session is by its own name, and so where that comes with the job.
func (m *MovingJob) NameAt(f *MovingFeed, from, at mesh.Site, move MoveID) string {
	of := f.Origin(from)
	if slices.Contains(m.Reads, f.Name) && of.Site != at && (move == "" || f.Stay) {
		return MirrorName(of.Feed, of.Site)
	}
	return of.Feed
}

// Taken is the site whose shared feed this one was a mirror of, until a job went on
// without that site at another one, by: it has a session of its own since, under its own
// name, beside the one that goes on there. Empty: it is no such feed; of by alone: the
// epoch of its log that begins that has not begun.
func (f *Feed) Taken() (from, by mesh.Site) {
	if f.Job != "" || f.Mirror != nil {
		return "", ""
	}
	for _, r := range f.Lineage {
		switch {
		case from == "" && strings.HasSuffix(f.Name, MirrorName("", r.Site)): // it may have come back there since
			from = r.Site
		case from != "" && by == "" && r.Site != from: // else that was recovered
			by = r.Site
		}
	}
	return from, by
}

// TakenFrom is the first of Taken.
func (f *Feed) TakenFrom() mesh.Site {
	from, _ := f.Taken()
	return from
}

// SharedFeed is the feed that a source reads whose text names a shared one: of a job
// that has moved, and whose feed stayed, the mirror; of one that came to where the
// feed is, the feed.
func (j *Job) SharedFeed(name string) string {
	if slices.Contains(j.Reads, name) {
		return name
	}
	for _, r := range j.Reads {
		if strings.HasPrefix(r, name+".at.") || strings.HasPrefix(name, r+".at.") {
			return r
		}
	}
	return name
}

// ReadsAt are the shared feeds that a job reads, as they are called at a site that it
// comes to.
func (m *MovingJob) ReadsAt(from, at mesh.Site, move MoveID) []string {
	reads := slices.Clone(m.Reads)
	for i := range m.Feeds {
		if n := slices.Index(m.Reads, m.Feeds[i].Name); n >= 0 {
			reads[n] = m.NameAt(&m.Feeds[i], from, at, move)
		}
	}
	return reads
}

// Reigns are a moving feed's; one of which nothing is said never was anywhere else.
func (f *MovingFeed) Reigns(from mesh.Site) []Reign {
	if len(f.Lineage) > 0 {
		return f.Lineage
	}
	return []Reign{{Epoch: 1, Site: f.Origin(from).Site}}
}

// Relived tells whether a feed of the job went through a reign of a site after it was recovered: who
// does not know SettledLevel does not know what that is.
func (m *MovingJob) Relived() bool {
	return slices.ContainsFunc(m.Feeds, func(f MovingFeed) bool {
		return slices.ContainsFunc(f.Lineage, func(r Reign) bool { return r.Life > 0 })
	})
}

// lifeless is a job without the lives of reigns: who does not know of them finds two reigns of
// one epoch, refuses this job, and what it keeps of it stays as it is. One of an epoch of its
// own is there twice for that: a mirror that says nothing of its life is given nothing.
func (m *MovingJob) lifeless() *MovingJob {
	if !m.Relived() {
		return m
	}
	own := *m
	own.Feeds = slices.Clone(m.Feeds)
	for i := range own.Feeds {
		f := &own.Feeds[i]
		all := f.Lineage
		f.Lineage = nil
		for k, r := range all {
			lives := r.Life > 0
			r.Life = 0
			if f.Lineage = append(f.Lineage, r); lives && (k == 0 || all[k-1].Epoch != r.Epoch) {
				f.Lineage = append(f.Lineage, r)
			}
		}
	}
	return &own
}

// Turned tells whether a log's present epoch is not as the feed is to be: another
// one must begin, whoever owns it.
func (f *Feed) Turned() bool {
	if f.Log.Epoch == 0 {
		return false
	}
	same := f.Mirror == nil && f.Log.Mirror == nil || f.Mirror != nil && f.Log.Mirror != nil && *f.Mirror == *f.Log.Mirror
	return !same || f.Reigns != 0 || f.Life != 0 || f.Fork != nil
}

// CopyOf is whose copy a site's log of a feed is: what is not in it that one has, or
// nobody. It is a mirror; or the log was held, went to another site with its session, which
// went on there, and is to be a mirror. nil: what was acknowledged in it may be nowhere else.
func (f *Feed) CopyOf(site mesh.Site) *Mirror {
	if f.Log.Mirror != nil || f.Mirror == nil || f.Owner == "" || !f.Log.Held || len(f.Lineage) == 0 {
		return f.Log.Mirror
	}
	had := Reign{Epoch: max(1, f.Made)}
	if f.Log.Reign != nil {
		had = *f.Log.Reign
	}
	if last := f.Lineage[len(f.Lineage)-1]; last.Site != site && last.Epoch > had.Epoch {
		return f.Mirror
	}
	return nil
}
