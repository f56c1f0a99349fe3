package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

func group(use, short, example string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Example: example, Args: knownVerb, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
}

func newMember(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := group("member", "The agents of the site", "  tidemark member list\n  tidemark member leave\n  tidemark member leave press-3")
	at.register(cmd)
	cmd.AddCommand(newMemberList(t, &at), newMemberLeave(t, &at))
	return cmd
}

// stale asks once more for what the asked agent knows by itself, where the site
// has no leader.
func stale[T any](t *terminal, ask func(stale bool) (T, error)) (T, error) {
	v, err := ask(false)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == 503 {
		fmt.Fprintf(t.err, "%s\nwhat follows is what the asked agent knows, which may be old\n", p.Detail)
		return ask(true)
	}
	return v, err
}

func newMemberList(t *terminal, at *agentFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "The agents of the site: role, health, slots",
		Example: "  tidemark member list\n  tidemark member list --output json | jq -r .name",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			list, err := stale(t, func(old bool) ([]api.Agent, error) { return c.Members(cmd.Context(), old) })
			if err != nil {
				return at.answered(err)
			}
			w := newTable(t, "name", "node", "status", "role", "free", "slots", "addr", "version", "labels")
			for _, a := range list {
				if t.json() {
					if err := json.NewEncoder(t.out).Encode(a); err != nil {
						return err
					}
					continue
				}
				var labels []string
				for _, k := range slices.Sorted(maps.Keys(a.Labels)) {
					labels = append(labels, k+"="+a.Labels[k])
				}
				w.AppendRow([]any{a.Name, a.Node, a.Status, a.Role, a.Free, a.Slots, a.Addr, a.Version, strings.Join(labels, " ")})
			}
			if !t.json() {
				w.Render()
			}
			return nil
		},
	}
}

func newMemberLeave(t *terminal, at *agentFlag) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [AGENT]",
		Short: "The agent that is asked leaves in order; or take out one that is gone for good",
		Long: `Without a name the agent that is asked (--addr) leaves the site for good: another
one leads, what it runs goes on elsewhere, and its process ends. Its data folder
stays, and is of no use to the site any more. To stop an agent for a while end
its process.

With the name or node id of an agent that has failed for good, that one is taken
out, and cannot come back without a token. Copies of savepoints and checkpoints
that it had are made anew on others, where there is room, from 10 s later on:
"tidemark savepoint show" counts those that there are.`,
		Example: "  tidemark member leave --addr http://127.0.0.1:7070\n  tidemark member leave press-3",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("one agent at a time; %q is too much", args[1:])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if err := c.Leave(cmd.Context()); err != nil {
					return at.answered(err)
				}
				return t.did(map[string]any{"addr": c.Addr(), "left": true}, "the agent at %s has left\n", c.Addr())
			}
			if err := c.Remove(cmd.Context(), args[0], force); err != nil {
				return at.answered(err)
			}
			return t.did(map[string]any{"agent": args[0], "left": true}, "%s: taken out\n", args[0])
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although it is alive")
	return cmd
}

func newSite(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := group("site", "The site, other sites of the mesh, and a site's recovery", "  tidemark site list\n  tidemark site create depot\n  tidemark site recover --data-dir /var/lib/tidemark")
	at.register(cmd)
	list := &cobra.Command{
		Use:   "list",
		Short: "All sites of the mesh: leader, size, whether they are reached",
		Long: `The site that is asked comes first, then the others that it has ever seen. Each is
asked now, and what it says of itself is shown: its leader, its agents, how long
the answer took. "seen" are agents of it that are seen from here, "since" when
that began or ended. Of a site that does not answer the reason is printed.`,
		Example: "  tidemark site list\n  tidemark site list --output json | jq -r 'select(.answers | not) | .site'",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			list, err := stale(t, func(old bool) ([]api.Site, error) { return c.Sites(cmd.Context(), old) })
			if err != nil {
				return at.answered(err)
			}
			return showSites(t, list)
		},
	}
	cmd.AddCommand(list, newSiteCreate(t, &at), newSiteRecover(t))
	return cmd
}

func showSites(t *terminal, list []api.Site) error {
	if t.json() {
		for _, s := range list {
			if err := json.NewEncoder(t.out).Encode(s); err != nil {
				return err
			}
		}
		return nil
	}
	w := newTable(t, "site", "leader", "agents", "voters", "level", "seen", "reached", "since", "round trip", "lag to", "lag from")
	for _, s := range list {
		reached, trip := "no", ""
		if s.Reachable {
			reached = "yes"
		}
		if s.Answers {
			trip = (time.Duration(s.RoundTrip) * time.Microsecond).Round(10 * time.Microsecond).String()
		}
		w.AppendRow([]any{s.Site, orNone(s.Leader), s.Agents, s.Voters, s.Level, s.Seen, reached, s.Since, trip, s.LagTo, s.LagFrom})
	}
	w.Render()
	for _, s := range list {
		if s.Why != "" {
			fmt.Fprintf(t.err, "%s does not answer: %s\n", s.Site, s.Why)
		}
	}
	return nil
}

func newToken(t *terminal) *cobra.Command {
	var at agentFlag
	cmd := group("token", "Tokens with which agents join", "  tidemark token create --ttl 1h --uses 3\n  tidemark token list\n  tidemark token revoke ID")
	at.register(cmd)
	cmd.AddCommand(newTokenCreate(t, &at), newTokenList(t, &at), newTokenRevoke(t, &at))
	return cmd
}

func newTokenCreate(t *terminal, at *agentFlag) *cobra.Command {
	var ttl string
	var uses int
	cmd := &cobra.Command{
		Use:     "create",
		Short:   "Make a join token; it is printed this once",
		Example: "  tidemark token create\n  tidemark token create --ttl 15m --uses 1",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			lasts, err := parseTTL(ttl)
			if err != nil {
				return err
			}
			if uses < 0 {
				return usageError{fmt.Errorf("--uses %d: it is 1 or more, or 0 for any number", uses)}
			}
			c, err := at.client()
			if err != nil {
				return err
			}
			made, err := c.CreateToken(cmd.Context(), api.NewToken{TTL: lasts, Uses: uses})
			if err != nil {
				return at.answered(err)
			}
			if t.json() {
				return json.NewEncoder(t.out).Encode(made)
			}
			_, err = fmt.Fprintln(t.out, made.Token)
			return err
		},
	}
	cmd.Flags().StringVar(&ttl, "ttl", "24h", "how long it lets agents join; 0s: for ever")
	cmd.Flags().IntVar(&uses, "uses", 0, "how many agents it lets join; 0: any number")
	return cmd
}

// parseTTL is how long a token lasts, in milliseconds: 0 if it does not expire.
func parseTTL(text string) (int64, error) {
	d, err := job.ParseDuration(text)
	if err != nil || d < 0 || d > 0 && d < dataflow.Millisecond {
		return 0, usageError{fmt.Errorf("--ttl %q: it is a duration such as 24h, of 1ms at least, or 0s for one that does not expire", text)}
	}
	return d.Go().Milliseconds(), nil
}

func newTokenList(t *terminal, at *agentFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Join tokens, without their secrets",
		Example: "  tidemark token list",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			list, err := c.Tokens(cmd.Context())
			if err != nil {
				return at.answered(err)
			}
			w := newTable(t, "id", "state", "created", "expires", "uses left", "joined")
			for _, k := range list {
				if t.json() {
					if err := json.NewEncoder(t.out).Encode(k); err != nil {
						return err
					}
					continue
				}
				left := any(k.Uses)
				if k.Uses < 0 {
					left = "any"
				}
				state := k.State
				if k.Founds != "" {
					state += ", founds site " + k.Founds
				}
				w.AppendRow([]any{k.ID, state, k.Created, k.Expires, left, strings.Join(k.Nodes, " ")})
			}
			if !t.json() {
				w.Render()
			}
			return nil
		},
	}
}

func newTokenRevoke(t *terminal, at *agentFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a token; who has joined with it stays",
		Example: "  tidemark token revoke 4fk2p9",
		Args:    exactly(1, "the id of one token, as token list has it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := at.client()
			if err != nil {
				return err
			}
			if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
				return at.answered(err)
			}
			return t.did(map[string]any{"id": args[0], "revoked": true}, "%s: revoked\n", args[0])
		},
	}
}

// raftFolder is where an agent's part in its site's Raft group is.
func raftFolder(data string) (string, error) {
	dir := filepath.Join(data, "raft")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%w; give the data folder of an agent that has run, with --data-dir", err)
	}
	return dir, nil
}
