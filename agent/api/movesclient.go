package api

import (
	"context"
	"net/http"
	"net/url"
)

// Migrate begins the move of a job, or asks whether it could be. With a Request it is
// begun once.
func (c *Client) Migrate(ctx context.Context, job string, m Migration) (Move, error) {
	if m.Request == "" {
		return ask[Move](ctx, c, http.MethodPost, Path("jobs", job, "migrate"), nil, m)
	}
	return askOnce[Move](ctx, c, http.MethodPost, Path("jobs", job, "migrate"), nil, m)
}

// CancelMove gives up the move of a job; the answer is what it came to.
func (c *Client) CancelMove(ctx context.Context, job string) (Move, error) {
	return ask[Move](ctx, c, http.MethodPost, Path("jobs", job, "migrate", "cancel"), nil, nil)
}

// Failover has a site take over a job that another one had, or asks what would be lost.
func (c *Client) Failover(ctx context.Context, job string, f Failover) (FailedOver, error) {
	return ask[FailedOver](ctx, c, http.MethodPost, Path("jobs", job, "failover"), url.Values{"site": {f.To}}, f)
}

// Moves are all that are on record, without their steps.
func (c *Client) Moves(ctx context.Context) ([]Move, error) {
	return ask[[]Move](ctx, c, http.MethodGet, "/v1/moves", nil, nil)
}

// Move is one.
func (c *Client) Move(ctx context.Context, id string) (Move, error) {
	return ask[Move](ctx, c, http.MethodGet, Path("moves", id), nil, nil)
}
