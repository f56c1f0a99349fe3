package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

func newSiteCreate(t *terminal, at *agentFlag) *cobra.Command {
	var ttl, rootKey, data string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Sign another site of the mesh; prints the token with which one agent founds it",
		Long: `Makes the authority of another site with the mesh's root key, which "tidemark
init" wrote into its data folder, and prints a token, once. The one agent that
uses it founds the site, through an agent of the site that is asked here:

  tidemark agent --site NAME --join HOST:PORT --token TOKEN

It lets its others in with tokens of its own. The root key stays on this
machine; the new site's key goes to its founder sealed, and only the token
opens it.`,
		Example: "  tidemark site create depot\n  tidemark site create depot --root-key /media/safe/root.key --ttl 1h",
		Args:    exactly(1, "the site's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			lasts, err := parseTTL(ttl)
			if err != nil {
				return err
			}
			if err := identity.CheckName("a site", args[0]); err != nil {
				return usageError{err}
			}
			c, err := at.client()
			if err != nil {
				return err
			}
			token, n, err := signSite(rootKey, data, mesh.Site(args[0]))
			if err != nil {
				return err
			}
			n.TTL = lasts
			made, err := c.CreateSite(cmd.Context(), n)
			if err != nil {
				return at.answered(err)
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(api.TokenMade{TokenInfo: made, Token: token.String()})
			}
			fmt.Fprintf(t.err, "one agent founds site %s with this token, which is shown this once: tidemark agent --site %s --join HOST:PORT --token TOKEN\n", n.Site, n.Site)
			_, err = fmt.Fprintln(t.out, token)
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&ttl, "ttl", "24h", "how long the site can be founded; 0s: for ever")
	fl.StringVar(&rootKey, "root-key", "", "file of the mesh's root key; default: identity/root.key in the data folder")
	fl.StringVar(&data, "data-dir", config.DefaultData, "data folder of who called init")
	return cmd
}

// signSite makes what the founder of a site is to get. The root key and the
// token's secret stay here.
func signSite(rootKey, data string, site mesh.Site) (token identity.Token, n api.NewSite, err error) {
	var key []byte
	if rootKey == "" {
		key, err = identity.OpenFolder(disk.Secret, filepath.Join(data, "identity"), sensors.WallTime).RootKey()
		if errors.Is(err, identity.ErrNoKey) {
			err = fmt.Errorf("%w, and name it with --root-key FILE", err)
		}
	} else {
		key, err = os.ReadFile(rootKey)
	}
	if err != nil {
		return token, n, err
	}
	meshName, made, err := identity.SignSite(key, site, sensors.WallTime())
	if err != nil {
		return token, n, err
	}
	token, sealed, err := identity.NewSiteToken(key, site, made)
	if err != nil {
		return token, n, err
	}
	hash := token.SecretHash()
	return token, api.NewSite{Mesh: meshName, Site: string(site), Token: token.ID, Hash: hash[:], Sealed: sealed}, nil
}
