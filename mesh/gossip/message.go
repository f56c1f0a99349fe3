package gossip

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// facts are what travels with each sign of life: everything but the labels. They
// must fit into memberlist's 512 bytes.
type facts struct {
	Node    mesh.NodeID `cbor:"1,keyasint"`
	Boot    uint64      `cbor:"2,keyasint"`
	Name    string      `cbor:"3,keyasint"`
	Site    mesh.Site   `cbor:"4,keyasint"`
	Link    string      `cbor:"5,keyasint"`
	HTTP    string      `cbor:"6,keyasint,omitempty"`
	Host    string      `cbor:"7,keyasint,omitempty"`
	Slots   int         `cbor:"8,keyasint,omitempty"`
	Version string      `cbor:"9,keyasint,omitempty"`
	Level   uint32      `cbor:"10,keyasint,omitempty"`
	Leaving bool        `cbor:"11,keyasint,omitempty"` // what follows is no failure
	Change  uint64      `cbor:"12,keyasint,omitempty"` // of its labels
}

// labels are too long for facts: they are told by broadcast, and in every
// exchange of states between two members. facts.Change shows whose are missing.
type labels struct {
	Node   mesh.NodeID       `cbor:"1,keyasint"`
	Boot   uint64            `cbor:"2,keyasint"`
	Change uint64            `cbor:"3,keyasint"` // counted from 1 in each boot
	Labels map[string]string `cbor:"4,keyasint,omitempty"`
}

// newer tells whether a is later than b.
func (a labels) newer(b labels) bool {
	return a.Boot > b.Boot || a.Boot == b.Boot && a.Change > b.Change
}

// Bounds of what others may make us hold.
const (
	maxMembers   = 1024 // known at a time, those that are gone with them
	maxGone      = 256  // failed and left ones that are remembered: the newest
	maxLabels    = 64
	maxWord      = 63
	maxAddress   = 127
	maxBroadcast = 1024 // bytes: longer labels wait for an exchange of states
)

var encMode = sync.OnceValue(func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
})

var decMode = sync.OnceValue(func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxArrayElements: maxMembers, MaxMapPairs: maxLabels, MaxNestedLevels: 4,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
})

// ErrMember is the kind of what cannot be a member.
var ErrMember = errors.New("cannot be a member")

func (f *facts) check() error {
	for _, w := range []string{string(f.Node), f.Name, string(f.Site), f.Host, f.Version} {
		if len(w) > maxWord {
			return fmt.Errorf("%w: %.64q has more than %d bytes", ErrMember, w, maxWord)
		}
	}
	for _, a := range []string{f.Link, f.HTTP} {
		if len(a) > maxAddress {
			return fmt.Errorf("%w: the address %.128q has more than %d bytes", ErrMember, a, maxAddress)
		}
	}
	if f.Node == "" || f.Boot == 0 {
		return fmt.Errorf("%w: without node or boot", ErrMember)
	}
	return nil
}

func (l *labels) check() error {
	if len(l.Node) > maxWord || len(l.Labels) > maxLabels {
		return fmt.Errorf("%w: %d labels", ErrMember, len(l.Labels))
	}
	for k, v := range l.Labels {
		if len(k) > maxWord || len(v) > maxWord {
			return fmt.Errorf("%w: the label %.64q has more than %d bytes", ErrMember, k, maxWord)
		}
	}
	return nil
}

// factsOf are those of a member, and their bytes.
func factsOf(m mesh.Member, change uint64, leaving bool) ([]byte, error) {
	f := facts{m.Node, m.Boot, m.Name, m.Site, m.Link, m.HTTP, m.Host, m.Slots, m.Version, m.Level, leaving, change}
	l := labels{Labels: m.Labels}
	if err := errors.Join(f.check(), l.check()); err != nil {
		return nil, err
	}
	data, err := encMode().Marshal(f)
	if err == nil && len(data) > maxFacts-2 && !leaving { // which takes 2
		err = fmt.Errorf("%w: names and addresses take %d bytes together, at most %d: shorten them", ErrMember, len(data), maxFacts-2)
	}
	return data, err
}

const maxFacts = 512 // memberlist.MetaMaxSize: more than that ends the process

func readFacts(data []byte) (f facts, err error) {
	if len(data) > maxFacts {
		return f, fmt.Errorf("%w: %d bytes", ErrMember, len(data))
	}
	if err := decMode().Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrMember, err)
	}
	return f, f.check()
}

func readLabels(data []byte) (l labels, err error) {
	if err := decMode().Unmarshal(data, &l); err != nil {
		return l, fmt.Errorf("%w: %w", ErrMember, err)
	}
	return l, l.check()
}

func readStates(data []byte) (all []labels, err error) {
	if err := decMode().Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMember, err)
	}
	for i := range all {
		if err := all[i].check(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// lifeName is a member's name in memberlist: a node that starts anew is another
// one there, so nobody refuses its new address.
func lifeName(node mesh.NodeID, boot uint64) string {
	return string(node) + "-" + strconv.FormatUint(boot, 36)
}

// lifeOf is the inverse of lifeName.
func lifeOf(name string) (mesh.NodeID, uint64, bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 1 {
		return "", 0, false
	}
	boot, err := strconv.ParseUint(name[i+1:], 36, 64)
	return mesh.NodeID(name[:i]), boot, err == nil
}
