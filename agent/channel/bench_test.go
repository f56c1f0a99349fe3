package channel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/dataflow/exchange"
	"github.com/tidemark-mesh/tidemark/dataflow/graph"
	"github.com/tidemark-mesh/tidemark/dataflow/runtime"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

// cpu is the time of this process in all its threads.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// self is a Security of one agent, who believes everybody.
type self struct{ cert tls.Certificate }

func newSelf(b *testing.B, node string) *self {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	tmpl.Subject.CommonName = node
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, pub, key)
	if err != nil {
		b.Fatal(err)
	}
	return &self{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

func (s *self) ServerTLS(alpn ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: alpn, Certificates: []tls.Certificate{s.cert}, InsecureSkipVerify: true}
}

func (s *self) ClientTLS(_ mesh.NodeID, alpn ...string) *tls.Config { return s.ServerTLS(alpn...) }

func (s *self) JoinServerTLS() *tls.Config { return nil }

func (s *self) Verify(cs *tls.ConnectionState, _ mesh.NodeID) (mesh.Peer, error) {
	return mesh.Peer{Node: mesh.NodeID(cs.PeerCertificates[0].Subject.CommonName)}, nil
}

type addresses map[mesh.NodeID]string

func (a addresses) Addresses(n mesh.NodeID) []string { return []string{a[n]} }

// sink takes everything at once.
type sink struct {
	inlet
	rows int
	end  chan struct{}
}

func (s *sink) Offer(m runtime.Message) bool {
	if m.Batch == nil {
		close(s.end)
		return true
	}
	s.rows += m.Batch.Len()
	m.Batch.Release()
	return true
}

type sinks []*sink

func (s sinks) Accept(_ context.Context, _ mesh.NodeID, h Hello) (Accepted, error) {
	return Accepted{Inlet: s[h.Channel], Attempt: context.Background(), Failed: func(err error) { panic(err) }}, nil
}

// benchRows are 40 bytes each: a key, three values and the event time.
func benchRows(p *batch.Pool, s *batch.Schema, n int, r *rand.Rand) *batch.Batch {
	bl := batch.NewBuilder(p, s)
	for i := range n {
		bl.SetInt(0, int64(r.IntN(100_000)))
		bl.SetInt(1, r.Int64())
		bl.SetDouble(2, r.Float64())
		bl.SetDouble(3, r.Float64())
		bl.EndRow(dataflow.Time(i * 1000))
	}
	return bl.Take()
}

// BenchmarkExchange is the CPU of both ends, a byte of rows: keyed rows through
// two channels of a link on this machine, beside a bare stream of the library
// with writes of 64 KiB. The two take turns.
func BenchmarkExchange(b *testing.B) {
	for _, n := range []int{batch.MaxRows, 512, 64} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			x, bare := newExchange(b, n), newBare(b)
			var ours, theirs time.Duration
			var bytes int
			for b.Loop() {
				const round = 64 << 20
				began := cpu(b)
				x.round(b, round)
				middle := cpu(b)
				bare.round(b, round)
				ours, theirs, bytes = ours+middle-began, theirs+cpu(b)-middle, bytes+round
			}
			b.ReportMetric(float64(ours)/float64(bytes), "ns/B")
			b.ReportMetric(float64(theirs)/float64(bytes), "bare-ns/B")
			b.ReportMetric(float64(ours)/float64(theirs), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// exchangeBench is a link and the rows to send over it.
type exchangeBench struct {
	a, b     *link.Link
	schema   *batch.Schema
	pool     *batch.Pool
	batches  []*batch.Batch
	split    *exchange.Partitioner
	channels sinks
}

func newExchange(b *testing.B, n int) *exchangeBench {
	x := &exchangeBench{pool: batch.NewPool(0, nil), channels: sinks{{}, {}}}
	x.schema = batch.MustSchema(batch.Field{Name: "key", Type: batch.Bigint}, batch.Field{Name: "x", Type: batch.Bigint},
		batch.Field{Name: "y", Type: batch.Double}, batch.Field{Name: "z", Type: batch.Double})
	r := rand.New(rand.NewPCG(1, 2))
	for range 16 {
		x.batches = append(x.batches, benchRows(x.pool, x.schema, n, r))
	}
	x.split = exchange.New(exchange.Config{Exchange: graph.Hash, Channels: 2, Schema: x.schema, Keys: []int{0}, MaxParallelism: 128})
	at := addresses{}
	for node, l := range map[mesh.NodeID]**link.Link{"a": &x.a, "b": &x.b} {
		var err error
		*l, err = link.New(link.Config{Self: node, Listen: "127.0.0.1:0", Security: newSelf(b, string(node)), Resolver: at})
		if err != nil {
			b.Fatal(err)
		}
		at[node] = (*l).Addr().String()
		b.Cleanup(func() { (*l).Close() })
	}
	x.b.Handle(mesh.Channel, Handler(context.Background(), x))
	for _, l := range []*link.Link{x.a, x.b} {
		if err := l.Start(); err != nil {
			b.Fatal(err)
		}
	}
	return x
}

func (x *exchangeBench) Accept(ctx context.Context, n mesh.NodeID, h Hello) (Accepted, error) {
	return x.channels.Accept(ctx, n, h)
}

// round sends so many bytes of rows through new channels.
func (x *exchangeBench) round(b *testing.B, bytes int) {
	s := NewSender(x.a, func(_ mesh.NodeID, err error) { b.Error(err) })
	var outlets []*Outlet
	for i := range x.channels {
		*x.channels[i] = sink{inlet: inlet{pool: x.pool, schema: x.schema}, end: make(chan struct{})}
		outlets = append(outlets, s.Outlet("b", Hello{Channel: i, Schema: SchemaDigest(x.schema)}))
	}
	for sent, i := 0, 0; sent < bytes; i++ {
		rows := x.batches[i%len(x.batches)]
		x.split.Split(rows, func(c int, part *batch.Batch) { offerTo(outlets[c], runtime.Message{Batch: part}) })
		sent += 40 * rows.Rows
	}
	for _, o := range outlets {
		offerTo(o, runtime.Message{})
	}
	if err := s.Drain(context.Background()); err != nil {
		b.Fatal(err)
	}
	s.Close()
}

// bareBench is a stream of the library.
type bareBench struct {
	from *quic.Conn
	to   *quic.Conn
}

func newBare(b *testing.B) *bareBench {
	conf := &quic.Config{
		InitialStreamReceiveWindow: 1 << 20, MaxStreamReceiveWindow: 1 << 20, InitialConnectionReceiveWindow: 16 << 20, MaxConnectionReceiveWindow: 16 << 20,
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	tr := &quic.Transport{Conn: udp}
	l, err := tr.Listen(newSelf(b, "x").ServerTLS("bare"), conf)
	if err != nil {
		b.Fatal(err)
	}
	x := &bareBench{}
	var wg sync.WaitGroup
	wg.Go(func() { x.to, err = l.Accept(context.Background()) })
	from, dialErr := quic.DialAddr(context.Background(), l.Addr().String(), newSelf(b, "y").ServerTLS("bare"), conf)
	if wg.Wait(); err != nil || dialErr != nil {
		b.Fatal(err, dialErr)
	}
	x.from = from
	b.Cleanup(func() {
		from.CloseWithError(0, "")
		l.Close()
		tr.Close()
		udp.Close()
	})
	return x
}

func (x *bareBench) round(b *testing.B, bytes int) {
	s, err := x.from.OpenUniStream()
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		piece := make([]byte, 64<<10)
		for range bytes / len(piece) {
			if _, err := s.Write(piece); err != nil {
				b.Error(err)
			}
		}
		s.Close()
	})
	r, err := x.to.AcceptUniStream(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for err == nil {
		_, err = r.Read(buf)
	}
	if wg.Wait(); err != io.EOF {
		b.Fatal(err)
	}
}
