package mqtt

import (
	"net"
	"sync"

	"github.com/tidemark-mesh/tidemark/sensors"
)

// permitStep is how many bytes go out for one answer of the permit: a peer that
// is slow to read must not stretch it.
const permitStep = 64 << 10

// permitted is a connection that nothing leaves without a permit: after the
// first write that had none, nothing does any more, and conn closes it because of
// the error. (Not here: paho takes a closed socket for its own doing.) It stands
// below TLS, so handshakes and farewells need the permit too; of a WebSocket it
// stands above, since its client dials by itself, and only the frames that carry
// no MQTT do not.
type permitted struct {
	net.Conn
	permit sensors.Permit

	mu      sync.Mutex // guards refused
	refused error
}

// permit makes a connection one that asks.
func (e *endpoint) permit(nc net.Conn) net.Conn {
	if e.Permit == nil {
		return nc
	}
	return &permitted{Conn: nc, permit: e.Permit}
}

func (c *permitted) Write(p []byte) (n int, err error) {
	for {
		if err := c.ask(); err != nil {
			return n, err
		}
		k, err := c.Conn.Write(p[:min(len(p), permitStep)])
		n, p = n+k, p[k:]
		if err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (c *permitted) ask() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = sensors.Permitted(c.permit)
	}
	return c.refused
}
