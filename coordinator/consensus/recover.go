package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// Found is what a folder holds of a group.
type Found struct {
	Node    mesh.NodeID // that it belongs to
	Term    uint64
	Last    uint64 // index of the newest entry, or of the snapshot
	LastIn  uint64 // its term
	Members []Member
}

// Inspect looks into the folder of a node that is stopped. Of several survivors
// the one to recover is the one with the greatest LastIn, and among these with
// the greatest Last: it lacks nothing that was decided and that any survivor has.
// ErrInUse.
func Inspect(dir string) (Found, error) {
	log, snaps, err := openStopped(dir)
	if err != nil {
		return Found{}, err
	}
	found, err := inspect(log, snaps)
	return found, errors.Join(err, log.close())
}

// Recover starts a group again from what one node has, after the majority is
// gone for good: the node and whoever else is named are the voters from now on.
// All entries in its log count as committed. The other survivors must begin
// again with nothing: Forget, and AddNonvoter by the new leader; those named as
// voters must be recovered in the same way from a copy of the same folder, so
// name none without need. The log goes on at coordinator.NextLife of its last index. self
// must be a voter. machine is not used afterwards.
// It says what was there before. ErrInUse, ErrForeign.
func Recover(dir string, self mesh.NodeID, voters []mesh.NodeID, machine Machine) (Found, error) {
	log, snaps, err := openStopped(dir)
	if err != nil {
		return Found{}, err
	}
	before, err := recoverFrom(log, snaps, self, voters, machine)
	if err != nil {
		err = fmt.Errorf("consensus: recover %s: %w", dir, err)
	}
	return before, errors.Join(err, log.close())
}

func recoverFrom(log *logStore, snaps *snapshots, self mesh.NodeID, voters []mesh.NodeID, machine Machine) (Found, error) {
	before, err := inspect(log, snaps)
	if err != nil {
		return before, err
	}
	if before.Node != self {
		return before, fmt.Errorf("%w: it is of %q, not of %s", ErrForeign, before.Node, self)
	}
	var next raft.Configuration
	own := false
	for _, v := range voters {
		next.Servers = append(next.Servers, server(v))
		own = own || v == self
	}
	if !own {
		return before, fmt.Errorf("%s is not among the voters: name it", self)
	}
	o := Options{Self: self}.withDefaults()
	conf := o.config(libraryLog(o.Events))
	return before, raft.RecoverCluster(conf, &fsm{machine: machine}, log, log, further{snaps}, addresses{}, next)
}

// further are snapshots, the next of which is said to be of a later index than it is of: that
// is where the log goes on. Those who are gone may have told others of entries behind the
// last one that is here, and none of these indexes is to come again.
type further struct{ *snapshots }

func (s further) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, at uint64, t raft.Transport) (raft.SnapshotSink, error) {
	return s.snapshots.Create(version, coordinator.NextLife(index), term, members, at, t)
}

// Forget puts a node's part in its group aside, so that it begins with nothing
// when it is added again. The folder stays as dir with ".forgotten" behind it,
// where one of before is deleted. ErrInUse.
func Forget(dir string) error {
	log, _, err := openStopped(dir)
	if err != nil {
		return err
	}
	aside := dir + ".forgotten"
	err = os.RemoveAll(aside)
	if err == nil {
		err = os.Rename(dir, aside) // the lock is on the file, not on its name
	}
	if err == nil {
		err = disk.Secret.SyncDir(filepath.Dir(dir))
	}
	return errors.Join(err, log.close())
}

// openStopped opens what a node left. It must be there.
func openStopped(dir string) (*logStore, *snapshots, error) {
	path := filepath.Join(dir, logFile)
	if _, err := os.Stat(path); err != nil {
		return nil, nil, fmt.Errorf("consensus: no group was ever here: %w", err)
	}
	quiet := func(Event) {}
	log, err := openLog(path, defaultReserve, quiet)
	if err != nil {
		return nil, nil, err
	}
	snaps, err := openSnapshots(dir, libraryLog(quiet))
	if err != nil {
		return nil, nil, errors.Join(err, log.close())
	}
	return log, snaps, nil
}

// inspect reads who belongs to the group and how far the log goes.
func inspect(log *logStore, snaps *snapshots) (Found, error) {
	var f Found
	self, err := log.get(ownBucket, []byte(keySelf))
	if err != nil && !errors.Is(err, errNotFound) {
		return f, err
	}
	f.Node = mesh.NodeID(self)
	if f.Term, err = log.GetUint64([]byte(currentTermKey)); err != nil && !errors.Is(err, errNotFound) {
		return f, err
	}
	metas, err := snaps.List()
	if err != nil {
		return f, err
	}
	var members raft.Configuration
	if len(metas) > 0 {
		f.Last, f.LastIn, members = metas[0].Index, metas[0].Term, metas[0].Configuration
	}
	last, err := log.LastIndex()
	if err != nil {
		return f, err
	}
	for i := f.Last + 1; i <= last; i++ {
		var l raft.Log
		if err := log.GetLog(i, &l); err != nil {
			return f, fmt.Errorf("entry %d: %w", i, err)
		}
		f.Last, f.LastIn = i, l.Term
		if l.Type == raft.LogConfiguration {
			members = raft.DecodeConfiguration(l.Data)
		}
	}
	for _, s := range members.Servers {
		f.Members = append(f.Members, Member{Node: mesh.NodeID(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return f, nil
}

// addresses is all of a transport that a snapshot's writer needs.
type addresses struct{ raft.Transport }

// EncodePeer is a node's address.
func (addresses) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
