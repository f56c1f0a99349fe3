package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// testBroker is the broker of a benchmark.
type testBroker struct {
	addr  string
	kind  string // for the note
	close func() error
}

// startBroker runs Mosquitto if it is installed, otherwise the embedded broker.
func startBroker(ctx context.Context) (*testBroker, error) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/mosquitto") // not in everybody's PATH
	}
	if err != nil {
		b, err := broker.Start(broker.Options{})
		if err != nil {
			return nil, err
		}
		return &testBroker{addr: b.Addr(), kind: "embedded broker", close: b.Close}, nil
	}
	return startMosquitto(ctx, path)
}

// mosquittoConfig has nothing in it that helps one side only. Without
// set_tcp_nodelay small packets may wait for the acknowledgement of the ones
// before, on either side. A reader may have as many messages open as the
// publishers together, and what waits for it is not dropped.
const mosquittoConfig = `listener %s 127.0.0.1
allow_anonymous true
persistence false
set_tcp_nodelay true
max_inflight_messages %d
max_queued_messages 0
log_type error
`

func startMosquitto(ctx context.Context, path string) (*testBroker, error) {
	addr, err := freePorts()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tidemark-bench-")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	config := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, mosquittoConfig, port, inFlight), 0o644); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.Command(path, "-c", config)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop := func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // killed: always an error
		return errors.Join(err, os.RemoveAll(dir))
	}
	if err := answers(ctx, addr); err != nil {
		return nil, errors.Join(fmt.Errorf("%s does not listen on %s: %w", path, addr, err), stop())
	}
	return &testBroker{addr: addr, kind: "Mosquitto", close: stop}, nil
}

// answers waits until somebody listens on addr.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, mqttTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
