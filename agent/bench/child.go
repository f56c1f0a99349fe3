package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// childEnv is set in the environment of a process that plays one part of a
// benchmark, so that the processor time of the others is not its.
const childEnv = "TIDEMARK_BENCH_PART"

// part is what a child is.
type part struct {
	Role     string        // "publish", "bare", "job", "agent" or "exchange"
	Broker   string        // host:port
	Topic    string        // of what it reads: a level with the publisher's number follows
	Dir      string        // of a job's state; empty: it keeps none
	Interval time.Duration // of its checkpoints; 0: the default
	Agent    *agentPart    `json:",omitempty"`
	Peer     string        // "exchange": where the other end is; empty: this is the receiving one
}

// order is a line to a child, report its answer.
type order struct {
	Publish *publishing // by publishers
	Until   int64       // by readers: answer when so many messages have come in all, or no more come
	Send    *sending    // by the sending end of an exchange
}

type report struct {
	Err     string        `json:",omitempty"`
	Count   int64         // messages: that a reader has got so far, or that an order published
	Bad     int64         // of these: rejected, or late
	CPU     time.Duration // of the process, so far
	Mallocs uint64        // so far
	Took    time.Duration // to publish, or to send

	Link, HTTP string // of an agent: where it is; of an exchange's end: its two ports
	Resident   int64  // bytes
}

// Child plays a part of a benchmark if this process was started for that, and
// says so: its main then has nothing else to do. Every program that runs
// benchmarks calls it first.
func Child() bool {
	text := os.Getenv(childEnv)
	if text == "" {
		return false
	}
	out := json.NewEncoder(os.Stdout)
	if err := play(text, json.NewDecoder(os.Stdin), out); err != nil {
		_ = out.Encode(report{Err: err.Error()}) // nobody listens any more: it ends all the same
	}
	return true
}

// play obeys until the parent goes away.
func play(text string, in *json.Decoder, out *json.Encoder) (err error) {
	var p part
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	obey, stop, err := p.start(context.Background())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for r := (report{}); ; {
		if err := out.Encode(r); err != nil {
			return err
		}
		var o order
		if err := in.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if r, err = obey(o); err != nil {
			return err
		}
	}
}

func (p part) start(ctx context.Context) (obey func(order) (report, error), stop func() error, err error) {
	switch p.Role {
	case "publish":
		return startPublishers(p)
	case "bare":
		return startBare(p)
	case "job":
		return startMessageJob(ctx, p)
	case "agent":
		return startAgent(ctx, *p.Agent)
	case "exchange":
		return startExchange(ctx, p)
	}
	return nil, nil, fmt.Errorf("no part %q in any benchmark", p.Role)
}

// child is a process that plays a part.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startChild starts this program again, and returns when the part is ready.
func startChild(ctx context.Context, p part) (*child, error) {
	if os.Getenv(childEnv) != "" {
		return nil, fmt.Errorf("this program does not call bench.Child")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = json.NewDecoder(bufio.NewReader(out))
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := c.answer(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *child) answer() (r report, err error) {
	if err := c.out.Decode(&r); err != nil {
		return r, fmt.Errorf("a process of the benchmark has ended: %w", err)
	}
	if r.Err != "" {
		err = errors.New(r.Err)
	}
	return r, err
}

func (c *child) tell(o order) (report, error) {
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		return report{}, err
	}
	return c.answer()
}

// close ends the process, in order if it still listens.
func (c *child) close() error {
	err := c.in.Close()
	var r report
	for c.out.Decode(&r) == nil {
	}
	return errors.Join(err, c.cmd.Wait())
}
