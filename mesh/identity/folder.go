package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/store"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// The files of DATA/identity, each replaced in one step. agentFile is written
// last: without it there is no identity, whatever else is there.
const (
	keyFile    = "agent.key"  // born with the folder, never replaced: the node's name is its digest
	agentFile  = "agent.pem"  // certificates: agent, site, root
	gossipFile = "gossip.key" // 32 bytes, in letters
	siteFile   = "site.pem"   // the site's certificate and key: of voters only
	rootFile   = "root.key"   // the root's certificate and key: of the founder, until taken offline
	seenFile   = "seen"       // the newest time seen; may be removed
)

const gossipBytes = 32

// Folder is DATA/identity of one agent. One goroutine at a time.
type Folder struct {
	files
	now func() time.Time
}

// Credentials are what a joining agent is given. The certificates are DER.
type Credentials struct {
	Mesh   string
	Site   mesh.Site
	Chain  [][]byte // of the agent, then of its site
	Root   []byte
	Gossip []byte // key, 32 bytes
}

// Intermediate is a site's certificate and key in PEM. Who has it can make
// agents of the site: it goes to voters only, over mutual TLS only.
type Intermediate []byte

// LogValue keeps the key out of logs.
func (Intermediate) LogValue() slog.Value { return slog.StringValue("the key of a site") }

// OpenFolder uses dir of fsys; nothing is made yet. now is the machine's clock.
func OpenFolder(fsys store.FS, dir string, now func() time.Time) *Folder {
	return &Folder{files: files{fsys, dir}, now: now}
}

// Node is the folder's node. The first call makes it, durably: it is the same
// ever after.
func (f *Folder) Node() (mesh.NodeID, error) {
	key, err := f.key()
	if err != nil {
		return "", err
	}
	return NodeOf(key.Public().(ed25519.PublicKey)), nil
}

// Request asks for a certificate of the folder's node: PKCS #10, DER.
func (f *Folder) Request() ([]byte, error) {
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	return newRequest(key)
}

func (f *Folder) key() (ed25519.PrivateKey, error) {
	data, err := f.read(keyFile, true)
	switch {
	case err == nil:
		certs, key, err := decode(data)
		if err == nil && (key == nil || len(certs) > 0) {
			err = ErrDamaged
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w: put it back from a backup; without it this is another node: move the folder away and join again", f.path(keyFile), err)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if _, err := f.fs.Stat(f.path(agentFile)); err == nil {
		return nil, fmt.Errorf("%s is not there, but its certificate is: %w: put it back from a backup; without it this is another node: move the folder away and join again",
			f.path(keyFile), ErrDamaged)
	}
	if err := disk.MkdirAll(f.fs, f.dir); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if data, err = encodeKey(key); err != nil {
		return nil, err
	}
	return key, f.write(keyFile, data)
}

// free refuses a folder that has an identity.
func (f *Folder) free() error {
	switch _, err := f.fs.Stat(f.path(agentFile)); {
	case err == nil:
		return fmt.Errorf("%s: %w: to leave that mesh for good, move the folder away", f.dir, ErrTaken)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return f.removeTemporary()
}

// earliest is before the first version of this program: a clock before it is
// wrong.
func earliest() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// Found makes a mesh and its first site, with this node as its founder. After a
// crash it is done, or nothing is and it may be called again. ErrTaken.
func (f *Folder) Found(meshName string, site mesh.Site) (*Identity, error) {
	if err := errors.Join(CheckName("a mesh", meshName), CheckName("a site", string(site))); err != nil {
		return nil, err
	}
	now := f.now()
	if now.Before(earliest()) {
		return nil, fmt.Errorf("it says %s: %w", stamp(now), errWrongClock)
	}
	if err := f.free(); err != nil {
		return nil, err
	}
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	root, err := newRoot(meshName, now)
	if err != nil {
		return nil, err
	}
	own, err := newSite(root, meshName, site, now)
	if err != nil {
		return nil, err
	}
	cert, err := newAgent(own, meshName, site, key.Public().(ed25519.PublicKey), now)
	if err != nil {
		return nil, err
	}
	gossip := make([]byte, gossipBytes)
	if _, err := rand.Read(gossip); err != nil {
		return nil, err
	}
	if err := errors.Join(f.writeSigner(rootFile, root), f.writeSigner(siteFile, own)); err != nil {
		return nil, err
	}
	return f.Keep(Credentials{Mesh: meshName, Site: site, Chain: [][]byte{cert.Raw, own.cert.Raw}, Root: root.cert.Raw, Gossip: gossip})
}

func (f *Folder) writeSigner(name string, s signer) error {
	data, err := encodeSigner(s)
	if err != nil {
		return err
	}
	return f.write(name, data)
}

// Keep makes what a join brought the folder's identity. An agent whose
// certificate has expired may join its own mesh and site again. After a crash it
// is done or not. ErrTaken.
func (f *Folder) Keep(c Credentials) (*Identity, error) {
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	chain, root, err := c.parse()
	if err != nil {
		return nil, err
	}
	if old, err := f.certs(); err == nil {
		if _, site, _, err := PeerOf(old[0]); err != nil || site != c.Site || !old[2].Equal(root) {
			return nil, f.free()
		}
	}
	if len(c.Gossip) != gossipBytes {
		return nil, fmt.Errorf("the gossip key has %d bytes instead of %d: %w", len(c.Gossip), gossipBytes, ErrDamaged)
	}
	id := &Identity{folder: f, mesh: c.Mesh, site: c.Site, root: root, key: key, gossip: [gossipBytes]byte(c.Gossip), chain: chain}
	id.node = NodeOf(key.Public().(ed25519.PublicKey))
	if err := id.own(chain); err != nil {
		return nil, err
	}
	if err := f.forgetOther(id); err != nil {
		return nil, err
	}
	if err := f.write(gossipFile, []byte(letters().EncodeToString(c.Gossip)+"\n")); err != nil {
		return nil, err
	}
	if err := f.write(agentFile, encodeCerts(append(slices.Clone(chain), root)...)); err != nil {
		return nil, err
	}
	return f.Load()
}

// forgetOther removes the keys of a mesh whose founding a crash ended.
func (f *Folder) forgetOther(id *Identity) error {
	for name, ours := range map[string]func(signer) bool{
		rootFile: func(s signer) bool { return s.cert.Equal(id.root) },
		siteFile: func(s signer) bool { return id.ownSite(s.cert) == nil },
	} {
		data, err := f.read(name, true)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if s, err := decodeSigner(data); err == nil && ours(s) {
			continue
		}
		if err := f.fs.Remove(f.path(name)); err != nil {
			return err
		}
	}
	return f.fs.SyncDir(f.dir)
}

func (c Credentials) parse() (chain []*x509.Certificate, root *x509.Certificate, err error) {
	for _, der := range append(slices.Clone(c.Chain), c.Root) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) != 3 {
		return nil, nil, fmt.Errorf("%w: %d certificates instead of those of agent, site and root", ErrDamaged, len(chain))
	}
	return chain[:2], chain[2], nil
}

// certs are the certificates of agent, site and root.
func (f *Folder) certs() ([]*x509.Certificate, error) {
	data, err := f.read(agentFile, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: found a mesh with `tidemark init`, or join one with --join and --token", f.dir, ErrNone)
	}
	if err != nil {
		return nil, err
	}
	certs, key, err := decode(data)
	if err == nil && (len(certs) != 3 || key != nil) {
		err = fmt.Errorf("%w: it must have the certificates of agent, site and root", ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: put it back from a backup, or remove it and join again with a new token", f.path(agentFile), err)
	}
	return certs, nil
}

// Load reads the identity and checks that its parts belong together. ErrNone,
// ErrDamaged, ErrOpen, ErrExpired (join again with a token: the node stays the
// same); each says how to mend.
func (f *Folder) Load() (*Identity, error) {
	certs, err := f.certs()
	if err != nil {
		return nil, err
	}
	if err := f.removeTemporary(); err != nil {
		return nil, err
	}
	key, err := f.key()
	if err != nil {
		return nil, err
	}
	meshName, site, _, err := PeerOf(certs[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", f.path(agentFile), ErrDamaged, err)
	}
	id := &Identity{folder: f, mesh: meshName, site: site, root: certs[2], key: key, chain: certs[:2]}
	id.node = NodeOf(key.Public().(ed25519.PublicKey))
	if err := id.own(id.chain); err != nil {
		return nil, fmt.Errorf("%s: %w: %w: put it back from a backup, or remove it and join again with a new token", f.path(agentFile), ErrDamaged, err)
	}
	if err := f.loadGossip(id); err != nil {
		return nil, err
	}
	if err := f.loadSite(id); err != nil {
		return nil, err
	}
	f.loadSeen(id)
	if t := id.Now(); t.After(id.chain[0].NotAfter) {
		return nil, fmt.Errorf("%s: this agent's certificate %w on %s, and %s: if the clock is right, join again with a new token (the node stays the same)",
			f.path(agentFile), ErrExpired, stamp(id.chain[0].NotAfter), id.clock(t))
	}
	return id, nil
}

func (f *Folder) loadGossip(id *Identity) error {
	data, err := f.read(gossipFile, true)
	if errors.Is(err, ErrOpen) {
		return err
	}
	var key []byte
	if err == nil {
		key, err = letters().DecodeString(strings.TrimSpace(string(data)))
	}
	if err == nil && len(key) != gossipBytes {
		err = fmt.Errorf("it has %d bytes instead of %d", len(key), gossipBytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w: copy it from another agent of the mesh, or join again with a new token", f.path(gossipFile), ErrDamaged, err)
	}
	id.gossip = [gossipBytes]byte(key)
	return nil
}

// loadSite reads the site's key, if it is here.
func (f *Folder) loadSite(id *Identity) error {
	data, err := f.read(siteFile, true)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, ErrOpen):
		return err
	}
	var s signer
	if err == nil {
		s, err = decodeSigner(data)
	}
	if err == nil {
		err = id.ownSite(s.cert)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w: remove it; the site's other voters give it again", f.path(siteFile), ErrDamaged, err)
	}
	id.signer = &s
	return nil
}

// loadSeen reads the newest time seen; what cannot be read is forgotten, for it
// only helps.
func (f *Folder) loadSeen(id *Identity) {
	data, err := f.read(seenFile, false)
	if err != nil {
		return
	}
	if t, err := time.Parse(time.RFC3339+"\n", string(data)); err == nil {
		id.seen = t
	}
}

// RootKey is the root's certificate and key in PEM: what `site create` needs.
// ErrNoKey when it was taken offline.
func (f *Folder) RootKey() ([]byte, error) {
	data, err := f.read(rootFile, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: bring it from where it was taken to", f.path(rootFile), ErrNoKey)
	}
	return data, err
}

// SignSite makes the intermediate of a site with the root key that RootKey or a
// file gives; also a new one for a site whose own ends soon.
func SignSite(rootKey []byte, site mesh.Site, now time.Time) (meshName string, made Intermediate, err error) {
	root, err := decodeSigner(rootKey)
	if err != nil {
		return "", nil, fmt.Errorf("the root key: %w", err)
	}
	names, err := nameOf(root.cert)
	if err == nil && len(names) != 1 {
		err = fmt.Errorf("the key is of %s and not of a root: %w", root.cert.URIs[0], ErrNoKey)
	}
	if err = errors.Join(err, CheckName("a site", string(site))); err != nil {
		return "", nil, err
	}
	if now.Before(earliest()) || now.After(root.cert.NotAfter) {
		return "", nil, fmt.Errorf("the root ends on %s, this machine's clock says %s: %w", stamp(root.cert.NotAfter), stamp(now), ErrExpired)
	}
	s, err := newSite(root, names[0], site, now)
	if err != nil {
		return "", nil, err
	}
	made, err = encodeSigner(s)
	return names[0], made, err
}

// Path is where the folder is.
func (f *Folder) Path() string { return filepath.Clean(f.dir) }

// Identity is an agent's, loaded. Any goroutine may use it.
type Identity struct {
	folder *Folder
	mesh   string
	site   mesh.Site
	node   mesh.NodeID
	root   *x509.Certificate
	key    ed25519.PrivateKey
	gossip [gossipBytes]byte

	write sync.Mutex // held while a file is replaced, so that the last one is what is in force

	mu     sync.RWMutex // guards what follows
	chain  []*x509.Certificate
	signer *signer // the site's key; nil: not here
	seen   time.Time
	allow  func(mesh.Peer) error
}
