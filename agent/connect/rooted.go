package connect

import (
	"io/fs"
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/store"
)

// rooted is a file system in which relative names are in a folder. So a sink's
// target has the same name on every agent, wherever its data is.
type rooted struct {
	store.FS
	dir string
}

func (r rooted) at(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}

// Open is store.FS's.
func (r rooted) Open(name string, flag int) (store.File, error) { return r.FS.Open(r.at(name), flag) }

// Stat is store.FS's.
func (r rooted) Stat(name string) (fs.FileInfo, error) { return r.FS.Stat(r.at(name)) }

// ReadDir is store.FS's.
func (r rooted) ReadDir(dir string) ([]fs.DirEntry, error) { return r.FS.ReadDir(r.at(dir)) }

// MkdirAll is store.FS's.
func (r rooted) MkdirAll(dir string) error { return r.FS.MkdirAll(r.at(dir)) }

// Remove is store.FS's.
func (r rooted) Remove(name string) error { return r.FS.Remove(r.at(name)) }

// Rename is store.FS's.
func (r rooted) Rename(from, to string) error { return r.FS.Rename(r.at(from), r.at(to)) }

// SyncDir is store.FS's.
func (r rooted) SyncDir(dir string) error { return r.FS.SyncDir(r.at(dir)) }

// Rooted is fsys in which relative names are in a folder.
func Rooted(fsys store.FS, dir string) store.FS { return rooted{fsys, dir} }

// place is where a file sink's name leads.
func (c *Connectors) place(name string) string {
	if c.o.Out == "" {
		return name
	}
	return rooted{dir: c.o.Out}.at(name)
}
