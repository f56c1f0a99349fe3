package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/sensors"
)

func newInit(t *terminal) *cobra.Command {
	var data, name, meshName, site string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a mesh, with this node as the founder of its first site",
		Long: `Makes a mesh in a data folder: its certificate authority, the key of its gossip,
this node's own certificate, and a first join token, good for a day. Nothing
is started.

Run it once, on one node. All others join.`,
		Example: "  tidemark init --data-dir /var/lib/tidemark --name press-1 --mesh plant --site hall-3\n  tidemark init --data-dir data --output json",
		Args:    exactly(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			if err := checkInit(data, name, meshName, site); err != nil {
				return err
			}
			f, token, err := node.Found(data, meshName, mesh.Site(site), sensors.WallTime())
			if errors.Is(err, identity.ErrTaken) {
				return fmt.Errorf("%w; a data folder belongs to one mesh: start its agent with tidemark agent --data-dir %s, or name another folder", err, data)
			}
			if err != nil {
				return err
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(map[string]string{
					"mesh": f.Mesh, "site": string(f.Site), "node": string(f.Node), "name": name, "token": token.String(),
				})
			}
			return showFounding(t, data, name, f, token.String())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&data, "data-dir", config.DefaultData, "folder of everything that outlives the agent")
	fl.StringVar(&name, "name", config.Default().Name, "this agent's name")
	fl.StringVar(&meshName, "mesh", "tidemark", "the mesh's name")
	fl.StringVar(&site, "site", config.DefaultSite, "the name of its first site")
	return cmd
}

// checkInit refuses before anything is made what the agent, or the mesh, would
// refuse later.
func checkInit(data, name, meshName, site string) error {
	if data == "" {
		return usageError{errors.New("--data-dir is empty; give the folder of everything that outlives the agent")}
	}
	if err := config.CheckName(name); err != nil {
		return usageError{fmt.Errorf("--name: %w", err)}
	}
	err := errors.Join(identity.CheckName("a mesh (--mesh)", meshName), identity.CheckName("a site (--site)", site))
	if err != nil {
		return usageError{err}
	}
	return nil
}

func showFounding(t *terminal, data, name string, f node.Founding, token string) error {
	w := newTable(t, "made", "what it is")
	w.AppendRow([]any{f.Mesh, "the mesh"})
	w.AppendRow([]any{f.Site, "its first site"})
	w.AppendRow([]any{f.Node, "this node, " + name + ", the founder"})
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			w.AppendRow([]any{path, fileMeaning(filepath.Base(path))})
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	w.Render()
	_, err = fmt.Fprintf(t.out, `
Join token, good for %d hours and any number of agents; it is shown this once:
  %s

Next:
  tidemark agent --data-dir %s --name %s
and on each other node:
  tidemark agent --data-dir %s --name NAME --join THIS-HOST:7071 --token %s
`, int(node.FirstTokenLife.Hours()), token, data, name, config.DefaultData, token)
	return err
}

// fileMeaning says what a file of a new data folder is.
func fileMeaning(name string) string {
	switch name {
	case "founding.json":
		return "what the first leader tells the others"
	case "root.key":
		return "the mesh's root key: move it to a safe place; other sites are signed with it"
	case "site.pem":
		return "the site's authority, which lets agents join"
	case "gossip.key":
		return "the key of gossip"
	case "seen":
		return "the latest time that was seen"
	}
	return "this node's own identity"
}
