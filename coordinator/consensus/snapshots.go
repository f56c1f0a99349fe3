package consensus

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	hclog "github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

const (
	keptSnapshots  = 2
	snapshotFolder = "snapshots" // the library's name
	snapshotTemp   = ".tmp"      // and its suffix of what is being written
)

// snapshots is the library's store of snapshots in files. It syncs what it writes
// and the folder of the snapshots, but not the folder of the one snapshot, so
// that is done here.
type snapshots struct {
	*raft.FileSnapshotStore
	dir string
}

func openSnapshots(dir string, log hclog.Logger) (*snapshots, error) {
	s := &snapshots{dir: filepath.Join(dir, snapshotFolder)}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), snapshotTemp) { // of a crash
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, fmt.Errorf("consensus: %w", err)
			}
		}
	}
	if s.FileSnapshotStore, err = raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, log); err == nil {
		err = disk.Secret.SyncDir(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("consensus: snapshots in %s: %w", dir, err)
	}
	return s, nil
}

// Create begins a snapshot: its files have their names when it returns, and
// those are durable.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, at uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.FileSnapshotStore.Create(version, index, term, members, at, t)
	if err != nil {
		return nil, err
	}
	if err := disk.Secret.SyncDir(filepath.Join(s.dir, sink.ID()+snapshotTemp)); err != nil {
		_ = sink.Cancel()
		return nil, fmt.Errorf("consensus: snapshot %s: %w", sink.ID(), err)
	}
	return sink, nil
}
