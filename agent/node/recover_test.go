package node

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/codec"
	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

// newer is a machine of a newer program: it reads every command.
type newer struct{}

func (newer) Apply(uint64, []byte) any        { return nil }
func (newer) Snapshot() func(io.Writer) error { return func(io.Writer) error { return nil } }
func (newer) Restore(io.Reader) error         { return nil }

func entry(t *testing.T) []byte {
	t.Helper()
	b, err := codec.EncodeCommand(&coordinator.Command{Level: 1, SiteFounded: &coordinator.SiteFounded{Mesh: "m", Site: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A log with a command that this program cannot read is not cut by a recovery:
// the program that can read it finds all.
func TestRecoverWithAnOlderProgram(t *testing.T) {
	data := t.TempDir()
	dir := filepath.Join(data, "raft")
	net := simnet.New().New("a", "s")
	n, err := consensus.Open(consensus.Options{Dir: dir, Transport: net, Self: "a", Site: "s", Founder: true, Machine: newer{}, Reserve: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	net.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for l := (consensus.Leadership{}); !l.Leader; {
		select {
		case l = <-n.Leadership():
		case <-ctx.Done():
			t.Fatal("nobody leads")
		}
	}
	for _, c := range [][]byte{entry(t), []byte("of a newer program"), entry(t)} {
		if _, _, err := n.Propose(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(n.Close(), net.Close()); err != nil {
		t.Fatal(err)
	}
	before, err := Left(data)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := Recover(data); err == nil || !strings.Contains(err.Error(), "install the version") {
			t.Errorf("recovered: %v", err)
		}
	}
	after, err := Left(data)
	if err != nil || !reflect.DeepEqual(before, after) {
		t.Errorf("left is %+v, was %+v; %v", after, before, err)
	}
	if made, err := filepath.Glob(filepath.Join(dir, "snapshots", "*")); err != nil || len(made) > 0 {
		t.Errorf("snapshots %v, %v", made, err)
	}
}

// After a command that cannot be read none is applied, and no snapshot written.
func TestUnreadableCommand(t *testing.T) {
	r := newReplica()
	applied, fatal := 0, 0
	r.applied = func(uint64, *coordinator.Command, jobmanager.Result, []jobmanager.Change) { applied++ }
	r.fatal = func(error) { fatal++ }
	r.Apply(1, []byte("of a newer program"))
	if got, _ := r.Apply(2, entry(t)).(jobmanager.Result); got.Err == nil {
		t.Error("the next command is applied")
	}
	if err := r.Snapshot()(io.Discard); err == nil {
		t.Error("a snapshot is written")
	}
	if applied != 0 || fatal != 1 {
		t.Errorf("applied %d, told %d times", applied, fatal)
	}
}
