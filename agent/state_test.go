package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
)

// A process died while it deleted a feed: what is left of it goes with the next.
func TestADeletedFeedGoesWhenTheFolderIsOpened(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "feeds", ".deleted.mill")
	if err := os.MkdirAll(filepath.Join(gone, "log"), 0o750); err != nil {
		t.Fatal(err)
	}
	state, err := agent.OpenState(dir, agent.StateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
	if err := state.Close(); err != nil {
		t.Error(err)
	}
}
