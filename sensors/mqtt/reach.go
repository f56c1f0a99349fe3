package mqtt

import (
	"context"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Reach tells whether a broker answers: it connects, with TLS where the URL says
// so, and hangs up before the first packet of MQTT, so that no session changes.
// Whether the broker takes the user it does not find out. timeout is for all of
// it.
func Reach(ctx context.Context, c Connection, timeout dataflow.Duration) error {
	c.ConnectTimeout = timeout
	e, err := c.resolve()
	if err != nil {
		return err
	}
	if c.Password != nil {
		if _, _, err := e.credentials(); err != nil {
			return err
		}
	}
	nc, err := e.dial(ctx)
	if err != nil {
		return fmt.Errorf("mqtt: cannot reach %s: %w", e.url, err)
	}
	_ = nc.Close() // nothing was said on it
	return nil
}
