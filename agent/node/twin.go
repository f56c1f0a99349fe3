package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// whereFile says where agents with this folder's identity ran: this one at its
// last start, and another one that ended it. A copy of the folder has it too.
func whereFile(data string) string { return filepath.Join(data, "where.json") }

func readWhere(data string) (all []string, err error) {
	text, err := os.ReadFile(whereFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; it may be removed, if no other agent has a copy of this data folder", whereFile(data), err)
	}
	return all, nil
}

func writeWhere(data string, all ...string) error {
	text, err := json.Marshal(all)
	if err == nil {
		err = replace(whereFile(data), append(text, '\n'))
	}
	return err
}

// errTwin is why an agent does not work.
func errTwin(at string) error {
	return fmt.Errorf("%w It runs at %s; end one of the two and remove its data folder", mesh.ErrTwin, at)
}

// How long one that may have this agent's identity is asked. Where the address is
// nobody's any more, a machine that has moved starts so much later.
const (
	askFirst = 10 * time.Second
	askAgain = 3 * time.Second // each second anew
)

// onlyOne asks, before this agent takes part in anything, whether another one runs
// where one with this identity ran last: with a copy of its folder it would forget
// what the other one promises.
func (n *Node) onlyOne(ctx context.Context) error {
	all, err := readWhere(n.o.Config.DataDir)
	if err != nil {
		return err
	}
	for _, addr := range all {
		if addr == n.linkAddr() {
			continue // this agent has that port
		}
		ctx, cancel := context.WithTimeout(ctx, askFirst)
		alike, err := n.link.Alike(ctx, addr)
		for err != nil && ctx.Err() == nil { // it has little time for handshakes, perhaps
			select {
			case <-ctx.Done():
			case <-time.After(askFirst / 20):
			}
			alike, err = n.link.Alike(ctx, addr)
		}
		cancel()
		if alike {
			return errTwin(addr)
		}
	}
	if me := []string{n.linkAddr()}; !slices.Equal(all, me) {
		return writeWhere(n.o.Config.DataDir, me...)
	}
	return nil
}

// meets notes that gossip knows of another agent with this identity.
func (n *Node) meets(m mesh.Member) {
	if m.Node == n.id.Node() && m.Link != "" && !n.stays(&m) {
		n.twin.Store(&m)
	}
}

// stays tells whether this agent is the one of the two that goes on: that which
// was started more often, which all others take for the present one; of those
// started as often, that with the lesser address.
func (n *Node) stays(m *mesh.Member) bool {
	return n.boot > m.Boot || n.boot == m.Boot && n.linkAddr() <= m.Link
}

// giveWay ends this agent if the other one that gossip told of does run. Anybody
// with the gossip key can tell of one: it must show the certificate.
func (n *Node) giveWay(ctx context.Context) error {
	m := n.twin.Load()
	if m == nil {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	alike, err := n.link.Alike(within, m.Link)
	if err != nil {
		return fmt.Errorf("whether another agent runs with this one's identity at %s is not known yet: %w", m.Link, err)
	}
	n.twin.CompareAndSwap(m, nil)
	if !alike {
		return nil
	}
	err = writeWhere(n.o.Config.DataDir, n.linkAddr(), m.Link)
	if m.Boot > n.boot && m.Boot < math.MaxInt64 { // others take no earlier start for the present one
		err = errors.Join(err, writeBoot(n.o.Config.DataDir, m.Boot))
	}
	n.fail(errors.Join(errTwin(m.Link), err))
	return nil
}
