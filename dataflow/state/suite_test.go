package state_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/statetest"
)

func inMemory(*rapid.T, int64) statetest.Backing { return nil }

func backed(_ *rapid.T, memory int64) statetest.Backing { return statetest.NewMemory(memory) }

// TestStateInMemory: what a store in memory holds is what a model holds.
func TestStateInMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { statetest.Check(t, inMemory) })
}

// TestStateBacked: the same for one that keeps little in memory.
func TestStateBacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { statetest.Check(t, backed) })
}

// TestStateEitherWay: and across changes from one to the other.
func TestStateEitherWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { statetest.Check(t, inMemory, backed) })
}
