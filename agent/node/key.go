package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"

	"github.com/tidemark-mesh/tidemark/coordinator/consensus"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/identity"
)

// The site's key signs certificates of its agents. Its voters have it, so that any
// of them can let others join when it leads. One that has lost its vote gives its
// copy up only when the leader has one: it may be the last.

// serveKey serves what keepKey asks for.
func (n *Node) serveKey(mux *http.ServeMux) {
	mux.HandleFunc("POST "+pathKey, func(w http.ResponseWriter, r *http.Request) {
		caller, ok := callerOf(r.Context())
		if !ok || !n.votes(caller.Node) {
			http.Error(w, "the site's key is for its voters", http.StatusForbidden)
			return
		}
		key, err := n.id.Intermediate()
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		_, _ = w.Write(key)
	})
	mux.HandleFunc("POST "+pathHasKey, func(w http.ResponseWriter, _ *http.Request) {
		if !n.id.CanIssue() {
			http.Error(w, "this agent does not have the site's key", http.StatusConflict)
		}
	})
}

// votes tells whether a node has a vote, as far as is known here.
func (n *Node) votes(node mesh.NodeID) bool {
	group := n.group.Load()
	return group != nil && slices.ContainsFunc(group.Members(), func(m consensus.Member) bool { return m.Node == node && m.Voter })
}

// keepKey gets the site's key if this agent has a vote and no key, and gives it up
// if it has a key and no vote.
func (n *Node) keepKey(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	leader, _ := n.raft.Leader()
	has, votes := n.id.CanIssue(), n.votes(n.id.Node())
	switch {
	case leader == "" || has == votes:
		return nil
	case has:
		if _, resp, err := n.call(ctx, leader, pathHasKey, nil); err != nil || resp.StatusCode != http.StatusOK {
			return nil // it is kept for the leader to fetch
		}
		return n.id.DropIntermediate()
	case leader != n.id.Node():
		return n.fetchKey(ctx, leader)
	}
	var errs []error
	for _, voter := range []bool{true, false} {
		for _, m := range n.raft.Members() {
			if m.Voter != voter || m.Node == leader {
				continue
			}
			err := n.fetchKey(ctx, m.Node)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (n *Node) fetchKey(ctx context.Context, from mesh.NodeID) error {
	key, resp, err := n.call(ctx, from, pathKey, nil)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", bytes.TrimSpace(key))
	}
	if err == nil {
		err = n.id.AddIntermediate(identity.Intermediate(key))
	}
	if err != nil {
		return fmt.Errorf("this agent has a vote, and could not get the site's key from agent %s yet: %w", from, err)
	}
	return nil
}

// call asks an agent something over mesh.Call; the response's body was read.
func (n *Node) call(ctx context.Context, to mesh.NodeID, path string, body []byte) ([]byte, *http.Response, error) {
	return post(ctx, newClient(func(ctx context.Context) (net.Conn, error) { return n.openCall(ctx, to) }), path, body)
}
