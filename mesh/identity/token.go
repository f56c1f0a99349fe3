package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
)

// Token is a permission to join, as its owner has it. Its text is
// tm1-ID-SECRET-ROOT in letters and digits; the 1 is its kind and version: such
// a token lets agents join and founds nothing.
type Token struct {
	ID     string   // public: 8 letters
	Secret [20]byte // 160 bits; the site keeps only SecretHash of it
	Root   [20]byte // RootHash of the mesh's root
}

const tokenKind = "tm1"

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
	return strings.Join([]string{tokenKind, t.ID, letters().EncodeToString(t.Secret[:]), letters().EncodeToString(t.Root[:])}, "-")
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value { return slog.StringValue("token " + t.ID) }

// SecretHash is the SHA-256 of the secret, which is all that the site keeps.
func (t Token) SecretHash() [32]byte { return sha256.Sum256(t.Secret[:]) }

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
	case !strings.HasPrefix(part[0], "tm"):
		return Token{}, fmt.Errorf("%w: one begins with %s-", ErrToken, tokenKind)
	case part[0] != tokenKind:
		return Token{}, fmt.Errorf("%w: it is of kind %.8q, this program knows %s: upgrade it, or ask for another token", ErrToken, part[0], tokenKind)
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
	t.ID = part[1]
	return t, nil
}
