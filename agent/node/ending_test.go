package node_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/config"
	"github.com/tidemark-mesh/tidemark/agent/node"
	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Who listens to events when the agent ends hears their end, and does not hold it up.
func TestEndWithListeners(t *testing.T) {
	b := site(t, 1)[0]
	resp, err := http.Get("http://" + b.HTTP() + "/v1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	b.end()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
}

// An agent that is told to leave answers, and ends.
func TestLeaveAnswers(t *testing.T) {
	all := site(t, 2)
	lead := leading(t, all)
	other := all[0]
	if other == lead {
		other = all[1]
	}
	resp, err := http.Post("http://"+other.HTTP()+"/v1/members/self/leave", "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent || err != nil {
		t.Errorf("%s: %s %v", resp.Status, text, err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	await(t, "the site to be without it", func() (out bool) {
		lead.View(func(st *coordinator.State) { out = st.Agents[other.Self()] == nil })
		return out
	})
}

// Nothing is founded where an agent could not run.
func TestFoundsNothingWithoutItsPorts(t *testing.T) {
	for _, taken := range []string{"bind", "gossip_bind", "wan_bind", "http.bind"} {
		b := newBox(t, "n1")
		o := b.options("", "")
		o.Config.Dev = true
		switch taken {
		case "bind", "gossip_bind", "wan_bind":
			at := map[string]string{"bind": b.bind, "gossip_bind": config.GossipOf(b.bind), "wan_bind": config.WANOf(b.bind)}[taken]
			s, err := net.ListenPacket("udp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // nothing was written
		default:
			s, err := net.Listen("tcp", o.Config.HTTP.Bind)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // nothing was written
			o.Config.HTTP.Bind = s.Addr().String()
		}
		ctx, cancel := context.WithCancel(t.Context())
		n, err := node.Start(ctx, o)
		if cancel(); err == nil {
			_ = n.Wait()
		}
		if err == nil || !strings.Contains(err.Error(), taken+": ") || !strings.Contains(err.Error(), "does another agent run here?") {
			t.Errorf("%s is taken: %v", taken, err)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "identity")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is taken: an identity was made: %v", taken, err)
		}
	}
}
