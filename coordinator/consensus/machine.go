package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// Machine is the replicated state machine: the same commands in the same order
// make the same state on all nodes. One goroutine at a time calls it; the
// function that Snapshot returns runs beside the others.
type Machine interface {
	// Apply applies a committed command. What it returns goes to who proposed it,
	// on that node only. It must not block for long: elections go on meanwhile, but
	// nothing else is applied. It may keep command, and never changes it.
	Apply(index uint64, command []byte) any
	// Snapshot takes the state as it is now and returns at once; the function
	// writes that state, while later commands are applied.
	Snapshot() func(io.Writer) error
	// Restore replaces the state by one that Snapshot's function wrote. After an
	// error the state is not used.
	Restore(io.Reader) error
}

// fsm is a Machine as the library wants it.
type fsm struct {
	machine Machine
	applied atomic.Uint64 // the last command's index
}

var (
	_ raft.FSM                = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

// Apply applies an entry.
func (f *fsm) Apply(l *raft.Log) any {
	result := f.machine.Apply(l.Index, l.Data)
	f.applied.Store(l.Index)
	return result
}

// StoreConfiguration is there so that the library counts entries about members
// as applied: it makes no snapshot while the last one is not.
func (f *fsm) StoreConfiguration(uint64, raft.Configuration) {}

// Snapshot takes the state.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &image{f.applied.Load(), f.machine.Snapshot()}, nil
}

// Restore replaces the state.
func (f *fsm) Restore(r io.ReadCloser) error {
	head := make([]byte, len(imageMagic)+8)
	if _, err := io.ReadFull(r, head); err != nil {
		return fmt.Errorf("%w: not a snapshot: %w", ErrCorrupt, err)
	}
	if magic := head[:len(imageMagic)]; string(magic) != imageMagic {
		return fmt.Errorf("%w: not a snapshot: it begins with %q", ErrCorrupt, magic)
	}
	if err := f.machine.Restore(r); err != nil {
		return err
	}
	f.applied.Store(binary.BigEndian.Uint64(head[len(imageMagic):]))
	return nil
}

// imageMagic begins a snapshot's state; then the index of its last command
// follows in eight bytes, then what the machine wrote.
const imageMagic = "TMSM1"

// image is the state at a moment.
type image struct {
	applied uint64
	write   func(io.Writer) error
}

// Persist writes it.
func (i *image) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(binary.BigEndian.AppendUint64([]byte(imageMagic), i.applied))
	if err == nil {
		err = i.write(sink)
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release ends it.
func (i *image) Release() {}
