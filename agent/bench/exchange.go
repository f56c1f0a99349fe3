package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/tidemark-mesh/tidemark/agent/channel"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/link"
)

const (
	exchangeBar   = 1.6
	exchangeBytes = 128 << 20 // of a round
	rowBytes      = 40        // a key, three values and the event time, of eight bytes each
	batchBytes    = batch.MaxRows * rowBytes
	lanesAcross   = 2       // receiving subtasks on the other agent
	bareWindow    = 1 << 20 // of the bare stream, as the link's
	pieceSize     = 64 << 10
)

// sending is an order to send so many bytes.
type sending struct {
	Bare  bool
	Bytes int
}

// runExchange sends the same bytes as rows through the channels of a link and
// over a bare stream, from one process to another, in turn, and compares what
// both processes compute for it.
func runExchange(ctx context.Context, o Options) (_ []Figure, err error) {
	to, err := startChild(ctx, part{Role: "exchange"})
	if err != nil {
		return nil, fmt.Errorf("bench exchange: %w", err)
	}
	defer func() { err = errors.Join(err, to.close()) }()
	where, err := to.tell(order{})
	if err != nil {
		return nil, fmt.Errorf("bench exchange: %w", err)
	}
	from, err := startChild(ctx, part{Role: "exchange", Peer: where.Link + " " + where.HTTP})
	if err != nil {
		return nil, fmt.Errorf("bench exchange: %w", err)
	}
	defer func() { err = errors.Join(err, from.close()) }()
	x := ends{from: from, to: to}
	bytes := o.scaled(exchangeBytes, batchBytes) / batchBytes * batchBytes
	rounds := o.rounds(7)
	for i := range rounds + 1 {
		o.progress("exchange: round %d of %d", i, rounds)
		for k, bare := range []bool{false, true} {
			if err := x.round(sending{Bare: bare, Bytes: bytes}, &x.sides[k], i > 0); err != nil {
				return nil, fmt.Errorf("bench exchange: %w", err)
			}
		}
	}
	return []Figure{x.figure()}, nil
}

// ends are the two processes, and what they measured, rows first.
type ends struct {
	from, to *child
	sides    [2]crossed
}

// crossed is by round.
type crossed struct{ ns, allocs, mbs []float64 } // ns a row, of both ends

func (x *ends) round(s sending, into *crossed, counts bool) error {
	var before, after [2]report
	for i, c := range []*child{x.from, x.to} {
		var err error
		if before[i], err = c.tell(order{}); err != nil {
			return err
		}
	}
	sent, err := x.from.tell(order{Send: &s})
	if err != nil {
		return err
	}
	for i, c := range []*child{x.from, x.to} {
		if after[i], err = c.tell(order{}); err != nil {
			return err
		}
	}
	if got := after[1].Count - before[1].Count; !s.Bare && got != int64(s.Bytes) {
		return fmt.Errorf("%d bytes of rows came of %d", got, s.Bytes)
	}
	if !counts {
		return nil
	}
	rows := float64(s.Bytes) / rowBytes
	cpu := after[0].CPU - before[0].CPU + after[1].CPU - before[1].CPU
	into.ns = append(into.ns, float64(cpu.Nanoseconds())/rows)
	into.allocs = append(into.allocs, float64(after[0].Mallocs-before[0].Mallocs+after[1].Mallocs-before[1].Mallocs)/rows)
	into.mbs = append(into.mbs, float64(s.Bytes)/mega/sent.Took.Seconds())
	return nil
}

func (x *ends) figure() Figure {
	ours, bare := x.sides[0], x.sides[1]
	f := ratio("exchange", median(ours.ns)/rowBytes, median(bare.ns)/rowBytes, "ns/B", exchangeBar)
	allocs := median(ours.allocs)
	f.Allocs = &allocs
	ratios := make([]float64, len(ours.ns))
	for i := range ratios {
		ratios[i] = ours.ns[i] / bare.ns[i]
	}
	f.Note = fmt.Sprintf("processor time of both processes; %.0f MB/s by the clock, bare %.0f; the ratio of single rounds %.2f to %.2f; the bare stream allocates %.3f times a row",
		median(ours.mbs), median(bare.mbs), slices.Min(ratios), slices.Max(ratios), median(bare.allocs))
	return f
}

// endpoint is one end of both.
type endpoint struct {
	link  *link.Link
	udp   *net.UDPConn
	quic  *quic.Transport
	conn  *quic.Conn
	rows  *rowSender
	got   *rowReceiver
	stops []func() error
}

func startExchange(ctx context.Context, p part) (func(order) (report, error), func() error, error) {
	e := &endpoint{}
	stop := func() (err error) {
		for i := len(e.stops) - 1; i >= 0; i-- {
			err = errors.Join(err, e.stops[i]())
		}
		return err
	}
	if err := e.open(ctx, p.Peer); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return func(o order) (report, error) {
		r := report{Link: e.link.Addr().String(), HTTP: e.udp.LocalAddr().String()}
		if e.got != nil {
			r.Count = e.got.bytes()
		}
		if o.Send != nil {
			began := time.Now()
			var err error
			if o.Send.Bare {
				err = e.sendBare(ctx, o.Send.Bytes)
			} else {
				err = e.rows.send(ctx, o.Send.Bytes)
			}
			if r.Took = time.Since(began); err != nil {
				return r, err
			}
		}
		return spent(r), nil
	}, stop, nil
}

// open opens the receiving end, or with a peer the sending one.
func (e *endpoint) open(ctx context.Context, peer string) (err error) {
	self, other, linkAt, bareAt := mesh.NodeID("to"), mesh.NodeID("from"), "", ""
	if peer != "" {
		self, other = other, self
		if _, err := fmt.Sscan(peer, &linkAt, &bareAt); err != nil {
			return err
		}
	}
	trust, err := newBelief(string(self))
	if err != nil {
		return err
	}
	if e.link, err = link.New(link.Config{Self: self, Listen: "127.0.0.1:0", Security: trust, Resolver: oneAddress(linkAt)}); err != nil {
		return err
	}
	e.stops = append(e.stops, e.link.Close)
	if e.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}
	e.quic = &quic.Transport{Conn: e.udp}
	e.stops = append(e.stops, e.udp.Close, e.quic.Close)
	if peer == "" {
		e.got = newRowReceiver()
		e.link.Handle(mesh.Channel, channel.Handler(ctx, e.got))
		if err := e.listen(ctx, trust); err != nil {
			return err
		}
		return e.link.Start()
	}
	e.rows = newRowSender(e.link, other)
	to, err := net.ResolveUDPAddr("udp", bareAt)
	if err != nil {
		return err
	}
	if err := e.link.Start(); err != nil {
		return err
	}
	e.conn, err = e.quic.Dial(ctx, to, trust.ServerTLS("bare"), bareConfig())
	return err
}

func bareConfig() *quic.Config {
	return &quic.Config{
		InitialStreamReceiveWindow: bareWindow, MaxStreamReceiveWindow: bareWindow, InitialConnectionReceiveWindow: 16 * bareWindow, MaxConnectionReceiveWindow: 16 * bareWindow,
	}
}

// listen takes bare streams and reads each to its end; then it says so.
func (e *endpoint) listen(ctx context.Context, trust *belief) error {
	l, err := e.quic.Listen(trust.ServerTLS("bare"), bareConfig())
	if err != nil {
		return err
	}
	var done sync.WaitGroup
	e.stops = append(e.stops, func() error { err := l.Close(); done.Wait(); return err })
	done.Go(func() {
		c, err := l.Accept(ctx)
		for err == nil {
			var s *quic.Stream
			if s, err = c.AcceptStream(ctx); err == nil {
				drainStream(s)
			}
		}
	})
	return nil
}

func drainStream(s *quic.Stream) {
	buf := make([]byte, pieceSize)
	for {
		if _, err := s.Read(buf); err != nil {
			_ = s.Close()
			return
		}
	}
}

// sendBare returns when the other end has read everything.
func (e *endpoint) sendBare(ctx context.Context, bytes int) error {
	s, err := e.conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	piece := make([]byte, pieceSize)
	for sent := 0; sent < bytes; sent += len(piece) {
		if _, err := s.Write(piece[:min(len(piece), bytes-sent)]); err != nil {
			return err
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if _, err := s.Read(piece); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the bare stream's end was not seen: %w", err)
	}
	return nil
}
