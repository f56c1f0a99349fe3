package connect

import (
	"context"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors/file"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// reachLimit is how long one broker may take.
const reachLimit = 4 * dataflow.Second

// Probe says why a subtask of a source or sink could not be opened here, without
// doing anything that others see: its broker is not reached, its file not written.
// session: a source's broker counts. What the plan of a job needs, as the files of
// its sources, is known when there is one.
func (c *Connectors) Probe(ctx context.Context, n *graph.Node, subtask int, session bool) error {
	if !c.local(n.ID, subtask) {
		return nil
	}
	if s, ok := n.Source.(*job.Source); ok && s.MQTT != nil && session && subtask == 0 {
		m := s.MQTT
		conn, err := c.Connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
		if err == nil {
			err = mqtt.Reach(ctx, conn, reachLimit)
		}
		if err != nil {
			return fmt.Errorf("source %q: %w", s.ID, err)
		}
	}
	s, ok := n.Sink.(*job.Sink)
	if !ok {
		return nil
	}
	var err error
	switch {
	case s.File != nil:
		err = file.Probe(c.fileSink(n, s, subtask))
	case s.MQTT != nil:
		m := s.MQTT
		conn, e := c.Connection(m.Broker, m.ClientID, string(s.ID), m.Username, m.Password, m.TLS)
		if err = e; e == nil {
			err = mqtt.Reach(ctx, conn, reachLimit)
		}
	}
	if err != nil {
		return fmt.Errorf("sink %q: %w", s.ID, err)
	}
	return nil
}

// fileSink is the configuration of a file sink but its encoder.
func (c *Connectors) fileSink(n *graph.Node, s *job.Sink, subtask int) file.SinkConfig {
	return file.SinkConfig{
		Path: s.File.Path, Subtask: subtask, Parallelism: n.Parallelism, Overwrite: c.o.Overwrite, Durable: c.o.Durable, FS: c.o.Files,
		Permit: c.o.Permit, Placed: c.placed(n.ID, subtask, n.Parallelism),
	}
}
