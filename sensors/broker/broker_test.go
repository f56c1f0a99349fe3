package broker_test

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

const patience = 60 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o broker.Options) *broker.Broker {
	t.Helper()
	b, err := broker.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func client(t *testing.T, b *broker.Broker, id, user, password string) (paho.Client, error) {
	t.Helper()
	o := paho.NewClientOptions().AddBroker("tcp://" + b.Addr()).SetClientID(id).SetUsername(user).SetPassword(password)
	o.SetAutoReconnect(false).SetProtocolVersion(4)
	c := paho.NewClient(o)
	k := c.Connect()
	if !k.WaitTimeout(patience) {
		t.Fatal("no answer")
	}
	t.Cleanup(func() { c.Disconnect(1000) })
	return c, k.Error()
}

func await(t *testing.T, k paho.Token) {
	t.Helper()
	if !k.WaitTimeout(patience) || k.Error() != nil {
		t.Fatalf("no answer, or %v", k.Error())
	}
}

// Thousands of messages of each QoS from several clients: all arrive.
func TestCarriesAll(t *testing.T) {
	const clients, n = 4, 500
	for qos := byte(0); qos <= 2; qos++ {
		b := start(t, broker.Options{})
		sub, err := client(t, b, "sub", "", "")
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string, clients*n)
		await(t, sub.Subscribe("t/#", qos, func(_ paho.Client, m paho.Message) { got <- m.Topic() + " " + string(m.Payload()) }))
		for k := range clients {
			pub, err := client(t, b, fmt.Sprint("pub", k), "", "")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for i := range n {
					pub.Publish(fmt.Sprintf("t/%d", k), qos, false, fmt.Sprint(i)).Wait()
				}
			}()
		}
		seen := map[string]bool{}
		for range clients * n {
			select {
			case v := <-got:
				seen[v] = true
			case <-time.After(patience):
				t.Fatalf("QoS %d: %d of %d arrived; %+v", qos, len(seen), clients*n, b.Stats())
			}
		}
		if s := b.Stats(); len(seen) != clients*n || s.Received != clients*n || s.Dropped != 0 || s.Connected != clients+1 {
			t.Errorf("QoS %d: %d different ones; %+v", qos, len(seen), s)
		}
	}
}

func TestUsers(t *testing.T) {
	b := start(t, broker.Options{Users: map[string]string{"edge": "right"}})
	for _, c := range []struct {
		user, password string
		ok             bool
	}{{"edge", "right", true}, {"edge", "wrong", false}, {"edge", "", false}, {"other", "right", false}, {"", "", false}} {
		if _, err := client(t, b, "c", c.user, c.password); (err == nil) != c.ok {
			t.Errorf("%s/%s: %v", c.user, c.password, err)
		}
	}
}

// Over the bound the broker drops, and its count says so.
func TestDropsAreCounted(t *testing.T) {
	b := start(t, broker.Options{InflightMax: 10})
	sub, err := client(t, b, "sub", "", "")
	if err != nil {
		t.Fatal(err)
	}
	await(t, sub.Subscribe("t", 1, nil)) // no handler: nothing is acknowledged
	pub, err := client(t, b, "pub", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for range 21 {
		await(t, pub.Publish("t", 1, false, "x"))
	}
	// The broker answers before it delivers; the answer to this one comes after.
	await(t, pub.Publish("other", 1, false, "x"))
	if s := b.Stats(); s.Dropped != 11 {
		t.Errorf("%+v", s)
	}
}

// Close leaves nobody behind, not even who never said CONNECT, and the address
// is free again.
func TestCloseAndRestart(t *testing.T) {
	addr := sensortest.FreeAddr(t)
	b := start(t, broker.Options{Addr: addr})
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if _, err := client(t, b, "c", "", ""); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_ = silent.SetReadDeadline(time.Now().Add(patience))
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection lives on")
	}
	again := start(t, broker.Options{Addr: addr})
	if again.Addr() != addr {
		t.Errorf("listens on %s, want %s", again.Addr(), addr)
	}
	if _, err := broker.Start(broker.Options{Addr: addr}); err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("a taken address: %v", err)
	}
}

func TestOptionsRefused(t *testing.T) {
	for word, o := range map[string]broker.Options{
		"user names":  {Addr: "0.0.0.0:0"},
		"InflightMax": {InflightMax: 70000},
		"PendingMax":  {PendingMax: -1},
		"listen":      {Addr: "256.0.0.1:1"},
	} {
		b, err := broker.Start(o)
		if err == nil {
			_ = b.Close()
			t.Errorf("%s: accepted", word)
		} else if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error reads %q", word, err)
		}
	}
	b := start(t, broker.Options{Addr: "0.0.0.0:0", Users: map[string]string{"a": "b"}, TLS: &tls.Config{}, Logger: slog.New(slog.DiscardHandler)})
	if b.Addr() == "" {
		t.Error("no address")
	}
}

// TestCloseWhileClientsGo closes brokers whose clients come and go at the same
// time: it always ends.
func TestCloseWhileClientsGo(t *testing.T) {
	for range 200 {
		b := start(t, broker.Options{})
		connect := connectPacket()
		var clients sync.WaitGroup
		var closes atomic.Bool
		going := make(chan struct{}, 64)
		for i := range cap(going) {
			clients.Go(func() {
				for !closes.Load() {
					c, err := net.Dial("tcp", b.Addr())
					if err != nil {
						runtime.Gosched() // it has closed, or the system is short of ports for a moment
						continue
					}
					if i > 0 { // a connection that ends in order keeps its port for a minute
						_ = c.(*net.TCPConn).SetLinger(0)
					}
					_, _ = c.Write(connect)
					_, _ = c.Read(make([]byte, 4))
					_ = c.Close()
					select {
					case going <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(going) {
			<-going
		}
		err := b.Close()
		closes.Store(true)
		if err != nil {
			t.Fatal(err)
		}
		clients.Wait()
	}
}

// connectPacket is CONNECT of a client without an id.
func connectPacket() []byte {
	return append([]byte{0x10, 12, 0, 4}, "MQTT\x04\x02\x00\x3c\x00\x00"...)
}
