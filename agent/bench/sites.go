package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tidemark-mesh/tidemark/agent/api"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
	"github.com/tidemark-mesh/tidemark/store/disk"
)

// besides founds another site of the same mesh, of one agent, and waits until the
// two see each other.
func (s *testSite) besides(ctx context.Context, name string, p agentPart) (_ *testSite, err error) {
	other := &testSite{dir: filepath.Join(s.dir, name)}
	defer func() {
		if err != nil {
			err = errors.Join(err, other.close())
		}
	}()
	token, err := s.letFound(ctx, name)
	if err != nil {
		return nil, err
	}
	p.Name, p.Dir, p.Site, p.Join, p.Token = name, filepath.Join(other.dir, name), name, s.agents[0].link, token
	if p.Bind, err = freePorts(); err != nil {
		return nil, err
	}
	if err := other.start(ctx, p); err != nil {
		return nil, err
	}
	if err := other.settled(ctx); err != nil {
		return nil, err
	}
	return other, await(ctx, func() (bool, error) {
		for _, site := range []*testSite{s, other} {
			all, err := site.client.Sites(ctx, false)
			if err != nil || len(all) != 2 || !all[0].Reachable || !all[1].Answers {
				return false, nil //nolint:nilerr // it is about to lead
			}
		}
		return true, nil
	})
}

// letFound has a site let another one be founded, and returns the token for that.
func (s *testSite) letFound(ctx context.Context, name string) (string, error) {
	key, err := identity.OpenFolder(disk.Secret, filepath.Join(s.dir, s.agents[0].name, "identity"), time.Now).RootKey()
	if err != nil {
		return "", err
	}
	meshName, made, err := identity.SignSite(key, mesh.Site(name), time.Now())
	if err != nil {
		return "", err
	}
	token, sealed, err := identity.NewSiteToken(key, mesh.Site(name), made)
	if err != nil {
		return "", err
	}
	hash := token.SecretHash()
	return token.String(), await(ctx, func() (bool, error) { // its agents are of the newest level soon
		_, err := s.client.CreateSite(ctx, api.NewSite{Mesh: meshName, Site: name, Token: token.ID, Hash: hash[:], Sealed: sealed})
		return err == nil, nil
	})
}

// sent is what an agent has sent to others, UDP payload of all its connections.
func (a *agentProcess) sent(ctx context.Context) (bytes float64, err error) {
	const metric = "tidemark_quic_sent_bytes_total{"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, metric) {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		bytes += n
	}
	return bytes, nil
}
