package join

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// protocol is the version of the messages.
const protocol = 1

// Bounds of what a stranger may send.
const (
	maxMessage = 64 << 10
	maxMembers = 64 // addresses in an answer: enough to find the others through
	maxName    = 63
	maxAddress = 255
	maxWhy     = 1024
	maxSealed  = 4096
)

// request is what an applicant sends: a length of 4 bytes, big endian, then CBOR.
type request struct {
	Protocol int         `cbor:"1,keyasint"`
	Token    string      `cbor:"2,keyasint,omitempty"` // its id; empty: a renewal
	Secret   []byte      `cbor:"3,keyasint,omitempty"`
	Node     mesh.NodeID `cbor:"4,keyasint"`
	Name     string      `cbor:"5,keyasint"`
	CSR      []byte      `cbor:"6,keyasint"`
	Version  string      `cbor:"7,keyasint,omitempty"`
	Level    uint32      `cbor:"8,keyasint,omitempty"`
	Link     string      `cbor:"9,keyasint,omitempty"`  // host:port of QUIC; empty: not known yet
	Site     mesh.Site   `cbor:"10,keyasint,omitempty"` // that it wants to join; empty: any
}

// answer is a grant, or the reason why there is none.
type answer struct {
	Protocol int    `cbor:"1,keyasint"`
	Code     int    `cbor:"2,keyasint,omitempty"` // 0: granted
	Why      string `cbor:"3,keyasint,omitempty"`
	Grant    *Grant `cbor:"4,keyasint,omitempty"`
}

// Grant is what a joiner gets. The certificates are DER.
type Grant struct {
	Mesh    string    `cbor:"1,keyasint"`
	Site    mesh.Site `cbor:"2,keyasint"`
	Chain   [][]byte  `cbor:"3,keyasint"` // of the agent, then of its site
	Root    []byte    `cbor:"4,keyasint"`
	Gossip  []byte    `cbor:"5,keyasint,omitempty"` // key; not in a renewal
	Members []Contact `cbor:"6,keyasint,omitempty"` // at most 64; who founds a site gets those of other sites
	// Sealed is the key of the site that the joiner founds, for its token to open;
	// there is no Chain then: it signs its own. Empty: it founds none.
	Sealed []byte `cbor:"7,keyasint,omitempty"`
}

// Contact is where a member is.
type Contact struct {
	Node   mesh.NodeID `cbor:"1,keyasint"`
	Link   string      `cbor:"2,keyasint"` // host:port of QUIC
	Gossip string      `cbor:"3,keyasint"` // host:port of gossip
	// Site is set where it is another one than the joiner's; Gossip is of all sites then.
	Site mesh.Site `cbor:"4,keyasint,omitempty"`
}

// Credentials are the grant as identity.Folder keeps it.
func (g Grant) Credentials() identity.Credentials {
	return identity.Credentials{Mesh: g.Mesh, Site: g.Site, Chain: g.Chain, Root: g.Root, Gossip: g.Gossip}
}

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
		MaxArrayElements: 128, MaxMapPairs: 128, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
})

func write(w io.Writer, message any) error {
	data, err := encMode().Marshal(message)
	if err != nil {
		return err
	}
	if len(data) > maxMessage {
		return fmt.Errorf("%w: a message of %d bytes", ErrProtocol, len(data))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

func read(r io.Reader, message any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("%w: a message of %d bytes", ErrProtocol, n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return err
	}
	if err := decMode().Unmarshal(data, message); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return nil
}

// check bounds what a request says. ErrProtocol, ErrRequest.
func (r *request) check() error {
	switch {
	case r.Protocol != protocol:
		return fmt.Errorf("%w: version %d of the messages, this agent knows %d: upgrade the older one", ErrProtocol, r.Protocol, protocol)
	case len(r.Token) > maxName || !plain(r.Token), r.Token != "" && len(r.Secret) != len(identity.Token{}.Secret):
		return fmt.Errorf("%w: the token has another form", ErrProtocol)
	case r.Name == "" || len(r.Name) > maxName || !plain(r.Name):
		return fmt.Errorf("%w: the agent's name %.64q must have 1 to %d printable characters", ErrRequest, r.Name, maxName)
	case len(r.Version) > maxName || !plain(r.Version):
		return fmt.Errorf("%w: the version %.64q", ErrRequest, r.Version)
	case len(r.Link) > maxAddress || !plain(r.Link):
		return fmt.Errorf("%w: the address %.64q", ErrRequest, r.Link)
	case len(r.Site) > maxName || !plain(string(r.Site)):
		return fmt.Errorf("%w: the site %.64q", ErrRequest, string(r.Site))
	}
	node, err := identity.RequestedNode(r.CSR)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if node != r.Node {
		return fmt.Errorf("%w: it says node %.32q, but its key is that of %s: a node cannot be another one's", ErrRequest, string(r.Node), node)
	}
	return nil
}

// check bounds what an answer says.
func (a *answer) check() error {
	if a.Protocol != protocol || len(a.Why) > maxWhy || (a.Code == 0) != (a.Grant != nil) || a.Code < 0 {
		return fmt.Errorf("%w: an answer of version %d, code %d", ErrProtocol, a.Protocol, a.Code)
	}
	if a.Grant == nil {
		return nil
	}
	if n := len(a.Grant.Members); n > maxMembers {
		return fmt.Errorf("%w: %d members", ErrProtocol, n)
	}
	if n := len(a.Grant.Sealed); n > maxSealed || n > 0 && len(a.Grant.Chain) > 0 {
		return fmt.Errorf("%w: a sealed key of %d bytes, and %d certificates", ErrProtocol, n, len(a.Grant.Chain))
	}
	for _, m := range a.Grant.Members {
		if len(m.Node) > maxName || len(m.Link) > maxAddress || len(m.Gossip) > maxAddress {
			return fmt.Errorf("%w: a long address", ErrProtocol)
		}
	}
	return nil
}

// plain tells whether a stranger's word can stand in a log.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// The kinds of refusals: the same on both sides.
var (
	ErrToken       = errors.New("no such token, or its secret is another")
	ErrExpired     = errors.New("the token has expired: make a new one with `tidemark token create`, or `tidemark site create` if it is to found a site")
	ErrRevoked     = errors.New("the token was revoked: ask for another")
	ErrUsed        = errors.New("the token is used up: make a new one with `tidemark token create`, or `tidemark site create` if it is to found a site")
	ErrRequest     = errors.New("a request that cannot be granted")
	ErrProtocol    = errors.New("not understood")
	ErrRemoved     = errors.New("the node was removed from the site")
	ErrUnavailable = errors.New("not possible at the moment: try again, or with another agent")
)

// codes number the kinds in answers. They are never renumbered.
var codes = [...]error{1: ErrToken, 2: ErrExpired, 3: ErrRevoked, 4: ErrUsed, 5: ErrRequest, 6: ErrProtocol, 7: ErrRemoved, 8: ErrUnavailable}

// refusal is the answer to an error. What is of no kind is not told to a
// stranger: only that it is not possible.
func refusal(err error) *answer {
	for code, kind := range codes {
		if kind != nil && errors.Is(err, kind) {
			return &answer{Protocol: protocol, Code: code, Why: clip(err.Error())}
		}
	}
	return refusal(ErrUnavailable)
}

// Code is the code of an error's kind in messages: ErrUnavailable's, if it is of none.
func Code(err error) int { return refusal(err).Code }

// Kind is the kind that a code says: ErrUnavailable, if none has it.
func Kind(code int) error {
	if code <= 0 || code >= len(codes) {
		return ErrUnavailable
	}
	return codes[code]
}

func clip(s string) string {
	if len(s) > maxWhy {
		s = s[:maxWhy]
	}
	return s
}

// err is what a refusal says.
func (a *answer) err() error {
	kind := Kind(a.Code)
	if !plain(a.Why) || a.Why == "" || a.Why == kind.Error() {
		return &Refused{kind, kind.Error()}
	}
	return &Refused{kind, a.Why}
}

// Refused is the other side's reason; it is of the kind that it names.
type Refused struct {
	kind error
	why  string
}

func (r *Refused) Error() string { return "refused by the agent that answered: " + r.why }

// Unwrap is the kind.
func (r *Refused) Unwrap() error { return r.kind }
