package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/part"
)

// Left says how much a stopped agent's data folder has of its site.
func Left(data string) (consensus.Found, error) {
	return consensus.Inspect(filepath.Join(data, "raft"))
}

// Recover makes a stopped agent the one voter of its site, with all that its
// folder has, after the majority is gone for good. It returns what was there.
func Recover(data string) (consensus.Found, error) {
	lock, err := part.LockDir(data)
	if err != nil {
		return consensus.Found{}, fmt.Errorf("%w; stop the agent first", err)
	}
	defer lock.Close()
	dir := filepath.Join(data, "raft")
	found, err := consensus.Inspect(dir)
	if err != nil {
		return found, err
	}
	r := newReplica()
	r.applied = func(uint64, *coordinator.Command, jobmanager.Result, []jobmanager.Change) {}
	r.renewed = func() {}
	r.fatal = func(error) {} // its snapshot fails too, and nothing is changed
	_, err = consensus.Recover(dir, found.Node, []mesh.NodeID{found.Node}, r)
	return found, err
}

// Forget puts aside what a stopped agent has of its site, so that it begins again
// with what the recovered one has. A founder founds nothing then.
func Forget(data string) error {
	if err := os.Rename(foundingFile(data), foundingFile(data)+".forgotten"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := disk.Secret.SyncDir(data); err != nil {
		return err
	}
	return consensus.Forget(filepath.Join(data, "raft"))
}
