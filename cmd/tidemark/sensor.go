package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/simulate"
)

func newSensor(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sensor",
		Short:   "Simulate sensors, and look at what arrives from real ones",
		Example: "  tidemark sensor simulate --listen 127.0.0.1:1883\n  tidemark sensor tap configs/cold-chain.yaml",
		Args:    knownVerb,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(newSimulate(t), newTap(t))
	return cmd
}

// simulateFlags are those of sensor simulate.
type simulateFlags struct {
	broker, listen string
	sensors        int
	seed           uint64
	speed          float64
	length         time.Duration
	qos            int
	every          time.Duration
	interval       time.Duration
	perfect        bool
}

func newSimulate(t *terminal) *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Send a seeded cold-chain fleet, with every fault, to a broker",
		Long: `Sends readings and end-of-interval markers of a simulated fleet:
  topic    plant/<sensor>/telemetry
  reading  {"sensor":"s-0001","ts":<ms>,"data":{"temp":4.21},"kind":"reading","seq":7}
  marker   {"sensor":"s-0001","ts":<ms>,"kind":"flush","seq":8}
Some readings are late, some messages are sent twice, some devices fall silent,
some have a wrong clock. The same seed sends the same fleet.`,
		Example: "  tidemark sensor simulate --listen 127.0.0.1:1883\n  tidemark sensor simulate --broker mqtt://broker.plant:1883 --sensors 5000 --for 10m",
		Args:    exactly(0, "no argument"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runSimulate(cmd.Context(), t, f) },
	}
	cmd.Flags().StringVar(&f.broker, "broker", "mqtt://127.0.0.1:1883", "where to send")
	cmd.Flags().StringVar(&f.listen, "listen", "", "start an embedded broker on this address, and send there")
	cmd.Flags().IntVar(&f.sensors, "sensors", 200, "how many devices")
	cmd.Flags().Uint64Var(&f.seed, "seed", 1, "what the fleet does follows from it")
	cmd.Flags().Float64Var(&f.speed, "speed", 1, "virtual seconds in a second")
	cmd.Flags().DurationVar(&f.length, "for", 0, "how long, in virtual time; 0: until Ctrl-C")
	cmd.Flags().IntVar(&f.qos, "qos", 1, "MQTT quality of service: 0, 1 or 2")
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "time between two readings of a device")
	cmd.Flags().DurationVar(&f.interval, "interval", 10*time.Second, "time between two markers of a device")
	cmd.Flags().BoolVar(&f.perfect, "perfect", false, "no faults at all")
	return cmd
}

// config is the fleet that the flags describe.
func (f *simulateFlags) config() simulate.Config {
	c := simulate.Default(f.sensors)
	if f.perfect {
		c.Late, c.Duplicates, c.Silent, c.Ahead, c.Behind = 0, 0, 0, 0, 0
	}
	c.Seed = f.seed
	c.Start = dataflow.FromGo(time.Now().Truncate(time.Millisecond))
	c.Duration = dataflow.Duration(f.length.Milliseconds()) * dataflow.Millisecond
	c.Every, c.Interval = dataflow.Duration(f.every.Microseconds()), dataflow.Duration(f.interval.Microseconds())
	c.AheadBy -= c.AheadBy % c.Interval
	c.BehindBy = 2 * c.Interval
	c.Talk.Min = max(c.Talk.Min, 2*c.Interval)
	c.Talk.Max = max(c.Talk.Max, c.Talk.Min)
	return c
}

func runSimulate(ctx context.Context, t *terminal, f simulateFlags) error {
	if !(f.speed > 0) || f.qos < 0 || f.qos > 2 { // a speed of NaN is none
		return usageError{errors.New("--speed must be above 0, and --qos 0, 1 or 2")}
	}
	cfg := f.config()
	fl, err := simulate.New(cfg)
	if err != nil {
		return usageError{err}
	}
	if f.listen != "" {
		b, err := broker.Start(broker.Options{Addr: f.listen})
		if err != nil {
			return err
		}
		defer b.Close()
		f.broker = "mqtt://" + b.Addr()
		fmt.Fprintf(t.err, "embedded broker at %s\n", f.broker)
	}
	p, err := fleet.Connect(f.broker, fmt.Sprintf("tidemark-fleet-%d", os.Getpid()), byte(f.qos))
	if err != nil {
		return err
	}
	status := newStatusLine(t.err)
	began := time.Now()
	var sent, markers int64
	next := began.Add(time.Second)
	s := &fleet.Sender{Fleet: fl, Publisher: p, Start: cfg.Start, Speed: f.speed, Sent: func(ev *simulate.Event) {
		sent++
		if ev.Row.Marker {
			markers++
		}
		if now := time.Now(); now.After(next) {
			next = now.Add(time.Second)
			status.update(fmt.Sprintf("%v  sent %d (%d markers) to %s, fleet time %v", now.Sub(began).Round(time.Second), sent, markers, p.Broker(), ev.At))
		}
	}}
	err = s.Send(ctx)
	status.done()
	if ctx.Err() != nil {
		err = nil // Ctrl-C is how an endless fleet ends
	}
	err = errors.Join(err, p.Close())
	if t.json() {
		return errors.Join(err, json.NewEncoder(t.out).Encode(map[string]any{"sent": sent, "markers": markers, "seconds": time.Since(began).Seconds()}))
	}
	fmt.Fprintf(t.out, "sent %d messages (%d of them markers) from %d sensors in %v\n", sent, markers, f.sensors, time.Since(began).Round(time.Millisecond))
	return err
}

func newTap(t *terminal) *cobra.Command {
	var load loadFlags
	var most int
	cmd := &cobra.Command{
		Use:   "tap JOB.yaml [SOURCE]",
		Short: "Show what arrives at a source: decoded, with event time and lag",
		Long: `Reads a source of a job as the job would, and prints each row with its event
time and how far that is behind its arrival; payloads that do not decode with
the reason. It uses an MQTT session of its own, so the job loses nothing.`,
		Example: "  tidemark sensor tap configs/cold-chain.yaml -n 10\n  tidemark sensor tap configs/quakes.yaml quakes --output json",
		Args:    jobFileAndSource,
		RunE: func(cmd *cobra.Command, args []string) error {
			if most < 0 {
				return usageError{fmt.Errorf("--number %d: at least 1, or 0 for no end", most)}
			}
			j, err := load.load(cmd.Context(), t, args[0])
			if err != nil {
				return err
			}
			source := ""
			if len(args) > 1 {
				source = args[1]
			}
			seen := 0
			err = agent.Tap(cmd.Context(), j, source, fmt.Sprintf("tidemark-tap-%d", os.Getpid()), agent.LocalOptions{
				Stdin: t.in, Secrets: machineSecrets(), Events: func(line string) { fmt.Fprintln(t.err, line) },
			}, func(v *agent.Tapped) bool {
				showTapped(t, v)
				seen++
				return most == 0 || seen < most
			})
			if cmd.Context().Err() != nil {
				return nil // Ctrl-C is how a tap ends
			}
			return err
		},
	}
	load.register(cmd)
	cmd.Flags().IntVarP(&most, "number", "n", 0, "stop after so many rows; 0: never")
	return cmd
}

// showTapped prints one row or rejected payload.
func showTapped(t *terminal, v *agent.Tapped) {
	lag := ""
	if v.Event != dataflow.MinTime && v.Arrival != dataflow.MinTime {
		lag = dataflow.Duration(v.Arrival - v.Event).Go().Round(time.Millisecond).String()
	}
	if t.json() {
		out := map[string]any{"topic": string(v.Topic)}
		if v.Row != nil {
			out["row"] = json.RawMessage(v.Row)
		} else {
			out["rejected"], out["payload"] = v.Reason, string(v.Payload)
		}
		if v.Event != dataflow.MinTime {
			out["event_time"] = v.Event.String()
		}
		if lag != "" {
			out["lag_ms"] = float64(v.Arrival-v.Event) / 1000
		}
		_ = json.NewEncoder(t.out).Encode(out)
		return
	}
	if v.Row == nil {
		fmt.Fprintf(t.out, "%-28s rejected: %s: %.200q\n", v.Topic, v.Reason, v.Payload)
		return
	}
	event := "no event time"
	if v.Event != dataflow.MinTime {
		event = v.Event.String()
	}
	fmt.Fprintf(t.out, "%-28s %-24s lag %-8s %s\n", v.Topic, event, lag, v.Row)
}
