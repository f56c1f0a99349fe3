package feed

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/ingestlog"
	"github.com/tidemark-mesh/tidemark/store/logepoch"
)

// This file is what an agent of a mesh does with the logs of feeds: the caller
// says what this agent is to a log, one call after the other for one feed. A call
// may take as long as a disk; how a log fares then is told by Options.Tell.

// Own makes this agent the owner of a feed's log in an epoch: the log is opened
// or made, cut to the chain of epochs; then, without the caller, the members are
// brought up to date, InSync is told, and only then the session is opened and
// anything acknowledged. What is needed is pinned first, as in OpenKeeping.
// Doing it again for the same epoch is nothing. An error that is ErrLacking of
// store/logepoch says that another member must be the owner.
func (s *Feeds) Own(name string, e coordinator.LogEpoch, c Config, needed map[string]Need) error {
	c, err := c.fixed(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	f := s.running[name]
	same := f != nil && !f.ending && f.role != nil && f.role.epoch.Epoch == e.Epoch
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.leave(name, e.Epoch, fmt.Sprintf("epoch %d of it begins", e.Epoch)); err != nil {
		return err
	}
	f = newFeed(s, name)
	f.role = &ownership{epoch: e}
	s.mu.Lock()
	s.running[name] = f
	s.mu.Unlock()
	return f.start(&c, needed)
}

// Follow makes this agent a member that takes what the epoch's owner sends.
func (s *Feeds) Follow(name string, e coordinator.LogEpoch, c Config) error {
	c, err := c.fixed(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	f := s.copies[name]
	s.mu.Unlock()
	if f != nil && f.epoch.Epoch == e.Epoch {
		return nil
	}
	if err := s.leave(name, e.Epoch, fmt.Sprintf("epoch %d of it is owned by %s", e.Epoch, e.Owner)); err != nil {
		return err
	}
	if err := disk.MkdirAll(s.o.FS, folder(s.o.Dir, name)); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	f = &follower{s: s, name: name, epoch: e, lanes: c.Lanes}
	if err := f.open(); err != nil {
		return fmt.Errorf("feed %q: %w", name, err)
	}
	s.mu.Lock()
	s.copies[name] = f
	s.mu.Unlock()
	return nil
}

// Seal ends what this agent does with a log, and an epoch: the copy is cut to the
// chain of epochs up to it, and promises durably to take nothing of it, or of an
// older one, any more. It says where the log ends. Whether the copy was part of the
// epoch does not matter: what did not come, or could not be cut then, is made good
// here, so that its end says where the next epoch may start. ErrSealed: a later
// one was promised.
func (s *Feeds) Seal(name string, e coordinator.LogEpoch) (coordinator.Sealed, error) {
	sealed := coordinator.Sealed{Feed: name, Epoch: e.Epoch + 1}
	if err := s.leave(name, sealed.Epoch, fmt.Sprintf("epoch %d of it is about to begin", sealed.Epoch)); err != nil {
		return sealed, err
	}
	if err := disk.MkdirAll(s.o.FS, folder(s.o.Dir, name)); err != nil {
		return sealed, fmt.Errorf("feed %q: %w", name, err)
	}
	log, err := ingestlog.Open(ingestlog.Options{Dir: folder(s.o.Dir, name), FS: s.o.FS, Events: s.hearCopy(name)})
	if err != nil {
		return sealed, fmt.Errorf("feed %q: %w", name, err)
	}
	sealed.End, err = end(log, &e)
	if err = errors.Join(err, log.Close()); err != nil {
		return sealed, fmt.Errorf("feed %q: %w", name, err)
	}
	return sealed, nil
}

// end cuts a log to the chain of an epoch, promises that this is its end, and says
// where that is. A copy of which nothing belongs to the log any more, and that
// does not begin early enough to be cut, has nothing.
func end(log *ingestlog.Log, e *coordinator.LogEpoch) (int64, error) {
	plan := logepoch.End(e, copyOf(log))
	switch {
	case plan.Anew:
		return 0, log.Promise(e.Epoch + 1)
	case plan.Cut:
		if _, err := log.CutTo(plan.From); err != nil {
			return 0, err
		}
	}
	return plan.From, log.Seal(e.Epoch)
}

// meaningful tells whether the end of a log says where an epoch may start: a tail
// that the log went on without was cut off.
func meaningful(log *ingestlog.Log, epoch uint64) bool {
	_, end := log.End()
	return end == 0 || log.Placed()+1 >= epoch
}

// Rest ends what this agent does with a log, and keeps it.
func (s *Feeds) Rest(name string) error { return s.leave(name, 0, "it rests") }

// Drop ends what this agent does with a log, and removes it with everything of
// the feed. One that is not there is none.
func (s *Feeds) Drop(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := s.leave(name, 0, "the feed is deleted here"); err != nil {
		return err
	}
	if _, err := s.o.FS.Stat(folder(s.o.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
		if err := remove(s.o, name); err != nil {
			return err
		}
	}
	s.mu.Lock()
	delete(s.epochs, name) // the epochs of a later feed of this name begin anew
	s.mu.Unlock()
	return nil
}

// leave ends the role that this agent has, because of an epoch or for another
// reason; readers of the feed are told why.
func (s *Feeds) leave(name string, epoch uint64, why string) error {
	if err := checkName(name); err != nil {
		return err
	}
	s.mu.Lock()
	f, c := s.running[name], s.copies[name]
	delete(s.copies, name)
	s.epochs[name] = max(s.epochs[name], epoch)
	s.mu.Unlock()
	if f != nil {
		f.lose(why)
	}
	if c != nil {
		if err := c.stop(); err != nil {
			return fmt.Errorf("feed %q: %w", name, err)
		}
	}
	return nil
}

// Close ends all feeds and copies of an agent of a mesh.
func (s *Feeds) Close() error {
	s.mu.Lock()
	names := slices.AppendSeq(slices.Collect(maps.Keys(s.running)), maps.Keys(s.copies))
	s.mu.Unlock()
	var errs []error
	for _, name := range names {
		errs = append(errs, s.leave(name, 0, "the agent stops"))
	}
	return errors.Join(errs...)
}

// Logs is the logs with epochs that are on this disk, for the start: none of them
// has a role yet. One that cannot be opened is left out, and in the error.
func (s *Feeds) Logs() ([]coordinator.LogNow, error) {
	entries, err := s.o.FS.ReadDir(filepath.Join(s.o.Dir, "feeds"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []coordinator.LogNow
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || checkName(e.Name()) != nil {
			continue
		}
		now, err := s.logNow(e.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("feed %q: %w", e.Name(), err))
		} else if now.Epoch > 0 {
			all = append(all, now)
		}
	}
	return all, errors.Join(errs...)
}

func (s *Feeds) logNow(name string) (coordinator.LogNow, error) {
	now := coordinator.LogNow{Feed: name}
	log, err := ingestlog.Open(ingestlog.Options{Dir: folder(s.o.Dir, name), ReadOnly: true, FS: s.o.FS})
	if errors.Is(err, store.ErrMissing) {
		return now, nil
	}
	if err != nil {
		return now, err
	}
	now.Epoch, now.End = log.End()
	if p := log.Promised(); p > log.Placed() {
		now.Epoch, now.Sealed = p, meaningful(log, p)
	}
	now.Epoch = max(now.Epoch, log.Placed())
	return now, log.Close()
}

// Statuses is the feeds that this agent owns, sorted by name, for people.
func (s *Feeds) Statuses() []coordinator.LogStatus {
	s.mu.Lock()
	var feeds []*Feed
	for _, name := range slices.Sorted(maps.Keys(s.running)) {
		if f := s.running[name]; f.role != nil && !f.ending {
			feeds = append(feeds, f)
		}
	}
	s.mu.Unlock()
	var all []coordinator.LogStatus
	for _, f := range feeds {
		select {
		case <-f.begun:
		default:
			continue // its log is not open yet
		}
		if f.ended() {
			continue
		}
		all = append(all, f.status())
	}
	return all
}

// maxTrouble bounds what a status says of a broker, as it goes out again and again.
const maxTrouble = 300

// atBroker is how a session fares: "connected", or why not.
func atBroker(s mqtt.ReaderStats) string {
	switch {
	case s.Subscribed:
		return "connected"
	case s.Connected:
		return "connected, but the broker has not answered to SUBSCRIBE yet"
	case s.Trouble == "":
		return "away"
	}
	return "away: " + strings.ToValidUTF8(s.Trouble[:min(len(s.Trouble), maxTrouble)], "")
}

func (f *Feed) status() coordinator.LogStatus {
	st := f.Stats()
	l := coordinator.LogStatus{Feed: f.name, Epoch: f.role.epoch.Epoch, Bytes: st.Bytes, Messages: st.Appended, Broker: atBroker(st.Session)}
	_, l.End = f.log.End()
	first, _ := f.log.First()
	l.First = first
	if l.Mirrors = f.mirrors.status(first); f.role.epoch.Mirror != nil {
		l.Of, l.Broker = f.upstream.status(), ""
	}
	if l.Of != nil || len(l.Mirrors) > 0 {
		payload, clock := f.log.Totals()
		l.Payload, l.Clock = payload, (&stand{clock: int64(clock)}).time()
		l.Lanes = f.shown.of(f.log, l.Epoch)
	}
	l.Shown = f.log.Shown() // behind the lanes: what is in them is counted
	switch err := f.Err(); {
	case err != nil:
		l.Why = err.Error()
	case st.Full:
		l.Why = "the log has no room"
	default:
		l.Why = f.copies().short()
	}
	return l
}
