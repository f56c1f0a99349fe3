package identity

import "errors"

// The kinds of errors. Their texts say what to do.
var (
	ErrNone       = errors.New("no identity yet")
	ErrTaken      = errors.New("the folder has an identity already")
	ErrDamaged    = errors.New("the identity is damaged")
	ErrOpen       = errors.New("others may read a secret")
	ErrName       = errors.New("not a name")
	ErrMesh       = errors.New("of another mesh")
	ErrSite       = errors.New("of another site")
	ErrForeign    = errors.New("not signed by this mesh's authority")
	ErrExpired    = errors.New("expired")
	ErrNotYet     = errors.New("not valid yet")
	ErrNode       = errors.New("another node than the one dialled")
	ErrNoCert     = errors.New("no certificate was shown")
	ErrRefused    = errors.New("refused")
	ErrRequest    = errors.New("not a certificate request of this node")
	ErrNoKey      = errors.New("the key to sign with is not here")
	ErrToken      = errors.New("not a join token")
	ErrPlain      = errors.New("not a finished TLS 1.3 handshake")
	errWrongClock = errors.New("the clock of this machine stands before this program was written: set it first")
)
