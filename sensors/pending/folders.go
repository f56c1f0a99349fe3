package pending

import (
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/store"
)

// MakeFolders makes the folders of a file and says which must be synced so
// that its name, and theirs, outlive a power failure: the nearest first.
func MakeFolders(fsys store.FS, name string) ([]string, error) {
	dir := filepath.Dir(name)
	names := []string{dir}
	for at := dir; ; {
		_, err := fsys.Stat(at)
		up := filepath.Dir(at)
		if err == nil || up == at {
			break
		}
		names = append(names, up)
		at = up
	}
	return names, fsys.MkdirAll(dir)
}

// SyncFolders syncs what MakeFolders named.
func SyncFolders(fsys store.FS, names []string) error {
	for _, n := range names {
		if err := fsys.SyncDir(n); err != nil {
			return err
		}
	}
	return nil
}
