package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/store"
)

func newFeed(t *terminal) *cobra.Command {
	var place placeFlag
	cmd := &cobra.Command{
		Use:   "feed",
		Short: "Durable MQTT ingestion that several jobs can read",
		Example: "  tidemark feed create plant --state state --broker mqtt://broker.plant:1883 --topic 'plant/+/telemetry' --lanes 4\n" +
			"  tidemark feed list --state state\n  tidemark feed show plant --state state",
		Args: knownVerb,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	place.register(cmd)
	cmd.AddCommand(newFeedList(t, &place), newFeedShow(t, &place), newFeedCreate(t, &place), newFeedDelete(t, &place))
	return cmd
}

func newFeedList(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "The feeds of the mesh, or of a state folder",
		Example: "  tidemark feed list\n  tidemark feed list --state state",
		Args:    exactly(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(listFeedsRemote(cmd.Context(), t, c))
			}
			if _, err := place.view(); err != nil {
				return err
			}
			names, err := feed.List(feed.Options{Dir: place.dir})
			if err != nil {
				return err
			}
			w := newTable(t, "feed", "broker", "topics", "qos", "lanes", "entries", "size", "state")
			for _, name := range names {
				d := describeFeed(feed.Show(feed.Options{Dir: place.dir}, name))
				if t.json() {
					if err := json.NewEncoder(t.out).Encode(d); err != nil {
						return err
					}
					continue
				}
				w.AppendRow([]any{d.Name, d.Broker, strings.Join(d.Topics, " "), d.QoS, d.Lanes, d.Entries, api.BytesText(d.Bytes), d.State})
			}
			if !t.json() {
				w.Render()
			}
			return nil
		},
	}
}

// feedJSON is a feed in JSON.
type feedJSON struct {
	Name     string         `json:"name"`
	Broker   string         `json:"broker"`
	Topics   []string       `json:"topics"`
	QoS      int            `json:"qos"`
	Lanes    int            `json:"lanes"`
	ClientID string         `json:"client_id"`
	State    string         `json:"state"`
	Bytes    int64          `json:"bytes"`
	Entries  int64          `json:"entries"`
	Log      []feedLaneJSON `json:"log,omitempty"`
	Pins     []feedPinJSON  `json:"pins,omitempty"`
}

type feedLaneJSON struct {
	Lane  int    `json:"lane"`
	First int64  `json:"first"`
	Next  int64  `json:"next"`
	Clock string `json:"clock"`
	Deaf  bool   `json:"deaf,omitempty"`
}

type feedPinJSON struct {
	Name string        `json:"name"`
	At   map[int]int64 `json:"at"`
}

func describeFeed(info feed.Info, err error) feedJSON {
	c := info.Config
	d := feedJSON{Name: info.Name, Broker: c.Broker, Topics: c.Topics, QoS: c.QoS, Lanes: max(1, c.Lanes), ClientID: c.ClientID, Bytes: info.Bytes, State: "stopped"}
	switch {
	case errors.Is(err, store.ErrLocked):
		d.State = "running"
	case err != nil:
		d.State = err.Error()
	case len(info.Lanes) == 0:
		d.State = "never opened"
	}
	for i, l := range info.Lanes {
		d.Entries += l.Next - l.First
		d.Log = append(d.Log, feedLaneJSON{i, l.First, l.Next, timeText(l.Clock), l.Deaf})
	}
	for _, p := range info.Pins {
		d.Pins = append(d.Pins, feedPinJSON(p))
	}
	return d
}

func newFeedShow(t *terminal, place *placeFlag) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "A feed: its session, its log lane by lane, and who keeps it from where on",
		Example: "  tidemark feed show plant\n  tidemark feed show cold-chain.readings --state state",
		Args:    exactly(1, "the name of one feed"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				return place.answered(showFeedRemote(cmd.Context(), t, c, args[0]))
			}
			if _, err := place.view(); err != nil {
				return err
			}
			info, err := feed.Show(feed.Options{Dir: place.dir}, args[0])
			if err != nil && !errors.Is(err, store.ErrLocked) {
				return err
			}
			d := describeFeed(info, err)
			if t.json() {
				return json.NewEncoder(t.out).Encode(d)
			}
			fmt.Fprintf(t.out, "%s: %s, %s, qos %d, client id %q, %s, %s\n", d.Name, d.Broker, strings.Join(d.Topics, " "), d.QoS, d.ClientID, api.BytesText(d.Bytes), d.State)
			if err != nil {
				fmt.Fprintln(t.out, "its log can be shown when no job runs on the folder")
			}
			if len(d.Log) > 0 {
				w := newTable(t, "lane", "first", "next", "clock", "")
				for _, l := range d.Log {
					w.AppendRow([]any{l.Lane, l.First, l.Next, l.Clock, map[bool]string{true: "deaf"}[l.Deaf]})
				}
				w.Render()
			}
			for _, p := range d.Pins {
				fmt.Fprintf(t.out, "kept for %s: %s\n", p.Name, lanesText(p.At))
			}
			return nil
		},
	}
}

// lanesText is "lane 0 from 12, lane 1 from 7".
func lanesText(at map[int]int64) string {
	var parts []string
	for lane := 0; len(parts) < len(at) && lane < 1024; lane++ {
		if offset, ok := at[lane]; ok {
			parts = append(parts, fmt.Sprintf("lane %d from %d", lane, offset))
		}
	}
	return strings.Join(parts, ", ")
}

// feedFlags are those of feed create.
type feedFlags struct {
	broker, clientID, username, password string
	topics                               []string
	qos, lanes                           int
	retained                             string
	keepAge, keepSize, limit             string
	ca, cert, key                        string
	replicas                             int
	whenShort                            string
}

func (f *feedFlags) config() (c feed.Config, err error) {
	c = feed.Config{Broker: f.broker, Topics: f.topics, QoS: f.qos, ClientID: f.clientID, Lanes: f.lanes, TLS: job.TLS{CA: f.ca, Cert: f.cert, Key: f.key}}
	switch f.retained {
	case "first":
	case "all":
		c.Retained = job.RetainedAll
	case "never":
		c.Retained = job.RetainedNever
	default:
		return c, usageError{fmt.Errorf("--retained %q: it is first, all or never", f.retained)}
	}
	for _, s := range []struct {
		flag, text string
		to         *int64
	}{{"--keep-size", f.keepSize, &c.Keep.Size}, {"--cap", f.limit, &c.Keep.Cap}} {
		if s.text == "" {
			continue
		}
		if *s.to, err = job.ParseSize(s.text); err != nil {
			return c, usageError{fmt.Errorf("%s: %w", s.flag, err)}
		}
	}
	if f.keepAge != "" {
		if c.Keep.Age, err = job.ParseDuration(f.keepAge); err != nil {
			return c, usageError{fmt.Errorf("--keep: %w", err)}
		}
		if c.Keep.Age < 0 || c.Keep.Age > 0 && c.Keep.Age < dataflow.Millisecond {
			return c, usageError{fmt.Errorf("--keep %s: it is 1ms at least, or 0s", f.keepAge)}
		}
	}
	if c.Username, err = job.ParseSecret(f.username); err != nil {
		return c, usageError{fmt.Errorf("--username: %w", err)}
	}
	if c.Password, err = job.ParseSecret(f.password); err != nil {
		return c, usageError{fmt.Errorf("--password: %w", err)}
	}
	return c, nil
}

func newFeedCreate(t *terminal, place *placeFlag) *cobra.Command {
	var f feedFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a feed that jobs read with `feed: NAME`",
		Long: `Makes a feed: one session with a broker, and its replayable log. In a state folder
it runs while a job that reads it runs, on the mesh from now on. Secrets are given as references, ${env:NAME} or
${file:PATH}, and looked up when the feed connects.`,
		Example: "  tidemark feed create plant --broker mqtt://10.0.0.9:1883 --topic 'plant/+/telemetry' --lanes 4\n" +
			"  tidemark feed create plant --state state --broker mqtt://127.0.0.1:1883 --topic 'plant/+/telemetry' --qos 1 --lanes 4 --keep 7d",
		Args: exactly(1, "the name of the feed"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asked, err := place.remote()
			if err != nil {
				return err
			}
			if asked != nil {
				n, err := f.request(args[0])
				if err != nil {
					return err
				}
				made, err := asked.CreateFeed(cmd.Context(), n)
				if err != nil {
					return place.answered(err)
				}
				return t.did(made, "feed %s: made; a job reads it with `feed: %s`\n", args[0], args[0])
			}
			c, err := f.config()
			if err != nil {
				return err
			}
			if err := feed.Create(feed.Options{Dir: place.dir}, args[0], c); err != nil {
				return err
			}
			return t.did(describeFeed(feed.Show(feed.Options{Dir: place.dir}, args[0])), "feed %s: made; a job reads it with `feed: %s`\n", args[0], args[0])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.broker, "broker", "mqtt://127.0.0.1:1883", "URL of the broker")
	fl.StringArrayVar(&f.topics, "topic", nil, "topic filter (may be repeated)")
	fl.IntVar(&f.qos, "qos", 1, "MQTT quality of service: 0, 1 or 2")
	fl.IntVar(&f.lanes, "lanes", 1, "splits, by hash of the topic; fixed for the life of the feed")
	fl.StringVar(&f.clientID, "client-id", "", "MQTT client id; empty: the feed's name")
	fl.StringVar(&f.username, "username", "", "MQTT user, as a reference")
	fl.StringVar(&f.password, "password", "", "MQTT password, as a reference")
	fl.StringVar(&f.retained, "retained", "first", "which retained messages are taken: first, all or never")
	fl.StringVar(&f.keepAge, "keep", "", "how long entries are kept that nobody needs, such as 7d; empty: a day")
	fl.StringVar(&f.keepSize, "keep-size", "", "how much of such entries is kept at most, such as 10GB")
	fl.StringVar(&f.limit, "cap", "", "size of the log at which the broker has to wait, such as 20GB")
	fl.IntVar(&f.replicas, "replicas", 0, "copies of its log on the mesh; 0: 2, or 1 in a site that has only ever had one agent")
	fl.StringVar(&f.whenShort, "when-short", "block", "with too few agents for the copies: block or degrade")
	fl.StringVar(&f.ca, "ca", "", "PEM file of the authorities that are believed")
	fl.StringVar(&f.cert, "cert", "", "PEM file of our certificate")
	fl.StringVar(&f.key, "key", "", "PEM file of its key")
	return cmd
}

func feedDeleted(t *terminal, name string) error {
	return t.did(map[string]any{"name": name, "deleted": true}, "%s: deleted\n", name)
}

func newFeedDelete(t *terminal, place *placeFlag) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a feed with its log",
		Example: "  tidemark feed delete plant\n  tidemark feed delete plant --state state",
		Args:    exactly(1, "the name of one feed"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := place.remote()
			if err != nil {
				return err
			}
			if c != nil {
				if err := c.DeleteFeed(cmd.Context(), args[0]); err != nil {
					return place.answered(err)
				}
				return feedDeleted(t, args[0])
			}
			if _, err := place.view(); err != nil {
				return err
			}
			info, err := feed.Show(feed.Options{Dir: place.dir}, args[0])
			if err != nil {
				return err
			}
			if len(info.Pins) > 0 && !force {
				return fmt.Errorf("feed %s is needed by %s, which cannot go on without it; delete those first, or give --force", args[0], info.Pins[0].Name)
			}
			if err := feed.Delete(feed.Options{Dir: place.dir}, args[0]); err != nil {
				return err
			}
			return feedDeleted(t, args[0])
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although jobs or savepoints need it")
	return cmd
}
