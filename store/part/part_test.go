package part_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
	"github.com/tidemark-mesh/tidemark/store/part"
	"github.com/tidemark-mesh/tidemark/store/storetest"
)

func open(t testing.TB, fs store.FS, dir string) *part.Store {
	t.Helper()
	s, err := part.Open(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) {
	t.Run("disk", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Parts { return open(t, disk.Group, t.TempDir()+"/state/parts") })
	})
	t.Run("memory", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Parts { return open(t, storetest.New(), "/state/parts") })
	})
}
