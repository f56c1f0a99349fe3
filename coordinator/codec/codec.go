package codec

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// Limits. What is larger is not encoded, and not decoded.
const (
	// MaxCommand is how many bytes a command may have. The largest are those of
	// checkpoints: this is room for coordinator.MaxParts on five agents each.
	MaxCommand = 32 << 20
	// MaxMessage is how many bytes a control message may have.
	MaxMessage = 16 << 20
	// MaxSite is that of what sites say to each other: each snapshot can be said as it
	// was taken.
	MaxSite = MaxCommand + 1<<20
	// maxRecord is that of a snapshot's record: what a command brought, grown by
	// the copies of its parts.
	maxRecord = 2 * MaxCommand
)

// The kinds of errors.
var (
	// ErrTooLarge is of what is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrMalformed is of bytes that nobody of this version wrote: damaged, or of a
	// feature level that this program does not know.
	ErrMalformed = errors.New("malformed, or written by a newer program")
)

// modes are made once; they cannot change.
var encMode = sync.OnceValue(func() cbor.EncMode {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	m, err := o.EncMode()
	if err != nil {
		panic(err)
	}
	return m
})

var decMode = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		// A path or the cause of an error may be no UTF-8; it must not end a stream.
		UTF8:             cbor.UTF8DecodeInvalid,
		MaxNestedLevels:  16,
		MaxArrayElements: coordinator.MaxParts,
		MaxMapPairs:      256,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
})

// EncodeCommand is a command's bytes in the Raft log. It is refused if not
// exactly one of its pointers is set.
func EncodeCommand(c *coordinator.Command) ([]byte, error) {
	if err := oneMove(c); err != nil {
		return nil, fmt.Errorf("codec: %w", err)
	}
	return encode("command", c, MaxCommand)
}

// oneMove checks that a command about a move says one thing, too.
func oneMove(c *coordinator.Command) error {
	if c.Move != nil {
		if n := pointers(c.Move); n != 1 {
			return fmt.Errorf("a command about a move says %d things, not one", n)
		}
	}
	return nil
}

// DecodeCommand reads what EncodeCommand wrote. An agent that cannot read a
// committed command must apply no other: it would not be like the others.
func DecodeCommand(data []byte) (*coordinator.Command, error) {
	c, err := decode[coordinator.Command]("command", data, MaxCommand)
	if err == nil {
		if err = oneMove(c); err != nil {
			return nil, fmt.Errorf("codec: a command is %w: %w", ErrMalformed, err)
		}
	}
	return c, err
}

// EncodeToLeader is the bytes of an agent's message.
func EncodeToLeader(m *coordinator.ToLeader) ([]byte, error) {
	return encode("message to the leader", m, MaxMessage)
}

// DecodeToLeader reads what EncodeToLeader wrote.
func DecodeToLeader(data []byte) (*coordinator.ToLeader, error) {
	return decode[coordinator.ToLeader]("message to the leader", data, MaxMessage)
}

// EncodeToAgent is the bytes of a leader's message.
func EncodeToAgent(m *coordinator.ToAgent) ([]byte, error) {
	return encode("message to an agent", m, MaxMessage)
}

// DecodeToAgent reads what EncodeToAgent wrote.
func DecodeToAgent(data []byte) (*coordinator.ToAgent, error) {
	return decode[coordinator.ToAgent]("message to an agent", data, MaxMessage)
}

func encode[T any](what string, v *T, limit int) ([]byte, error) {
	if n := pointers(v); n != 1 {
		return nil, fmt.Errorf("codec: a %s says %d things, not one", what, n)
	}
	return encodeUpTo(what, v, limit)
}

// encodeUpTo refuses what nobody would decode.
func encodeUpTo[T any](what string, v *T, limit int) ([]byte, error) {
	data, err := encMode().Marshal(v)
	switch {
	case err != nil:
		return nil, fmt.Errorf("codec: a %s: %w", what, err)
	case len(data) > limit:
		return nil, fmt.Errorf("codec: a %s has %d bytes, at most %d are possible: %w", what, len(data), limit, ErrTooLarge)
	}
	if err := decMode().Wellformed(data); err != nil {
		return nil, fmt.Errorf("codec: a %s is %w: %w", what, ErrTooLarge, err)
	}
	return data, nil
}

func decode[T any](what string, data []byte, limit int) (*T, error) {
	if len(data) > limit {
		return nil, fmt.Errorf("codec: a %s has %d bytes, at most %d are possible: %w", what, len(data), limit, ErrTooLarge)
	}
	v := new(T)
	if err := strictly(data, v); err != nil {
		return nil, fmt.Errorf("codec: a %s is %w: %w", what, ErrMalformed, err)
	}
	if n := pointers(v); n != 1 {
		return nil, fmt.Errorf("codec: a %s is %w: it says %d things, not one", what, ErrMalformed, n)
	}
	return v, nil
}

var errOther = errors.New("it is not encoded as this version does it")

// strictly decodes bytes that are the one encoding of their value.
func strictly(data []byte, v any) error {
	if err := decMode().Unmarshal(data, v); err != nil {
		return err
	}
	again, err := encMode().Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errOther
	}
	return nil
}

// pointers counts the fields of a struct that are pointers and set.
func pointers(v any) (n int) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			n++
		}
	}
	return n
}
