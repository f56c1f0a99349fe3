package codec

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// EncodeToTarget is the bytes of what the source of a move says. It is refused
// unless it says exactly one thing.
func EncodeToTarget(m *coordinator.ToTarget) ([]byte, error) {
	if err := oneToTarget(m); err != nil {
		return nil, fmt.Errorf("codec: %w", err)
	}
	return encodeWhole("message to a target", m)
}

// DecodeToTarget reads what EncodeToTarget wrote.
func DecodeToTarget(data []byte) (*coordinator.ToTarget, error) {
	m, err := decodeWhole[coordinator.ToTarget]("message to a target", data)
	if err == nil {
		if err = oneToTarget(m); err != nil {
			return nil, fmt.Errorf("codec: %w: %w", ErrMalformed, err)
		}
	}
	return m, err
}

// oneToTarget: a verdict is a thing, too.
func oneToTarget(m *coordinator.ToTarget) error {
	n := pointers(m)
	if m.Verdict != 0 {
		n++
	}
	if n != 1 || m.Verdict > coordinator.DecisionFenced {
		return fmt.Errorf("a message to a target says %d things, not one that is known", n)
	}
	return nil
}

// EncodeToSource is the bytes of what the target of a move says.
func EncodeToSource(m *coordinator.ToSource) ([]byte, error) {
	return encode("message to a source", m, MaxMessage)
}

// DecodeToSource reads what EncodeToSource wrote.
func DecodeToSource(data []byte) (*coordinator.ToSource, error) {
	return decode[coordinator.ToSource]("message to a source", data, MaxMessage)
}

// EncodeOwner is the bytes of what sites say of who has a job.
func EncodeOwner(n *coordinator.OwnerNews) ([]byte, error) {
	return encodeWhole("message about an owner", n)
}

// DecodeOwner reads what EncodeOwner wrote.
func DecodeOwner(data []byte) (*coordinator.OwnerNews, error) {
	return decodeWhole[coordinator.OwnerNews]("message about an owner", data)
}
