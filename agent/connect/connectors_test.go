package connect

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// What a job says of TLS reaches the session: the name in the broker's
// certificate may be another one than that in its address.
func TestServerNameReachesTheSession(t *testing.T) {
	c := New(Options{Job: &job.Job{Name: "j"}})
	conn, err := c.Connection("mqtts://10.0.0.7:8883", "", "in", job.Secret{}, job.Secret{}, job.TLS{CA: "ca.pem", ServerName: "broker.plant"})
	if err != nil {
		t.Fatal(err)
	}
	if conn.TLS == nil || conn.TLS.ServerName != "broker.plant" || conn.CAFile != "ca.pem" {
		t.Errorf("connection %+v", conn)
	}
	if conn, _ = c.Connection("mqtts://10.0.0.7:8883", "", "in", job.Secret{}, job.Secret{}, job.TLS{}); conn.TLS != nil {
		t.Error("a name that nobody gave")
	}
}
