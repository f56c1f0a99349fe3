package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/node"
)

// What site create refuses before it asks anybody; that it works is
// agent/node's TestNewSite.
func TestSiteCreateRefuses(t *testing.T) {
	data := t.TempDir()
	if _, _, err := node.Found(data, "test", "plant", time.Now()); err != nil {
		t.Fatal(err)
	}
	tidemark(t, "", "site", "create").want(t, exitUsage, "the site's name")
	tidemark(t, "", "site", "create", "a b").want(t, exitUsage, "a b")
	tidemark(t, "", "site", "create", "depot", "--ttl", "soon").want(t, exitUsage, `--ttl "soon"`)
	tidemark(t, "", "site", "create", "depot", "--ttl", "500us").want(t, exitUsage, `--ttl "500us"`)
	tidemark(t, "", "site", "create", "depot", "--data-dir", t.TempDir()).want(t, exitFailed, "root.key", "--root-key FILE")
	tidemark(t, "", "site", "create", "depot", "--root-key", filepath.Join(data, "no")).want(t, exitFailed, "no such file")
	tidemark(t, "", "site", "create", "depot", "--root-key", filepath.Join(data, "identity", "site.pem")).want(t, exitFailed, "is of tidemark://test/plant and not of a root")
	tidemark(t, "", "site", "create", "depot", "--data-dir", data).want(t, exitFailed, "no agent answers")
	bent := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(bent, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	tidemark(t, "", "site", "create", "depot", "--root-key", bent).want(t, exitFailed, "the root key")
}
