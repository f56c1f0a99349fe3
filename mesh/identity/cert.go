package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// How long certificates last. An agent's is renewed when a third of its life is
// left: a box that was off for a winter of four months still finds its own
// valid. docs/SECURITY.md has the reasons.
const (
	day       = 24 * time.Hour
	RootLife  = 30 * 365 * day
	SiteLife  = 10 * 365 * day
	AgentLife = 365 * day
	// backdate is how long before its making a certificate is valid, for peers
	// whose clock is behind.
	backdate = day
)

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

// signer is an authority: its certificate and key.
type signer struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// template is what all certificates have.
func template(name *url.URL, common string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] &= 0x7f
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: common}, URIs: []*url.URL{name},
		NotBefore: now.Add(-backdate).UTC(), NotAfter: now.Add(life).UTC(), BasicConstraintsValid: true,
	}, nil
}

func sign(t *x509.Certificate, key crypto.PublicKey, by signer) (*x509.Certificate, error) {
	if t.NotAfter.After(by.cert.NotAfter) {
		t.NotAfter = by.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key, by.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func newRoot(meshName string, now time.Time) (signer, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return signer{}, err
	}
	t, err := template(uri(meshName), "Tidemark mesh "+meshName, now, RootLife)
	if err != nil {
		return signer{}, err
	}
	t.IsCA, t.MaxPathLen, t.KeyUsage = true, 1, x509.KeyUsageCertSign
	cert, err := sign(t, pub, signer{t, key})
	return signer{cert, key}, err
}

// newSite makes a site's intermediate: it can sign agents, and no authorities.
func newSite(root signer, meshName string, site mesh.Site, now time.Time) (signer, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return signer{}, err
	}
	t, err := template(uri(meshName, string(site)), fmt.Sprintf("Tidemark mesh %s site %s", meshName, site), now, SiteLife)
	if err != nil {
		return signer{}, err
	}
	t.IsCA, t.MaxPathLenZero, t.KeyUsage = true, true, x509.KeyUsageCertSign
	cert, err := sign(t, pub, root)
	return signer{cert, key}, err
}

func newAgent(by signer, meshName string, site mesh.Site, key ed25519.PublicKey, now time.Time) (*x509.Certificate, error) {
	node := NodeOf(key)
	t, err := template(uri(meshName, string(site), string(node)), string(node), now, AgentLife)
	if err != nil {
		return nil, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return sign(t, key, by)
}

// newRequest asks for a certificate of a key.
func newRequest(key ed25519.PrivateKey) ([]byte, error) {
	node := NodeOf(key.Public().(ed25519.PublicKey))
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(node)}}, key)
}

// RequestedNode is the node that a certificate request is for: it is signed with
// that node's key. ErrRequest.
func RequestedNode(csr []byte) (mesh.NodeID, error) {
	key, err := requestedKey(csr)
	if err != nil {
		return "", err
	}
	return NodeOf(key), nil
}

func requestedKey(csr []byte) (ed25519.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	key, ok := r.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: its key is a %T, agents have Ed25519", ErrRequest, r.PublicKey)
	}
	return key, nil
}

// RootHash is what a token names a root by: the first 20 bytes of its SHA-256.
func RootHash(root *x509.Certificate) [20]byte {
	d := sha256.Sum256(root.Raw)
	return [20]byte(d[:20])
}

func encodeCerts(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})...)
	}
	return out
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func encodeSigner(s signer) ([]byte, error) {
	key, err := encodeKey(s.key)
	return append(encodeCerts(s.cert), key...), err
}

// decode reads certificates and at most one key. ErrDamaged.
func decode(data []byte) (certs []*x509.Certificate, key ed25519.PrivateKey, err error) {
	for len(data) > 0 {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil, nil, fmt.Errorf("%w: it is not PEM to its end", ErrDamaged)
		}
		switch {
		case b.Type == pemCert:
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			certs = append(certs, c)
		case b.Type == pemKey && key == nil:
			k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			var ok bool
			if key, ok = k.(ed25519.PrivateKey); !ok {
				return nil, nil, fmt.Errorf("%w: the key is a %T, not Ed25519", ErrDamaged, k)
			}
		default:
			return nil, nil, fmt.Errorf("%w: it has a %q", ErrDamaged, b.Type)
		}
	}
	return certs, key, nil
}

// decodeSigner reads an authority and sees that its key is its own.
func decodeSigner(data []byte) (signer, error) {
	certs, key, err := decode(data)
	switch {
	case err != nil:
		return signer{}, err
	case len(certs) != 1 || key == nil:
		return signer{}, fmt.Errorf("%w: it must have one certificate and its key", ErrDamaged)
	case !key.Public().(ed25519.PublicKey).Equal(certs[0].PublicKey):
		return signer{}, fmt.Errorf("%w: its key is not its certificate's", ErrDamaged)
	}
	return signer{certs[0], key}, nil
}
