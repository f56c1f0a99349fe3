package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"fmt"
	"net/url"
	"strings"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// scheme begins the names in certificates: tidemark://MESH is a root,
// tidemark://MESH/SITE a site's intermediate, tidemark://MESH/SITE/NODE an agent.
const scheme = "tidemark"

const maxName = 63

// letters are base32 in lower case: a word that can be read out and typed.
func letters() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// CheckName tells whether a mesh, a site or an agent may be called so: a letter,
// then letters, digits and hyphens, all small, at most 63. ErrName.
func CheckName(what, name string) error {
	ok := len(name) > 0 && len(name) <= maxName && name[0] >= 'a' && name[0] <= 'z' && name[len(name)-1] != '-'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%q as the name of %s: %w: use a small letter, then small letters, digits and hyphens, at most %d, no hyphen last",
			name, what, ErrName, maxName)
	}
	return nil
}

// NodeOf is the node whose key it is: its name is the key's digest (100 bits), so
// nobody can have a certificate for a node without its key, whatever other key
// of the mesh he holds.
func NodeOf(key ed25519.PublicKey) mesh.NodeID {
	d := sha256.Sum256(append([]byte("tidemark node 1\n"), key...))
	return mesh.NodeID("n" + letters().EncodeToString(d[:])[:20])
}

func uri(mesh string, more ...string) *url.URL {
	u := &url.URL{Scheme: scheme, Host: mesh}
	for _, m := range more {
		u.Path += "/" + m
	}
	return u
}

// nameOf is what a certificate of a mesh says that it is: mesh, and site and
// node as far as it has them.
func nameOf(c *x509.Certificate) ([]string, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != scheme || c.URIs[0].RawQuery != "" || c.URIs[0].Fragment != "" || c.URIs[0].User != nil {
		return nil, fmt.Errorf("the certificate of %q is not one of a Tidemark mesh: %w", c.Subject.CommonName, ErrForeign)
	}
	names := []string{c.URIs[0].Host}
	if p := c.URIs[0].Path; p != "" {
		names = append(names, strings.Split(p[1:], "/")...)
	}
	for _, n := range names {
		if CheckName("", n) != nil {
			return nil, fmt.Errorf("the certificate says %q: %w", c.URIs[0], ErrForeign)
		}
	}
	return names, nil
}

// PeerOf is who an agent's certificate says that it is of. It does not check
// whether that is true. ErrForeign.
func PeerOf(c *x509.Certificate) (meshName string, site mesh.Site, node mesh.NodeID, err error) {
	names, err := nameOf(c)
	if err == nil && len(names) != 3 {
		err = fmt.Errorf("the certificate of %s is not an agent's: %w", c.URIs[0], ErrForeign)
	}
	if err != nil {
		return "", "", "", err
	}
	return names[0], mesh.Site(names[1]), mesh.NodeID(names[2]), nil
}
