package feed

import (
	"crypto/tls"
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// openMQTT makes the sessions of feeds. A password is looked up anew for each
// connection, so that one that was changed is found.
func openMQTT(secrets job.Resolver) func(Config, SessionOptions) (sensors.Reader, error) {
	return func(c Config, s SessionOptions) (sensors.Reader, error) {
		conn := mqtt.Connection{
			Broker: c.Broker, ClientID: c.ClientID, CAFile: c.TLS.CA, CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, Clock: s.Clock, Events: s.Events, Permit: s.Permit,
		}
		if c.TLS.ServerName != "" {
			conn.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLS.ServerName}
		}
		var err error
		if c.Username.Given() {
			if conn.Username, err = c.Username.Resolve(secrets); err != nil {
				return nil, fmt.Errorf("username: %w", err)
			}
		}
		if c.Password.Given() {
			conn.Password = func() (string, error) { return c.Password.Resolve(secrets) }
		}
		return mqtt.NewReader(mqtt.ReaderOptions{
			Connection: conn, Topics: c.Topics, Left: c.Left, QoS: byte(c.QoS), CleanSession: c.QoS == 0,
			Retained: mqtt.Retained(c.Retained), Lanes: c.Lanes, TickEvery: c.Tick, Recall: s.Recall,
		})
	}
}
