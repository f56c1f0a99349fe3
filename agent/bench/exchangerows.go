package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/channel"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/exchange"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	engine "github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

func exchangeSchema() *batch.Schema {
	return batch.MustSchema(batch.Field{Name: "key", Type: batch.Bigint}, batch.Field{Name: "x", Type: batch.Bigint},
		batch.Field{Name: "y", Type: batch.Double}, batch.Field{Name: "z", Type: batch.Double})
}

// rowSender deals rows out by key to the subtasks on the other agent.
type rowSender struct {
	link    *link.Link
	to      mesh.NodeID
	schema  *batch.Schema
	split   *exchange.Partitioner
	batches []*batch.Batch
}

func newRowSender(l *link.Link, to mesh.NodeID) *rowSender {
	s := &rowSender{link: l, to: to, schema: exchangeSchema()}
	bl := batch.NewBuilder(batch.NewPool(0, nil), s.schema)
	r := rand.New(rand.NewPCG(1, 2))
	for range 16 {
		for i := range batch.MaxRows {
			bl.SetInt(0, int64(r.IntN(100_000)))
			bl.SetInt(1, r.Int64())
			bl.SetDouble(2, r.Float64())
			bl.SetDouble(3, r.Float64())
			bl.EndRow(dataflow.Time(i * 1000))
		}
		s.batches = append(s.batches, bl.Take())
	}
	s.split = exchange.New(exchange.Config{Exchange: graph.Hash, Channels: lanesAcross, Schema: s.schema, Keys: []int{0}, MaxParallelism: 128})
	return s
}

// send returns when all has been taken at the other end.
func (s *rowSender) send(ctx context.Context, bytes int) error {
	failed := make(chan error, 1)
	out := channel.NewSender(s.link, func(_ mesh.NodeID, err error) { failed <- err })
	defer out.Close()
	var outlets []*channel.Outlet
	for i := range lanesAcross {
		outlets = append(outlets, out.Outlet(s.to, channel.Hello{Job: "bench", Channel: i, Schema: channel.SchemaDigest(s.schema)}))
	}
	var err error
	give := func(c int, m engine.Message) {
		for err == nil && !outlets[c].Offer(m) {
			select {
			case <-outlets[c].Room():
			case err = <-failed:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	for i := 0; i < bytes/batchBytes && err == nil; i++ {
		s.split.Split(s.batches[i%len(s.batches)], func(c int, part *batch.Batch) { give(c, engine.Message{Batch: part}) })
	}
	for c := range outlets {
		give(c, engine.Message{})
	}
	if err != nil {
		return err
	}
	return out.Drain(ctx)
}

// rowReceiver takes all rows at once and counts them.
type rowReceiver struct {
	schema *batch.Schema
	pool   *batch.Pool
	rows   atomic.Int64
}

func newRowReceiver() *rowReceiver {
	return &rowReceiver{schema: exchangeSchema(), pool: batch.NewPool(0, nil)}
}

func (r *rowReceiver) bytes() int64 { return r.rows.Load() * rowBytes }

// Accept is channel.Receiver's.
func (r *rowReceiver) Accept(context.Context, mesh.NodeID, channel.Hello) (channel.Accepted, error) {
	return channel.Accepted{Inlet: r, Attempt: context.Background(), Failed: func(error) {}}, nil // the sender hears of it
}

// Offer is channel.Inlet's.
func (r *rowReceiver) Offer(m engine.Message) bool {
	if m.Batch != nil {
		r.rows.Add(int64(m.Batch.Len()))
		m.Batch.Release()
	}
	return true
}

// Room is channel.Inlet's; nobody waits.
func (r *rowReceiver) Room() <-chan struct{} { return nil }

// Pool is channel.Inlet's.
func (r *rowReceiver) Pool() *batch.Pool { return r.pool }

// Schema is channel.Inlet's.
func (r *rowReceiver) Schema() *batch.Schema { return r.schema }

// belief is a mesh.Security that believes everybody: it costs at the start of a
// connection only.
type belief struct{ cert tls.Certificate }

func newBelief(name string) (*belief, error) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(nil, template, template, pub, key)
	return &belief{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, err
}

// ServerTLS is mesh.Security's.
func (b *belief) ServerTLS(alpn ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: alpn, Certificates: []tls.Certificate{b.cert}, InsecureSkipVerify: true} //nolint:gosec // both ends are this benchmark
}

// ClientTLS is mesh.Security's.
func (b *belief) ClientTLS(_ mesh.NodeID, alpn ...string) *tls.Config { return b.ServerTLS(alpn...) }

// JoinServerTLS is mesh.Security's.
func (b *belief) JoinServerTLS() *tls.Config { return nil }

// Verify is mesh.Security's.
func (b *belief) Verify(cs *tls.ConnectionState, _ mesh.NodeID) (mesh.Peer, error) {
	return mesh.Peer{Node: mesh.NodeID(cs.PeerCertificates[0].Subject.CommonName)}, nil
}

// oneAddress is where the only other node is.
type oneAddress string

// Addresses is link.Resolver's.
func (a oneAddress) Addresses(mesh.NodeID) []string { return []string{string(a)} }
