package feed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
)

const (
	configFile = "feed.json"
	pinsFile   = "pins.json"
	leftFile   = "left.json"
	// maxFile bounds what is read of each.
	maxFile = 16 << 20
)

func folder(dir, name string) string { return filepath.Join(dir, "feeds", name) }

// readFile reads a small file; store.ErrMissing if it is not there.
func readFile(fsys store.FS, name string) ([]byte, error) {
	b, err := disk.Read(fsys, name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, store.ErrMissing)
	}
	return b, err
}

// readConfig is the stored config of a feed, store.ErrMissing if there is none.
func readConfig(o Options, name string) (c Config, whole bool, err error) {
	file := filepath.Join(folder(o.Dir, name), configFile)
	b, err := readFile(o.FS, file)
	if errors.Is(err, store.ErrMissing) {
		return c, false, fmt.Errorf("feed %q: %w; the feeds there are: tidemark feed list", name, store.ErrMissing)
	}
	if err == nil {
		c, whole, err = decode(b)
	}
	if err == nil {
		c, err = c.fixed(name)
	}
	if err != nil {
		return c, false, fmt.Errorf("feed %q: %s: %w", name, file, err)
	}
	return c, whole, nil
}

// writeConfig writes configFile or leftFile. Programs of before refuse a feed.json with a
// key that they do not know, and nothing of them reads the other one.
func writeConfig(o Options, name, file string, c Config) error {
	b, err := encode(c)
	if err == nil {
		err = disk.Replace(o.FS, filepath.Join(folder(o.Dir, name), file), b)
	}
	if err != nil {
		return fmt.Errorf("feed %q: storing its config: %w", name, err)
	}
	return nil
}

// readLeft is the config with which Config.Left was stored.
func readLeft(o Options, name string) (c Config, err error) {
	file := filepath.Join(folder(o.Dir, name), leftFile)
	b, err := readFile(o.FS, file)
	if errors.Is(err, store.ErrMissing) {
		return c, nil
	}
	if err == nil {
		c, _, err = decode(b)
	}
	if err != nil {
		return c, fmt.Errorf("feed %q: %s: %w; without the file filters that were taken out may stay with the broker", name, file, err)
	}
	return c, nil
}

// pins is pins.json.
type pins struct {
	Version int                         `json:"version"`
	Pins    map[string]map[string]int64 `json:"pins"` // name, lane, offset
}

func readPins(o Options, name string) (map[string]map[int]int64, error) {
	file := filepath.Join(folder(o.Dir, name), pinsFile)
	b, err := readFile(o.FS, file)
	if errors.Is(err, store.ErrMissing) {
		return make(map[string]map[int]int64), nil
	}
	var p pins
	if err == nil {
		if why := json.Unmarshal(b, &p); why != nil {
			return nil, damagedPins(name, file, why)
		}
	}
	if err == nil && (p.Version < 1 || p.Version > fileVersion) {
		err = fmt.Errorf("version %d of pins.json; this program reads 1 to %d: use a newer one", p.Version, fileVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("feed %q: %s: %w", name, file, err)
	}
	all := make(map[string]map[int]int64, len(p.Pins))
	for pin, at := range p.Pins {
		all[pin] = make(map[int]int64, len(at))
		for lane, offset := range at {
			n, err := strconv.Atoi(lane)
			if err != nil {
				return nil, damagedPins(name, file, fmt.Errorf("lane %q", lane))
			}
			all[pin][n] = offset
		}
	}
	return all, nil
}

// damagedPins says what becomes of the pins if the file is deleted.
func damagedPins(name, file string, why error) error {
	return fmt.Errorf("feed %q: %s is damaged: %w: %w; put a good copy in its place, or delete it: when a job opens the feed, what its own savepoints and checkpoints need, and those of the job that the feed was made by, is pinned anew, before anything is let go; what other jobs need, when they open it",
		name, file, store.ErrCorrupt, why)
}

func writePins(o Options, name string, all map[string]map[int]int64) error {
	p := pins{Version: fileVersion, Pins: make(map[string]map[string]int64, len(all))}
	for pin, at := range all {
		p.Pins[pin] = make(map[string]int64, len(at))
		for lane, offset := range at {
			p.Pins[pin][strconv.Itoa(lane)] = offset
		}
	}
	b, err := json.MarshalIndent(p, "", "  ") // sorts the names
	if err == nil {
		err = disk.Replace(o.FS, filepath.Join(folder(o.Dir, name), pinsFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("feed %q: storing its pins: %w", name, err)
	}
	return nil
}

// Create makes a feed to be opened by its name; one that is there is refused.
// Without a retention it keeps what is younger than DefaultKeepAge, up to
// DefaultKeepSize, since whoever reads it comes later.
func Create(o Options, name string, c Config) error {
	o = o.filled()
	c, err := c.fixed(name)
	if err != nil {
		return err
	}
	if !c.Username.Stored() || !c.Password.Stored() {
		return fmt.Errorf("feed %q: %w", name, errPlainSecret)
	}
	if c.Keep.Age == 0 && c.Keep.Size == 0 {
		c.Keep.Age, c.Keep.Size = DefaultKeepAge, DefaultKeepSize
		if c.Keep.Cap > 0 {
			c.Keep.Size = min(c.Keep.Size, c.Keep.Cap)
		}
	}
	_, _, err = readConfig(o, name)
	switch {
	case err == nil:
		return fmt.Errorf("feed %q is there already; choose another name, or delete it first", name)
	case !errors.Is(err, store.ErrMissing):
		return err
	}
	if err := disk.MkdirAll(o.FS, folder(o.Dir, name)); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	return writeConfig(o, name, configFile, c)
}

// List is the names of the feeds in a state folder, sorted.
func List(o Options) ([]string, error) {
	o = o.filled()
	entries, err := o.FS.ReadDir(filepath.Join(o.Dir, "feeds"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || checkName(e.Name()) != nil {
			continue
		}
		if _, err := o.FS.Stat(filepath.Join(folder(o.Dir, e.Name()), configFile)); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Info is what is known of a feed that does not run.
type Info struct {
	Name   string
	Config Config
	Bytes  int64 // of the log
	Lanes  []LaneStats
	Pins   []Pin // sorted by name
}

// Pin is who keeps the log from where on.
type Pin struct {
	Name string
	At   map[int]int64 // offset by lane
}

// Show tells of a feed without running it. One that runs in another process is
// store.ErrLocked.
func Show(o Options, name string) (_ Info, err error) {
	o = o.filled()
	info := Info{Name: name}
	if info.Config, _, err = readConfig(o, name); err != nil {
		return info, err
	}
	all, err := readPins(o, name)
	if err != nil {
		return info, err
	}
	info.Pins = sortedPins(all)
	log, err := ingestlog.Open(ingestlog.Options{Dir: folder(o.Dir, name), ReadOnly: true, FS: o.FS})
	if errors.Is(err, store.ErrMissing) {
		return info, nil // never opened: there is no log yet
	}
	if err != nil {
		return info, fmt.Errorf("feed %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	info.Bytes, info.Lanes = log.Stats().Bytes, laneStats(log)
	return info, nil
}

func sortedPins(all map[string]map[int]int64) []Pin {
	var list []Pin
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, Pin{name, maps.Clone(all[name])})
	}
	return list
}

// Delete removes a feed with its log, whatever is pinned. One that is in use is
// store.ErrLocked. The broker keeps the session until it expires there.
func Delete(o Options, name string) error {
	o = o.filled()
	if _, _, err := readConfig(o, name); err != nil {
		return err
	}
	log, err := ingestlog.Open(ingestlog.Options{Dir: folder(o.Dir, name), FS: o.FS})
	if err == nil {
		err = log.Close()
	}
	if err != nil && !errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	return remove(o, name)
}

// removed begins the name of a folder that is no feed any more: no feed has one.
const removed = ".deleted."

// Clean removes what is left of feeds whose process died while it deleted them. It is
// for who opens the state folder. All are tried.
func (s *Feeds) Clean() error {
	dir := filepath.Join(s.o.Dir, "feeds")
	entries, err := s.o.FS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), removed) {
			errs = append(errs, disk.RemoveAll(s.o.FS, filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// remove removes a feed's folder: in one step it is no feed any more, then its
// bytes go.
func remove(o Options, name string) error {
	gone := filepath.Join(o.Dir, "feeds", removed+name)
	if err := disk.RemoveAll(o.FS, gone); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	if err := o.FS.Rename(folder(o.Dir, name), gone); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	if err := o.FS.SyncDir(filepath.Dir(gone)); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	return disk.RemoveAll(o.FS, gone)
}

// least is what a log keeps at most of what nobody needs, if it is to keep
// nothing for its age: segments are deleted whole.
const least = 64 << 20

// retention is what the log is told.
func retention(r job.Retention) ingestlog.Retention {
	k := ingestlog.Retention{Age: r.Age, Bytes: r.Size}
	if r.Age == 0 && r.Size == 0 {
		k.Bytes = least
		if r.Cap > 0 {
			k.Bytes = min(k.Bytes, r.Cap/2)
		}
	}
	if r.Age == math.MaxInt64 { // bounded by its size alone
		k.Age = 0
	}
	return k
}
