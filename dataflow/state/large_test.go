package state

import (
	"testing"
	"unsafe"

	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

// A key table tells of its entries and cells when they have become large, where
// they are at last; and of nothing while it is small.
func TestKeyTableTellsOfLargeMemory(t *testing.T) {
	p := batch.NewPool(0, nil)
	table := NewKeyTable([]batch.Type{batch.String})
	told := make(map[*byte]int)
	table.TellLarge(func(m []byte) {
		if len(m) < LargeBytes {
			t.Fatalf("%d bytes are told of", len(m))
		}
		told[unsafe.SliceData(m)] = len(m)
	})
	ids, positions := make([]int32, 4000), make([]int32, 4000)
	for i := range positions {
		positions[i] = int32(i)
	}
	for n := 0; cap(table.cells())*32 < 2*LargeBytes || len(table.entries)*8 < LargeBytes; n += len(ids) {
		if small := table.Bytes() < LargeBytes; small && len(told) > 0 {
			t.Fatalf("%d keys, and memory is told of", n)
		}
		b := numbered(p, n, len(ids))
		table.Lookup(b.Cols, positions, b.Hashes, ids)
		table.HoldAll(ids)
		b.Release()
	}
	for name, at := range map[string]*byte{
		"entries": (*byte)(unsafe.Pointer(unsafe.SliceData(table.entries))), "cells": (*byte)(unsafe.Pointer(unsafe.SliceData(table.cells()))),
	} {
		if told[at] == 0 {
			t.Errorf("nothing is told of the %s", name)
		}
	}
}

func (t *KeyTable) cells() []cell { return t.cols[0].cells }
