package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// NewSiteToken makes the token with which one agent founds the site of an
// intermediate that SignSite made with the root key, and seals the intermediate
// for it: what it returns may be kept by anybody, and is opened by the token only
// (AES-256-GCM).
func NewSiteToken(rootKey []byte, site mesh.Site, made Intermediate) (t Token, sealed []byte, err error) {
	root, err := decodeSigner(rootKey)
	if err != nil {
		return t, nil, fmt.Errorf("the root key: %w", err)
	}
	t = NewToken(root.cert)
	t.Founds = true
	a, err := t.aead()
	if err != nil {
		return t, nil, err
	}
	return t, a.Seal(nil, make([]byte, a.NonceSize()), made, t.bound(site)), nil
}

// aead is what seals. Its key is the token's alone and seals once, so that no
// nonce is needed.
func (t Token) aead() (cipher.AEAD, error) {
	b, err := aes.NewCipher(t.derive("tidemark/seal", 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// bound is what a sealed key belongs to.
func (t Token) bound(site mesh.Site) []byte { return []byte(t.ID + "/" + string(site)) }

// FoundSite makes this node the founder of another site of a mesh: with the key
// that was sealed for the token, it signs its own certificate. c has no Chain.
// after is called when nothing can fail but the disk, before the identity stands.
// After a crash it is done, or nothing is and it may be called again. ErrTaken;
// ErrDamaged where the token does not open what was sealed.
func (f *Folder) FoundSite(t Token, c Credentials, sealed []byte, after func(mesh.NodeID) error) (*Identity, error) {
	now := f.now()
	if now.Before(earliest()) {
		return nil, fmt.Errorf("it says %s: %w", stamp(now), errWrongClock)
	}
	if err := f.free(); err != nil {
		return nil, err
	}
	a, err := t.aead()
	if err != nil {
		return nil, err
	}
	made, err := a.Open(nil, make([]byte, a.NonceSize()), sealed, t.bound(c.Site))
	if err != nil {
		return nil, fmt.Errorf("the key of site %s: %w: the token does not open it", c.Site, ErrDamaged)
	}
	own, err := decodeSigner(made)
	if err != nil {
		return nil, fmt.Errorf("the key of site %s: %w", c.Site, err)
	}
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	if err := c.ofSite(own); err != nil {
		return nil, err
	}
	cert, err := newAgent(own, c.Mesh, c.Site, key.Public().(ed25519.PublicKey), now)
	if err != nil {
		return nil, err
	}
	c.Chain = [][]byte{cert.Raw, own.cert.Raw}
	if err := errors.Join(f.writeSigner(siteFile, own), after(NodeOf(key.Public().(ed25519.PublicKey)))); err != nil {
		return nil, err
	}
	return f.Keep(c)
}

// ofSite checks that a key is of the site and the mesh that were told, before
// anything is signed with it.
func (c Credentials) ofSite(own signer) error {
	root, err := x509.ParseCertificate(c.Root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := (&Identity{mesh: c.Mesh, site: c.Site, root: root}).ownSite(own.cert); err != nil {
		return fmt.Errorf("the key of site %s: %w", c.Site, err)
	}
	return nil
}
