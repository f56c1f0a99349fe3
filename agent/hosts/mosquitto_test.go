//go:build hosts

package hosts

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mosquitto is a broker that can be stopped and started again, at one address.
type mosquitto struct {
	*process // of the last start; nil before
	program  string
	dir      string
	port     int
	on       *host  // where it runs; nil: here, on loopback
	ip       string // it listens at
}

// raised are the settings that docs/MQTT.md asks for: nothing that was
// acknowledged is dropped, and the window of messages in flight does not cap
// the rate.
const raised = "max_queued_messages 0\nmax_inflight_messages 1000\n"

// persistent lets a broker keep sessions and queues: when it ends, or on
// SIGUSR1.
const persistent = "persistence true\nautosave_interval 0\n"

// newMosquitto writes the configuration of a broker and starts nothing.
func newMosquitto(t *testing.T, config string) *mosquitto {
	t.Helper()
	m := &mosquitto{program: program(t, "mosquitto"), dir: t.TempDir(), port: freePort(t)}
	m.configure(t, "127.0.0.1", config)
	return m
}

// configure writes the configuration.
func (m *mosquitto) configure(t *testing.T, ip, config string) {
	t.Helper()
	m.ip = ip
	conf := fmt.Sprintf("listener %d %s\npersistence_location %s/\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\nlog_type information\n%s", m.port, m.ip, m.dir, config)
	if !strings.Contains(config, "allow_anonymous") {
		conf += "allow_anonymous true\n"
	}
	if os.Getuid() == 0 {
		conf += "user root\n" // else it gives root up, and with it its folder here
	}
	if err := os.WriteFile(filepath.Join(m.dir, "mosquitto.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startMosquitto starts a broker.
func startMosquitto(t *testing.T, config string) *mosquitto {
	t.Helper()
	m := newMosquitto(t, config)
	m.start(t)
	return m
}

// program finds a program of Debian's mosquitto packages, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	p := filepath.Join("/usr/sbin", name)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("%s is not installed: apt-get install mosquitto mosquitto-clients", name)
	}
	return p
}

// start starts the broker and waits until it listens.
func (m *mosquitto) start(t *testing.T) {
	t.Helper()
	args := []string{m.program, "-c", filepath.Join(m.dir, "mosquitto.conf")}
	dial := func(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, time.Second) }
	if m.on != nil {
		args = append([]string{"ip", "netns", "exec", m.on.ns}, args...)
		dial = m.on.dial
	}
	m.process = launch(t, m.dir, nil, args[0], args[1:]...)
	await(t, "mosquitto to listen", func() bool {
		select {
		case <-m.exited:
			t.Fatalf("mosquitto ended:\n%s", m.output())
		default:
		}
		c, err := dial(m.addr())
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, m.output)
}

// end ends the broker with a signal and waits for it.
func (m *mosquitto) end(t *testing.T, s syscall.Signal) {
	t.Helper()
	m.signal(t, s)
	m.exit(t)
}

// save makes the broker write its state to disk, now.
func (m *mosquitto) save(t *testing.T) {
	t.Helper()
	db := filepath.Join(m.dir, "mosquitto.db")
	_ = os.Remove(db)
	m.signal(t, syscall.SIGUSR1)
	await(t, db, func() bool { _, err := os.Stat(db); return err == nil }, m.output)
}

func (m *mosquitto) addr() string { return fmt.Sprintf("%s:%d", m.ip, m.port) }

func (m *mosquitto) url() string { return "mqtt://" + m.addr() }
