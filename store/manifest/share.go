package manifest

import (
	"fmt"
	"slices"
)

// Share is what one subtask adds to a manifest: a manifest of its operators with
// its own positions and its own shards only. The shards of the other subtasks are
// there, without parts.
type Share struct {
	Subtask  int
	Manifest Manifest
}

// Assemble puts the shares of all subtasks of a job in m, which says everything
// else. With m.Drained all splits have ended. It refuses shares that do not
// belong together; whether any is missing the caller knows.
func Assemble(m Manifest, shares []Share) (Manifest, error) {
	m.Operators = nil
	for _, s := range shares {
		for _, o := range s.Manifest.Operators {
			if err := m.add(o, s.Subtask); err != nil {
				return m, fmt.Errorf("manifest %q: operator %q: subtask %d: %w", m.Name, o.ID, s.Subtask, err)
			}
		}
	}
	return m, nil
}

func (m *Manifest) add(share Operator, subtask int) error {
	i := slices.IndexFunc(m.Operators, func(o Operator) bool { return o.ID == share.ID })
	if i < 0 {
		i = len(m.Operators)
		m.Operators = append(m.Operators, Operator{ID: share.ID, Parallelism: share.Parallelism})
	}
	o := &m.Operators[i]
	if o.Parallelism != share.Parallelism {
		return fmt.Errorf("it is one of %d, others of %d", share.Parallelism, o.Parallelism)
	}
	for _, p := range share.Positions {
		p.Ended = p.Ended || m.Drained
		o.Positions = append(o.Positions, p)
	}
	for _, t := range share.Tables {
		if err := o.addShard(t, subtask); err != nil {
			return fmt.Errorf("table %q: %w", t.Name, err)
		}
	}
	return nil
}

func (o *Operator) addShard(share Table, subtask int) error {
	own := slices.IndexFunc(share.Shards, func(s Shard) bool { return s.Subtask == subtask })
	if own < 0 {
		return fmt.Errorf("its own shard is not there")
	}
	i := slices.IndexFunc(o.Tables, func(t Table) bool { return t.Name == share.Name })
	if i < 0 {
		i = len(o.Tables)
		t := share
		t.Shards = nil
		o.Tables = append(o.Tables, t)
	}
	t := &o.Tables[i]
	if t.Schema != share.Schema || t.Keyed != share.Keyed || t.Spread != share.Spread || t.Identity != share.Identity {
		return fmt.Errorf("it has other columns than those of the subtasks before it")
	}
	t.Shards = append(t.Shards, share.Shards[own])
	return nil
}
