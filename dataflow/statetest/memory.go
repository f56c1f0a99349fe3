// Package statetest checks that state is the same whether it is in memory or
// larger than it: one suite against a plain model, for every operator.Backing.
//
// Tests of dataflow/state and of store/statedb run it. Nothing else imports it.
package statetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/operator"
)

// Backing is one under test.
type Backing interface {
	operator.Backing
	Sync(ctx context.Context) error
	Close() error
}

// Memory is a Backing that keeps its entries in memory.
type Memory struct {
	allowed int64
	rows    map[string][]byte
	wants   []string
	got     []string
}

// NewMemory makes one that allows its operator so many bytes.
func NewMemory(allowed int64) *Memory { return &Memory{allowed: allowed, rows: map[string][]byte{}} }

func at(table int, key []byte) string { return string(rune('a'+table)) + string(key) }

// Memory is operator.Backing's.
func (m *Memory) Memory() int64 { return m.allowed }

// Want is operator.Backing's.
func (m *Memory) Want(table int, key []byte) { m.wants = append(m.wants, at(table, key)) }

// Put is operator.Backing's.
func (m *Memory) Put(table int, key, value []byte) {
	if value == nil {
		delete(m.rows, at(table, key))
		return
	}
	m.rows[at(table, key)] = bytes.Clone(value)
}

// Take is operator.Backing's.
func (m *Memory) Take(f func(table int, key, value []byte)) {
	got := m.got
	m.got = nil
	for _, k := range got {
		f(int(k[0]-'a'), []byte(k[1:]), bytes.Clone(m.rows[k]))
	}
}

// Clear is operator.Backing's.
func (m *Memory) Clear(table int) {
	for k := range m.rows {
		if k[0] == byte('a'+table) {
			delete(m.rows, k)
		}
	}
}

// Get is operator.Backing's.
func (m *Memory) Get(table int, key []byte) ([]byte, error) {
	return bytes.Clone(m.rows[at(table, key)]), nil
}

// Scan is operator.Backing's.
func (m *Memory) Scan(table int, f func(key, value []byte) error) error {
	var keys []string
	for k := range m.rows {
		if k[0] == byte('a'+table) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := f([]byte(k[1:]), bytes.Clone(m.rows[k])); err != nil {
			return err
		}
	}
	return nil
}

// Sync reads what is wanted.
func (m *Memory) Sync(context.Context) error {
	slices.Sort(m.wants)
	m.got = append(m.got, slices.Compact(m.wants)...)
	m.wants = nil
	return nil
}

// Close forgets everything.
func (m *Memory) Close() error { return nil }

// CheckBacking compares a Backing with Memory under random use.
func CheckBacking(t *rapid.T, b Backing) {
	m := NewMemory(b.Memory())
	key := rapid.Custom(func(t *rapid.T) []byte {
		return []byte(strings.Repeat("k", rapid.IntRange(1, 3).Draw(t, "len")) + fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "key")))
	})
	table := rapid.IntRange(0, 2)
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		n := table.Draw(t, "table")
		switch rapid.IntRange(0, 9).Draw(t, "what") {
		case 0:
			b.Clear(n)
			m.Clear(n)
		case 1, 2:
			k := key.Draw(t, "want")
			b.Want(n, k)
			m.Want(n, k)
		case 3:
			k := key.Draw(t, "get")
			v, err := b.Get(n, k)
			if w, _ := m.Get(n, k); err != nil || !bytes.Equal(v, w) || (v == nil) != (w == nil) {
				t.Fatalf("get %d %q: %q %v, want %q", n, k, v, err, w)
			}
		case 4:
			if x, y := taken(t, b), taken(t, m); x != y {
				t.Fatalf("taken\n%s\nwant\n%s", x, y)
			}
		case 5:
			if x, y := scanned(t, b, n), scanned(t, m, n); x != y {
				t.Fatalf("scan of %d\n%s\nwant\n%s", n, x, y)
			}
		default:
			k, v := key.Draw(t, "put"), []byte(nil)
			if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
				v = []byte(rapid.StringN(1, 40, 40).Draw(t, "value"))
			}
			b.Put(n, k, v)
			m.Put(n, k, v)
		}
	}
}

func taken(t *rapid.T, b Backing) string {
	if err := b.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	b.Take(func(table int, key, value []byte) { fmt.Fprintf(&s, "%d %q %q %v\n", table, key, value, value == nil) })
	return s.String()
}

func scanned(t *rapid.T, b Backing, table int) string {
	var s strings.Builder
	if err := b.Scan(table, func(key, value []byte) error {
		again, err := b.Get(table, key)
		if err != nil || !bytes.Equal(again, value) {
			t.Fatalf("get %q within a scan: %q, %v", key, again, err)
		}
		fmt.Fprintf(&s, "%q %q\n", key, value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return s.String()
}
