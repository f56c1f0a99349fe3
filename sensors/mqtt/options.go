package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
)

// Connection says how a broker is reached. The zero value of every field but
// Broker has a meaning.
type Connection struct {
	// Broker is a URL: mqtt:// or tcp:// (port 1883), mqtts://, ssl:// or tls://
	// (8883), ws:// (80), wss:// (443). User and password may stand in it.
	Broker   string
	ClientID string
	Username string
	Password func() (string, error) // asked anew for each connection; nil: none

	TLS      *tls.Config // for mqtts and wss; nil: the system's roots, and the files
	CAFile   string      // PEM; nobody but these authorities is believed
	CertFile string      // PEM; our own certificate, with KeyFile
	KeyFile  string

	KeepAlive      dataflow.Duration // whole seconds; 0: 30 s
	ConnectTimeout dataflow.Duration // for dialling and handshakes together; 0: 10 s
	BackoffMin     dataflow.Duration // before the second attempt; doubles each time; 0: 250 ms
	BackoffMax     dataflow.Duration // 0: 30 s

	// Permit is asked before a connection is made and before anything is written
	// to it; without it the connection ends. nil: everything always may.
	Permit sensors.Permit

	Clock  sensors.Clock  // nil: sensors.Wall
	Rand   func() float64 // in [0, 1), for the jitter of the back-off; nil: the runtime's
	Events func(Event)    // must not block; called by one goroutine at a time or another, without a lock held
}

// endpoint is a Connection whose defaults are filled in and whose URL is read.
type endpoint struct {
	Connection
	scheme string // "tcp", "tls", "ws" or "wss"
	host   string // with port
	url    string // without user and password
	user   *url.Userinfo
}

func (c Connection) resolve() (*endpoint, error) {
	e := &endpoint{Connection: c}
	u, err := url.Parse(c.Broker)
	if err != nil {
		return nil, errors.New("mqtt: the broker's URL cannot be read; give one like mqtt://broker.example:1883") // err would show a password
	}
	port := ""
	switch strings.ToLower(u.Scheme) {
	case "mqtt", "tcp":
		e.scheme, port = "tcp", "1883"
	case "mqtts", "ssl", "tls":
		e.scheme, port = "tls", "8883"
	case "ws":
		e.scheme, port = "ws", "80"
	case "wss":
		e.scheme, port = "wss", "443"
	default:
		return nil, fmt.Errorf("mqtt: broker %q: unknown scheme %q; use mqtt, mqtts, tcp, ssl, ws or wss, as in mqtt://broker.example:1883", u.Redacted(), u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("mqtt: broker %q has no host; give one like mqtt://broker.example:1883", u.Redacted())
	}
	if u.Port() != "" {
		port = u.Port()
	}
	e.host = net.JoinHostPort(u.Hostname(), port)
	e.user, u.User = u.User, nil
	u.Host = e.host
	e.url = u.String()
	e.defaults()
	if e.KeepAlive < dataflow.Second || e.KeepAlive > 65535*dataflow.Second || e.KeepAlive%dataflow.Second != 0 {
		return nil, fmt.Errorf("mqtt: keep-alive of %v; give whole seconds from 1s to 65535s", e.KeepAlive)
	}
	if len(e.ClientID) > 65535 || strings.ContainsRune(e.ClientID, 0) {
		return nil, errors.New("mqtt: the client id is longer than 65,535 bytes or has a zero in it; choose another")
	}
	if e.scheme == "tls" || e.scheme == "wss" {
		if _, err := e.tlsConfig(); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *endpoint) defaults() {
	def := func(d *dataflow.Duration, v dataflow.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&e.KeepAlive, 30*dataflow.Second)
	def(&e.ConnectTimeout, 10*dataflow.Second)
	def(&e.BackoffMin, 250*dataflow.Millisecond)
	def(&e.BackoffMax, 30*dataflow.Second)
	if e.Clock == nil {
		e.Clock = sensors.Wall{}
	}
	if e.Rand == nil {
		e.Rand = rand.Float64
	}
	if e.Events == nil {
		e.Events = func(Event) {}
	}
}

// tlsConfig reads the files, so that a renewed certificate is used from the
// next connection on.
func (e *endpoint) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.TLS != nil {
		c = e.TLS.Clone()
	}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(e.host)
	}
	if e.CAFile != "" {
		pem, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("mqtt: the broker's certificate authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mqtt: %s holds no PEM certificate of an authority", e.CAFile)
		}
	}
	if e.CertFile != "" || e.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("mqtt: certificate %q with key %q: %w", e.CertFile, e.KeyFile, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// credentials are the options' user and password, or those in the URL.
func (e *endpoint) credentials() (user, password string, err error) {
	user = e.Username
	if e.user != nil {
		if user == "" {
			user = e.user.Username()
		}
		password, _ = e.user.Password()
	}
	if e.Password != nil {
		if password, err = e.Password(); err != nil {
			return "", "", fmt.Errorf("mqtt: password for %s: %w", e.url, err)
		}
	}
	return user, password, nil
}
