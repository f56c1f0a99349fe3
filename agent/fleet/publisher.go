// Package fleet sends a simulated fleet to a broker, at the speed of its own
// virtual time.
//
// It invents nothing: what is sent and when is sensors/simulate's. It owns the
// connection to the broker and the pacing, and waits for both when it ends.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Publisher publishes raw payloads over one connection, in order.
type Publisher struct {
	client  paho.Client
	broker  string // its URL, without user and password
	qos     byte
	room    chan struct{}   // a token for each message that may be under way; none left: Publish waits
	pending chan paho.Token // published and not acknowledged
	failed  chan error      // the first failure
	done    chan struct{}   // closed when all of pending are acknowledged
}

const (
	maxPending     = 1000
	connectTimeout = 10 * time.Second
	ackTimeout     = 30 * time.Second
)

// Connect connects to a broker: mqtt://host:port, or mqtts:// with the system's
// certificate authorities. User and password may stand in the URL; they are
// never shown.
func Connect(broker, clientID string, qos byte) (*Publisher, error) {
	u, err := url.Parse(broker)
	if err != nil || u.Host == "" {
		return nil, errors.New("fleet: the broker's URL cannot be read; give one like mqtt://127.0.0.1:1883") // err would show a password
	}
	below, port := "tcp", "1883"
	switch u.Scheme {
	case "mqtt", "tcp":
	case "mqtts", "ssl", "tls":
		below, port = "ssl", "8883"
	default:
		return nil, fmt.Errorf("fleet: broker %s: unknown scheme %q; use mqtt or mqtts", u.Redacted(), u.Scheme)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	o := paho.NewClientOptions().AddBroker(below + "://" + u.Host).SetClientID(clientID).SetConnectTimeout(connectTimeout).
		SetAutoReconnect(false).SetConnectRetry(false).SetOrderMatters(true)
	if u.User != nil {
		password, _ := u.User.Password()
		o.SetUsername(u.User.Username()).SetPassword(password)
	}
	p := &Publisher{client: paho.NewClient(o), broker: u.Scheme + "://" + u.Host, qos: qos, room: make(chan struct{}, maxPending), pending: make(chan paho.Token, maxPending), failed: make(chan error, 1), done: make(chan struct{})}
	t := p.client.Connect()
	if !t.WaitTimeout(connectTimeout) {
		p.client.Disconnect(0)
		return nil, fmt.Errorf("fleet: broker %s does not answer", u.Host)
	}
	if t.Error() != nil {
		return nil, fmt.Errorf("fleet: broker %s: %w", u.Host, t.Error())
	}
	go p.settle()
	return p, nil
}

// Broker is the broker's URL, without user and password.
func (p *Publisher) Broker() string { return p.broker }

// settle waits for the acknowledgements in order. Close ends it.
func (p *Publisher) settle() {
	defer close(p.done)
	for t := range p.pending {
		err := errors.New("the broker does not acknowledge")
		if t.WaitTimeout(ackTimeout) {
			err = t.Error()
		}
		<-p.room
		if err != nil {
			select {
			case p.failed <- fmt.Errorf("fleet: publish: %w", err):
			default:
			}
		}
	}
}

// Publish sends a message; payload may be used again when it returns. It waits
// while too many are not acknowledged. With an error, nothing was sent.
func (p *Publisher) Publish(ctx context.Context, topic string, payload []byte) error {
	select {
	case err := <-p.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case p.room <- struct{}{}:
	}
	p.pending <- p.client.Publish(topic, p.qos, false, append([]byte(nil), payload...))
	return nil
}

// Close waits for what is not acknowledged and disconnects.
func (p *Publisher) Close() error {
	close(p.pending)
	<-p.done
	p.client.Disconnect(250)
	select {
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}
