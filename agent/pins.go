package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// A feed's log keeps what a job may have to read again: from the positions of
// the oldest checkpoint that is kept, under the job's name, and from those of
// each savepoint, under the savepoint's.
func jobPin(jobName string) string    { return "job " + jobName }
func savepointPin(name string) string { return "savepoint " + name }

// offsets are the positions of a source in a manifest, by lane.
func offsets(m *manifest.Manifest, s *job.Source) (map[int]int64, error) {
	at := make(map[int]int64)
	for _, o := range m.Operators {
		if o.ID != s.ID {
			continue
		}
		for _, p := range o.Positions {
			lane, ok := ingestlog.LaneOf(p.Split)
			if !ok {
				return nil, fmt.Errorf("checkpoint %s: source %q: split %q is no lane of a feed", m.Name, s.ID, p.Split)
			}
			at[lane] = p.Offset
		}
	}
	return at, nil
}

// pin pins the least of what the manifests need; a lane that one of them has
// not read is needed from its beginning, and so are all without a manifest.
func (d *surroundings) pin(name string, ms ...*manifest.Manifest) error {
	var errs []error
	for s, f := range d.feeds {
		at := make(map[int]int64)
		for lane := range f.Config().Lanes {
			at[lane] = 0
		}
		for i, m := range ms {
			of, err := offsets(m, s)
			errs = append(errs, err)
			for lane := range at {
				if i == 0 {
					at[lane] = of[lane]
				}
				at[lane] = min(at[lane], of[lane])
			}
		}
		if err := f.Pin(name, at); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keepers are all that feeds keep something for: manifests by the names of their
// pins.
type keepers struct {
	names []string
	by    map[string][]*manifest.Manifest
}

func keepersIn(s *durable.State) (*keepers, error) {
	k := &keepers{by: make(map[string][]*manifest.Manifest)}
	add := func(pin string, m *manifest.Manifest) {
		if k.by[pin] == nil {
			k.names = append(k.names, pin)
		}
		k.by[pin] = append(k.by[pin], m)
	}
	list, err := s.Savepoints()
	if err != nil {
		return nil, err
	}
	for i := range list {
		if e := &list[i]; e.Err == nil {
			add(savepointPin(e.Name), &e.Manifest)
		}
	}
	jobs, err := s.Jobs()
	if err != nil {
		return nil, err
	}
	for _, name := range jobs {
		if list, err = s.Checkpoints(name); errors.Is(err, store.ErrMissing) {
			continue // it has none yet
		} else if err != nil {
			return nil, err
		}
		for i := range list {
			if e := &list[i]; e.Err == nil {
				add(jobPin(name), &e.Manifest)
			}
		}
	}
	return k, nil
}

// need is what they need of a feed that a job's source s reads. A manifest does
// not say which feed a position is in: it is that of its job's source, which
// names the feed, or what s reads if the job is its own.
func (k *keepers) need(jobName, feedName string, s *job.Source) map[string]map[int]int64 {
	all := make(map[string]map[int]int64)
	for _, pin := range k.names {
		for _, m := range k.by[pin] {
			for _, o := range m.Operators {
				if len(o.Positions) == 0 || m.Job+"."+string(o.ID) != feedName && (m.Job != jobName || o.ID != s.ID) {
					continue
				}
				of, err := offsets(m, &job.Source{ID: o.ID})
				if err != nil {
					continue // it reads no feed, or did not then
				}
				if all[pin] == nil {
					all[pin] = of
				}
				for lane, at := range of {
					if was, has := all[pin][lane]; !has || at < was {
						all[pin][lane] = at
					}
				}
			}
		}
	}
	return all
}

// tidyPins lets go the pins of savepoints, and of jobs, that were deleted while
// the feeds did not run.
func (d *surroundings) tidyPins() error { return d.state.store.Still(d.tidy) }

func (d *surroundings) tidy() error {
	list, err := d.state.store.Savepoints()
	if err != nil {
		return err
	}
	jobs, err := d.state.store.Jobs()
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, e := range list {
		there[savepointPin(e.Name)] = true
	}
	for _, name := range jobs {
		there[jobPin(name)] = true
	}
	var errs []error
	for _, f := range slices.Collect(maps.Values(d.feeds)) {
		for _, p := range f.Pins() {
			ours := strings.HasPrefix(p.Name, savepointPin("")) || strings.HasPrefix(p.Name, jobPin(""))
			if ours && !there[p.Name] {
				errs = append(errs, f.Unpin(p.Name))
			}
		}
	}
	return errors.Join(errs...)
}
