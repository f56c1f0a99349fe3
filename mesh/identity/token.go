package identity

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
)

// Token is a permission to join, as its owner has it. Its text is
// tm1-ID-SECRET-ROOT in letters and digits; the 1 is its version: such a token
// lets agents join and founds nothing. One that begins with ts1 lets one agent
// found another site, and join none.
type Token struct {
	ID     string   // public: 8 letters
	Secret [20]byte // 160 bits; the site keeps only SecretHash of it
	Root   [20]byte // RootHash of the mesh's root
	Founds bool     // another site
}

const (
	joinKind  = "tm1"
	foundKind = "ts1"
)

// NewToken makes a token for the mesh of root.
func NewToken(root *x509.Certificate) Token {
	var id [5]byte
	t := Token{Root: RootHash(root)}
	// Read fills the slice or ends the process.
	_, _ = rand.Read(id[:])
	_, _ = rand.Read(t.Secret[:])
	t.ID = letters().EncodeToString(id[:])
	return t
}

// String is the token with its secret: for its owner's eyes only.
func (t Token) String() string {
	kind := joinKind
	if t.Founds {
		kind = foundKind
	}
	return strings.Join([]string{kind, t.ID, letters().EncodeToString(t.Secret[:]), letters().EncodeToString(t.Root[:])}, "-")
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue("token " + t.ID) }

// Shown is what an applicant shows of the secret. Of one that founds a site it is
// derived: the other part of it opens the site's key, which is for nobody's eyes
// on the way.
func (t Token) Shown() [20]byte {
	if !t.Founds {
		return t.Secret
	}
	return [20]byte(t.derive("tidemark/shown", 20))
}

// derive is a key of its own for a purpose: HKDF (RFC 5869) with SHA-256.
func (t Token) derive(purpose string, bytes int) []byte {
	key, err := hkdf.Key(sha256.New, t.Secret[:], nil, purpose, bytes)
	if err != nil {
		panic(err) // it is long enough for what is asked
	}
	return key
}

// SecretHash is the SHA-256 of what is shown, which is all that the site keeps.
func (t Token) SecretHash() [32]byte {
	shown := t.Shown()
	return sha256.Sum256(shown[:])
}

// SameSecret compares two SecretHashes in constant time.
func SameSecret(a, b []byte) bool {
	return len(a) == sha256.Size && subtle.ConstantTimeCompare(a, b) == 1
}

// ParseToken reads what String wrote. Errors do not repeat the token. ErrToken.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	if len(s) > 128 {
		return Token{}, fmt.Errorf("%w: it has %d characters", ErrToken, len(s))
	}
	part := strings.Split(s, "-")
	switch {
	case !strings.HasPrefix(part[0], "tm") && !strings.HasPrefix(part[0], "ts"):
		return Token{}, fmt.Errorf("%w: one begins with %s- or %s-", ErrToken, joinKind, foundKind)
	case part[0] != joinKind && part[0] != foundKind:
		return Token{}, fmt.Errorf("%w: it is of kind %.8q, this program knows %s and %s: upgrade it, or ask for another token", ErrToken, part[0], joinKind, foundKind)
	case len(part) != 4:
		return Token{}, fmt.Errorf("%w: it has %d parts instead of 4: was it cut?", ErrToken, len(part))
	}
	var t Token
	var id [5]byte
	for i, to := range [][]byte{id[:], t.Secret[:], t.Root[:]} {
		got, err := letters().DecodeString(part[i+1])
		if err != nil || len(got) != len(to) || letters().EncodeToString(got) != part[i+1] {
			return Token{}, fmt.Errorf("%w: its part %d is not %d letters of a-z and 2-7: was it cut?", ErrToken, i+2, len(to)*8/5)
		}
		copy(to, got)
	}
	t.ID, t.Founds = part[1], part[0] == foundKind
	return t, nil
}
