package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// agentFlags are the flags of agent; those given are put over the file.
type agentFlags struct {
	file, name, site, data, bind, advertise, token, http, log string
	join, labels                                              []string
	slots                                                     int
	dev, explain                                              bool
}

func newAgent(t *terminal) *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run this node's agent until SIGTERM or Ctrl-C",
		Long: `Runs the agent of this node: it joins the mesh, takes part in leading its site,
and runs what jobs have on it.

The first agent of a mesh wants a data folder in which "tidemark init" was run;
others join one that is there with --join and --token, once. With --dev it makes
a mesh of its own on loopback, for trying things out.

Flags override the file; --explain prints what is in force, and ends. SIGTERM and
Ctrl-C end it in order: what runs here goes on elsewhere. A second one ends it at
once; nothing is lost by that either. SIGHUP is ignored.`,
		Example: "  tidemark agent --dev\n  tidemark agent --config /etc/tidemark/agent.yaml\n" +
			"  tidemark agent --data-dir /var/lib/tidemark --name press-1 --join 10.0.0.5:7071 --token ${file:/run/token}\n  tidemark agent --config agent.yaml --explain",
		Args: exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.config(cmd)
			if err != nil {
				return err
			}
			if f.explain {
				return c.Explain(t.out)
			}
			return runAgent(cmd.Context(), t, c, f.log)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.file, "config", "", "configuration `FILE`, YAML")
	fl.StringVar(&f.name, "name", "", "the agent's name, unique in its site; default: the machine's")
	fl.StringVar(&f.site, "site", "", "the site it belongs to")
	fl.StringVar(&f.data, "data-dir", "", "folder of everything that outlives the process; default: "+config.DefaultData+", with --dev ./tidemark-dev")
	fl.StringVar(&f.bind, "bind", "", "host:port for other agents, UDP; default: "+config.DefaultBind)
	fl.StringVar(&f.advertise, "advertise", "", "host:port at which others reach --bind, if that is another one")
	fl.StringSliceVar(&f.join, "join", nil, "host:port of an agent that is there already; several, with commas or repeated, are tried in turn")
	fl.StringVar(&f.token, "token", "", "join token, or a reference to it: ${file:PATH}, ${env:NAME}")
	fl.IntVar(&f.slots, "slots", 0, "subtask slots; default: the number of CPUs")
	fl.StringVar(&f.http, "http", "", "host:port of the API; default: "+config.DefaultHTTP)
	fl.StringArrayVar(&f.labels, "label", nil, "`K=V` that jobs' constraints ask for (may be repeated)")
	fl.BoolVar(&f.dev, "dev", false, "a mesh of its own on loopback, founded at the first start")
	fl.BoolVar(&f.explain, "explain", false, "print what is in force, and end")
	fl.StringVar(&f.log, "log", "text", "form of the log on stderr: text or json")
	return cmd
}

// config is defaults, file and flags, in this order, checked.
func (f *agentFlags) config(cmd *cobra.Command) (config.Config, error) {
	c := config.Default()
	if f.file != "" {
		var err error
		if c, err = config.Load(f.file); err != nil {
			return c, err
		}
	}
	given := cmd.Flags().Changed
	for _, s := range []struct {
		flag string
		from string
		to   *string
	}{
		{"name", f.name, &c.Name}, {"site", f.site, &c.Site}, {"data-dir", f.data, &c.DataDir}, {"bind", f.bind, &c.Bind},
		{"advertise", f.advertise, &c.Advertise}, {"token", f.token, &c.Token}, {"http", f.http, &c.HTTP.Bind},
	} {
		if given(s.flag) {
			*s.to = s.from
		}
	}
	if given("bind") {
		c.GossipBind, c.WANBind = "", ""
	}
	if given("join") {
		c.Join = f.join
	}
	if given("slots") {
		c.Slots = f.slots
	}
	if given("dev") {
		c.Dev = f.dev
	}
	if c.Dev && c.DataDir == config.DefaultData {
		c.DataDir = "tidemark-dev"
	}
	for _, l := range f.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return c, usageError{fmt.Errorf("--label %q: it is NAME=VALUE", l)}
		}
		if c.Labels == nil {
			c.Labels = make(map[string]string)
		}
		c.Labels[k] = v
	}
	if f.log != "text" && f.log != "json" {
		return c, usageError{fmt.Errorf("--log %q: it is text or json", f.log)}
	}
	if err := c.Check(); err != nil {
		return c, usageError{fmt.Errorf("configuration: %w", err)}
	}
	return c, nil
}

// newLog is the listener of an agent's events that writes them down.
func newLog(w io.Writer, form string) *slog.Logger {
	if form == "json" {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

func runAgent(ctx context.Context, t *terminal, c config.Config, form string) error {
	signal.Ignore(syscall.SIGHUP)
	log := newLog(t.err, form)
	events := func(e api.Event) {
		args := []any{"kind", e.What}
		if e.Job != "" {
			args = append(args, "job", string(e.Job))
		}
		log.Info(e.Text, args...)
	}
	if c.Dev {
		log.Info("this is for trying things out: it is reached from this machine only", "data_dir", c.DataDir)
	}
	err := node.Run(ctx, node.Options{Config: c, Version: cmp.Or(version, "dev"), Level: coordinator.Level, Secrets: machineSecrets(), Events: events})
	if err == nil || errors.Is(err, context.Canceled) {
		log.Info("the agent has ended", "name", c.Name)
		return nil
	}
	return err
}
