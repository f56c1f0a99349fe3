//go:build hosts

package hosts

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// lan is a network of hosts: a namespace each, and one with the switch, where
// the broker is. Nothing of it can be reached from outside but by dial.
type lan struct {
	sw    *host
	hosts []*host
}

// host is a machine of a lan.
type host struct {
	ns, ip string
}

// lans numbers the networks of this process, so that tests run side by side.
var lans atomic.Int32

// newLAN makes n hosts; it skips the test where that is not allowed.
func newLAN(t *testing.T, n int) *lan {
	t.Helper()
	return newSubnet(t, n, "10.77.0")
}

// newSubnet is newLAN with addresses of a network, such as 10.77.0 (a /24).
func newSubnet(t *testing.T, n int, net string) *lan {
	t.Helper()
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: apt-get install iproute2 nftables", name)
		}
	}
	id := lans.Add(1)
	l := &lan{sw: &host{ns: fmt.Sprintf("tm%d-%d-sw", os.Getpid(), id), ip: net + ".1"}}
	if out, err := exec.Command("ip", "netns", "add", l.sw.ns).CombinedOutput(); err != nil {
		t.Skipf("network namespaces are not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.sw.ns).Run() })
	l.sw.must(t, "ip", "link", "set", "lo", "up")
	l.sw.must(t, "ip", "link", "add", "br0", "type", "bridge")
	l.sw.must(t, "ip", "addr", "add", l.sw.ip+"/24", "dev", "br0")
	l.sw.must(t, "ip", "link", "set", "br0", "up")
	for i := range n {
		h := &host{ns: fmt.Sprintf("tm%d-%d-%d", os.Getpid(), id, i+1), ip: fmt.Sprintf("%s.%d", net, i+11)}
		command(t, "ip", "netns", "add", h.ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", h.ns).Run() })
		port := fmt.Sprintf("p%d", i+1)
		l.sw.must(t, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
		l.sw.must(t, "ip", "link", "set", port, "master", "br0", "up")
		h.must(t, "ip", "link", "set", "lo", "up")
		h.must(t, "ip", "addr", "add", h.ip+"/24", "dev", "eth0")
		h.must(t, "ip", "link", "set", "eth0", "up")
		l.hosts = append(l.hosts, h)
	}
	return l
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// must runs a program on the host.
func (h *host) must(t *testing.T, name string, args ...string) {
	t.Helper()
	command(t, "ip", append([]string{"netns", "exec", h.ns, name}, args...)...)
}

// direction is which packets of a host are lost.
type direction int

const (
	inbound direction = 1 << iota
	outbound
	both = inbound | outbound
)

// cut drops the host's packets, in one direction or both. Nobody is told.
func (h *host) cut(t *testing.T, d direction) {
	t.Helper()
	rules := "table inet cut {\n"
	for _, c := range []struct {
		d         direction
		hook, dev string
	}{{inbound, "input", "iifname"}, {outbound, "output", "oifname"}} {
		if d&c.d != 0 {
			rules += fmt.Sprintf("chain %s { type filter hook %s priority 0; policy accept; %s eth0 drop; }\n", c.hook, c.hook, c.dev)
		}
	}
	h.mend(t)
	h.must(t, "nft", rules+"}\n")
}

// mend lets the host's packets through.
func (h *host) mend(t *testing.T) {
	t.Helper()
	h.must(t, "nft", "table inet cut {}; delete table inet cut")
}

// dial connects from inside the host to an address that it can reach.
func (h *host) dial(addr string) (c net.Conn, err error) {
	inside := h.inside(func() error {
		fd, err := dialHere(addr)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), addr)
		defer f.Close()
		c, err = net.FileConn(f)
		return err
	})
	return c, inside
}

// inside has something done in the host's namespace: what it opens stays there.
func (h *host) inside(do func() error) error {
	got := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, which is in another namespace, ends with the goroutine
		ns, err := os.Open("/var/run/netns/" + h.ns)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), syscall.CLONE_NEWNET)
		}
		if err == nil {
			err = do()
		}
		got <- err
	}()
	return <-got
}

// dialHere connects a socket of the thread's own namespace.
func dialHere(addr string) (int, error) {
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// The network does what the tests need of it: hosts reach each other, a cut in
// either direction is silent, and mends.
func TestHostsLAN(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	a, b := l.hosts[0], l.hosts[1]
	// A port of a bridge that is new takes a moment until it forwards.
	reached := func(what string) {
		await(t, what, func() bool { return reach(t, a, b) }, func() string { return "" })
	}
	reached("hosts to reach each other")
	for _, d := range []direction{inbound, outbound, both} {
		b.cut(t, d)
		if reach(t, a, b) {
			t.Errorf("cut %d: it is still reached", d)
		}
		b.mend(t)
		reached(fmt.Sprintf("cut %d, mended, to be reached", d))
	}
}

// reach tells whether a datagram from a comes to b and another one back.
func reach(t *testing.T, a, b *host) bool {
	t.Helper()
	udp := func(h *host) (s int) {
		err := h.inside(func() (err error) {
			if s, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
				err = unix.Bind(s, &unix.SockaddrInet4{Port: 9999})
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	sa, sb := udp(a), udp(b)
	defer unix.Close(sa)
	defer unix.Close(sb)
	to := func(h *host) *unix.SockaddrInet4 {
		return &unix.SockaddrInet4{Port: 9999, Addr: [4]byte(net.ParseIP(h.ip).To4())}
	}
	// Within a second on a veth: what is lost was dropped, as a rule.
	limit := unix.Timeval{Sec: 1}
	_ = unix.SetsockoptTimeval(sa, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	_ = unix.SetsockoptTimeval(sb, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	buf := make([]byte, 8)
	_ = unix.Sendto(sa, []byte("x"), 0, to(b)) // EPERM if it was dropped on its way out
	if n, _, err := unix.Recvfrom(sb, buf, 0); err != nil || n != 1 {
		return false
	}
	_ = unix.Sendto(sb, []byte("y"), 0, to(a))
	n, _, err := unix.Recvfrom(sa, buf, 0)
	return err == nil && n == 1
}
