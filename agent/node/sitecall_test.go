package node

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// Who asks for the wrong thing again and again is told of once a minute.
func TestWrongQuestionsAreToldNowAndThen(t *testing.T) {
	var now dataflow.Time
	var said []string
	a := astray{now: func() dataflow.Time { return now }, tell: func(s string) { said = append(said, s) }}
	for range 130 {
		a.asked(mesh.Peer{Node: "x", Site: "south"}, "GET", "/v1/jobs/"+strings.Repeat("x", 1000))
		now = now.Add(dataflow.Second)
	}
	if len(said) != 3 || strings.Contains(said[0], "besides") || !strings.Contains(said[1], "59 were asked besides") || !strings.Contains(said[2], "59 were asked besides") {
		t.Errorf("%d times: %q", len(said), said)
	}
	if slices.ContainsFunc(said, func(s string) bool {
		return len(s) > 500 || !strings.Contains(s, "agent x of site south asked for GET /v1/jobs/x")
	}) {
		t.Errorf("%q", said)
	}
}

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// What is large may take long, either way, for as long as it moves; what stands still is
// given up.
func TestLongQuestions(t *testing.T) {
	for name, c := range map[string]struct {
		question int
		answers  int           // pieces, one every 4 s
		stuck    bool          // then nothing more
		want     string        // error
		most     time.Duration // of the fake clock
	}{
		"an answer of a minute":               {10, 15, false, "", 2 * time.Minute},
		"an answer that stops":                {10, 3, true, "nothing has moved for 5s", time.Minute},
		"a question of a minute":              {3 << 20, 1, false, "", 2 * time.Minute},
		"the largest question on a slow line": {maxSite, 1, false, "", 10 * time.Minute},
		"an answer in drops":                  {10, 90, false, "less than 4 KiB a second have moved", 6 * time.Minute},
		"nobody answers":                      {10, 0, true, "nothing has moved for 5s", 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := make(pipes)
				over := make(chan struct{})
				s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					buf := make([]byte, 64<<10)
					for n := 0; n < c.question; {
						<-time.After(time.Second)
						k, err := io.ReadFull(r.Body, buf[:min(len(buf), c.question-n)])
						if n += k; err != nil {
							return
						}
					}
					for range c.answers {
						_, _ = w.Write([]byte("piece"))
						w.(http.Flusher).Flush()
						select {
						case <-over:
						case <-time.After(4 * time.Second):
						}
					}
					if c.stuck {
						<-over
					}
				})}
				var serving sync.WaitGroup
				serving.Go(func() { _ = s.Serve(p) })
				began := time.Now()
				status, answer, err := postSite(t.Context(), newClient(func(context.Context) (net.Conn, error) {
					a, b := net.Pipe()
					p <- b
					return a, nil
				}), "/x", make([]byte, c.question))
				if took := time.Since(began); took > c.most {
					t.Errorf("it took %v", took)
				}
				if c.want == "" && (err != nil || status != http.StatusOK || len(answer) != 5*c.answers) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%d, %d bytes, %v; want %q", status, len(answer), err, c.want)
				}
				close(over)
				_ = s.Close()
				serving.Wait()
			})
		})
	}
}
