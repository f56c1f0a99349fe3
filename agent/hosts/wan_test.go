//go:build hosts

package hosts

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wan is the network between two lans: their switches route to each other
// through a tunnel each, and between the tunnels stands this. So agents have
// their own addresses, and all that they send, UDP and TCP, goes this way.
type wan struct {
	pipes [2]*pipe // from the first lan to the second, and back
}

// line is what a way through a wan is like.
type line struct {
	delay time.Duration // one way
	rate  int           // bytes a second
	queue int           // bytes that wait for their turn; more are dropped
	loss  float64       // of all packets
}

// far is two sites' usual line: 50 ms each way, 20 Mbit/s, of a thousand packets
// one is lost.
var far = line{delay: 50 * time.Millisecond, rate: 20_000_000 / 8, queue: 256 << 10, loss: 0.001}

// pipe is one direction.
type pipe struct {
	from, to *os.File // tunnels
	way      chan flying

	mu    sync.Mutex // guards what follows
	line  line
	rng   *rand.Rand
	cut   bool
	free  time.Time // when the line is done with what it was given
	count traffic
}

// flying is a packet on its way.
type flying struct {
	due  time.Time
	data []byte
}

// traffic is what a direction has carried, and what it has dropped: packets that
// found no room, that were lost, that came while it was cut.
type traffic struct {
	bytes, packets, full, lost, cut int
}

func (c traffic) String() string {
	return fmt.Sprintf("%.1f MB in %d packets (%d found the queue full, %d lost, %d cut)", float64(c.bytes)/1e6, c.packets, c.full, c.lost, c.cut)
}

// mtu of a tunnel: the kernel cuts to it what it has put together.
const mtu = 1500

// newWAN joins two lans; it skips the test where there are no tunnels.
func newWAN(t *testing.T, a, b *lan, l line, seed uint64) *wan {
	t.Helper()
	ends := [2]*os.File{tunnel(t, a, b), tunnel(t, b, a)}
	w := &wan{}
	var all sync.WaitGroup
	for i := range w.pipes {
		p := &pipe{from: ends[i], to: ends[1-i], way: make(chan flying, 1<<14), line: l, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		w.pipes[i] = p
		all.Go(p.take)
		all.Go(p.give)
	}
	t.Cleanup(func() {
		for _, f := range ends {
			_ = f.Close()
		}
		all.Wait()
	})
	return w
}

// tunnel is where packets of one lan to another one come out.
func tunnel(t *testing.T, from, to *lan) (f *os.File) {
	t.Helper()
	err := from.sw.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq("wan")
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			_ = unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), "/dev/net/tun")
		return nil
	})
	if err != nil {
		t.Skipf("tunnels are not allowed here: %v", err)
	}
	from.sw.must(t, "ip", "link", "set", "wan", "mtu", fmt.Sprint(mtu), "up")
	from.sw.must(t, "ip", "route", "add", to.sw.ip+"/32", "dev", "wan")
	for _, h := range to.hosts {
		from.sw.must(t, "ip", "route", "add", h.ip+"/32", "dev", "wan")
	}
	from.routes(t)
	return f
}

// routes has the switch forward what is for elsewhere.
func (l *lan) routes(t *testing.T) {
	t.Helper()
	l.sw.must(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	for _, h := range l.hosts {
		h.must(t, "ip", "route", "replace", "default", "via", l.sw.ip)
	}
}

// take reads packets, drops some, and says when each is to arrive.
func (p *pipe) take() {
	defer close(p.way)
	buf := make([]byte, 64<<10)
	for {
		n, err := p.from.Read(buf)
		if err != nil {
			return // closed
		}
		if due, ok := p.schedule(n); ok {
			p.way <- flying{due, append([]byte(nil), buf[:n]...)}
		}
	}
}

// schedule is when a packet of so many bytes that comes now arrives, if it does.
func (p *pipe) schedule(n int) (due time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	waiting := int(p.free.Sub(now).Seconds() * float64(p.line.rate))
	switch {
	case p.cut:
		p.count.cut++
		return due, false
	case waiting+n > p.line.queue || len(p.way) == cap(p.way):
		p.count.full++
		return due, false
	case p.rng.Float64() < p.line.loss:
		p.count.lost++
		return due, false
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.line.rate) * float64(time.Second)))
	return p.free.Add(p.line.delay), true
}

// give writes packets when they are due.
func (p *pipe) give() {
	for f := range p.way {
		if wait := time.Until(f.due); wait > 0 {
			<-time.After(wait)
		}
		p.mu.Lock()
		cut := p.cut
		if cut {
			p.count.cut++
		} else {
			p.count.packets++
			p.count.bytes += len(f.data)
		}
		p.mu.Unlock()
		if !cut {
			_, _ = p.to.Write(f.data) // who receives it may be gone
		}
	}
}

func (w *wan) set(f func(*pipe)) {
	for _, p := range w.pipes {
		p.mu.Lock()
		f(p)
		p.mu.Unlock()
	}
}

// cut loses all that is under way, and all that comes. Nobody is told.
func (w *wan) cut() { w.set(func(p *pipe) { p.cut = true }) }

// heal ends a cut.
func (w *wan) heal() { w.set(func(p *pipe) { p.cut = false }) }

// slow gives the line another delay.
func (w *wan) slow(d time.Duration) { w.set(func(p *pipe) { p.line.delay = d }) }

// carried is what went each way so far.
func (w *wan) carried() (there, back traffic) {
	return w.pipes[0].counted(), w.pipes[1].counted()
}

func (p *pipe) counted() traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// The network between sites does what the tests need of it: it delays, is no
// faster than it is to be, and can be cut.
func TestHostsWAN(t *testing.T) {
	t.Parallel()
	a, b := newSubnet(t, 1, "10.77.1"), newSubnet(t, 1, "10.77.2")
	w := newWAN(t, a, b, line{delay: 50 * time.Millisecond, rate: 1 << 20, queue: 64 << 10}, 1)
	from, to := a.hosts[0], b.hosts[0]
	reached := func(what string) {
		t.Helper()
		await(t, what, func() bool { return reach(t, from, to) }, func() string { return fmt.Sprint(w.carried()) })
	}
	reached("hosts to reach each other")
	w.cut()
	if reach(t, from, to) {
		t.Error("it is cut, and reached")
	}
	w.heal()
	reached("what was cut to be reached again")

	const size = 3 << 20
	var listen int
	if err := to.inside(func() (err error) {
		if listen, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(listen, &unix.SockaddrInet4{Port: 9998})
		}
		if err == nil {
			err = unix.Listen(listen, 1)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listen)
	began := time.Now()
	c, err := from.dial(to.ip + ":9998")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("connected after %v, which is no round trip", took)
	}
	in, _, err := unix.Accept4(listen, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(in)
	var sender sync.WaitGroup
	sender.Go(func() {
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write(make([]byte, size)) // what did not come is noticed below
	})
	limit := unix.NsecToTimeval(int64(patience))
	_ = unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	buf := make([]byte, 64<<10)
	for got := 0; got < size; {
		n, err := unix.Read(in, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("%d bytes of %d: %v", got, size, err)
		}
		got += n
	}
	sender.Wait()
	took := time.Since(began)
	if took < 2*time.Second {
		t.Errorf("3 MiB at 1 MiB a second took %v", took)
	}
	there, back := w.carried()
	t.Logf("3 MiB in %v; there %v, back %v", took.Round(time.Millisecond), there, back)
}
