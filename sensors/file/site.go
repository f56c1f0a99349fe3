package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/store"
)

// In a site a target is named by its agent and path, since the same path is
// another file on each agent: NODE:PATH. A node's name has no colon.

// SiteTarget is the name of a file on an agent.
func SiteTarget(node, path string) string { return node + ":" + path }

// CutBack makes a target of node, which no sink writes at the moment, as long as
// the site has on record; what is behind that belongs to commits that never
// counted, and its rows are committed elsewhere. It is durable when CutBack
// returns. A file that is shorter, or missing, is left alone: who goes on with it
// will say so.
func CutBack(fsys store.FS, node, target string, length int64) error {
	path, ok := strings.CutPrefix(target, node+":")
	if !ok || length < 0 {
		return fmt.Errorf("file sink: %s with %d bytes is no target of agent %s", target, length, node)
	}
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() || info.Size() <= length) {
		return nil
	}
	if err != nil {
		return fault(path, err)
	}
	f, err := fsys.Open(path, os.O_RDWR)
	if err != nil {
		return fault(path, err)
	}
	err = f.Truncate(length)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fault(path, err)
	}
	return nil
}
