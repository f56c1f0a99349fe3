package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/api"
)

// A question whose answer was lost is asked again, and so is what is done once
// by its request; what would be done twice is not.
func TestClientAsksAgain(t *testing.T) {
	for _, c := range []struct {
		what  string
		ask   func(context.Context, *api.Client) error
		times int
	}{
		{"a question", func(ctx context.Context, c *api.Client) error { _, err := c.Job(ctx, "j1"); return err }, 2},
		{"a submission with a request", func(ctx context.Context, c *api.Client) error {
			_, err := c.Submit(ctx, api.Submission{Request: "once"})
			return err
		}, 2},
		{"a stop", func(ctx context.Context, c *api.Client) error { _, err := c.Stop(ctx, "j1", false); return err }, 2},
		{"a submission without", func(ctx context.Context, c *api.Client) error { _, err := c.Submit(ctx, api.Submission{}); return err }, 1},
	} {
		times := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			times++
			if times == 1 {
				http.Error(w, "the leader ended before it answered", http.StatusBadGateway)
				return
			}
			_, _ = w.Write([]byte("{}"))
		}))
		client, err := api.NewClient(s.URL, "")
		if err != nil {
			t.Fatal(err)
		}
		err = c.ask(t.Context(), client)
		s.Close()
		if (err == nil) != (c.times > 1) || err != nil && !strings.Contains(err.Error(), "before it answered") || times != c.times {
			t.Errorf("%s: asked %d times: %v", c.what, times, err)
		}
	}
}
