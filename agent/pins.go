package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
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
