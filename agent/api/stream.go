package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tidemark-mesh/tidemark/agent/durable"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/dataflow"
)

// lines is the media type of JSON lines.
const lines = "application/x-ndjson"

// stream answers with what f writes. An error before the first bytes is a
// problem; after them the connection is cut, so that nobody takes a part for
// the whole.
func (s *server) stream(kind string, f func(context.Context, io.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		w := &begun{ctx: ctx, kind: kind}
		buf := bufio.NewWriterSize(w, 64<<10)
		err := f(ctx.Context(), buf)
		switch {
		case err == nil:
			if err = buf.Flush(); err == nil && !w.yes {
				_, err = w.Write(nil)
			}
		case !w.yes:
			err = failed(err)
			code := http.StatusInternalServerError
			var known huma.StatusError
			if errors.As(err, &known) {
				code = known.GetStatus()
			}
			_ = huma.WriteErr(s.huma, ctx, code, err.Error()) // who asked may be gone
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}}
}

// begun says what the answer is with the first bytes.
type begun struct {
	ctx  huma.Context
	kind string
	yes  bool
}

func (b *begun) Write(p []byte) (int, error) {
	if !b.yes {
		b.yes = true
		b.ctx.SetHeader("Content-Type", b.kind)
		b.ctx.SetStatus(http.StatusOK)
	}
	return b.ctx.BodyWriter().Write(p)
}

func (s *server) registerState() {
	register(s, op(http.MethodGet, "/v1/state/{savepoint}", "read-state", "The rows of a state as JSON lines", lasting(patient), gives(lines),
		describe("Deltas are merged. The state `positions` is where a source stands.")), s.readState)
	register(s, op(http.MethodGet, "/v1/state/{savepoint}/diff/{other}", "diff-state", "What is different in the other savepoint, as JSON lines", lasting(patient), gives(lines)), s.diffState)
}

func (s *server) readState(ctx context.Context, in *struct {
	SnapshotPath
	Operator string `query:"operator" required:"true" doc:"the operator's id in the job"`
	State    string `query:"state" required:"true" doc:"the name of its state"`
}) (*huma.StreamResponse, error) {
	c, _, m, err := s.snapshot(ctx, Stale{}, in.Savepoint)
	if err != nil {
		return nil, err
	}
	return s.stream(lines, func(ctx context.Context, w io.Writer) error {
		_, err := s.saved(ctx, c, *m).ReadState(w, dataflow.OperatorID(in.Operator), in.State)
		return err
	}), nil
}

func (s *server) diffState(ctx context.Context, in *struct {
	SnapshotPath
	Other string `path:"other" doc:"as savepoint"`
}) (*huma.StreamResponse, error) {
	a, _, ma, err := s.snapshot(ctx, Stale{}, in.Savepoint)
	if err != nil {
		return nil, err
	}
	b, _, mb, err := s.snapshot(ctx, Stale{}, in.Other)
	if err != nil {
		return nil, err
	}
	return s.stream(lines, func(ctx context.Context, w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return durable.Diff(s.saved(ctx, a, *ma), s.saved(ctx, b, *mb), 0, func(d durable.Difference) error { return enc.Encode(d) })
	}), nil
}

// Timing of events.
const (
	aliveEvery = time.Second      // how often it is looked at whether a stream is to end
	pingEvery  = 15               // of these: a comment, so that who is gone is noticed
	slowest    = 10 * time.Second // for an event to be taken
	endOfJob   = "end"
)

// Endless tells whether a request is for a stream that does not end by itself.
func Endless(r *http.Request) bool {
	path := strings.TrimPrefix(r.URL.Path, PathPassed)
	return path == "/v1/events" || strings.HasPrefix(path, "/v1/jobs/") && strings.HasSuffix(path, "/events")
}

func (s *server) registerEvents() {
	register(s, op(http.MethodGet, "/v1/events", "watch-site", "What happens from now on, as server-sent events", lasting(0), gives("text/event-stream"),
		describe("The stream ends when the site's leader changes; ask again.")), func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
		if err := s.b.Current(ctx); err != nil {
			return nil, failed(err)
		}
		return s.events(""), nil
	})
	register(s, op(http.MethodGet, "/v1/jobs/{job}/events", "watch-job", "What happens to a job from now on, as server-sent events", lasting(0), gives("text/event-stream"),
		describe("It begins with what the job is at, and ends with an event `end` when the job does. The stream ends when the site's leader changes; ask again.")), func(ctx context.Context, in *JobPath) (*huma.StreamResponse, error) {
		j, err := s.job(ctx, Stale{}, in.Job)
		if err != nil {
			return nil, err
		}
		return s.events(j.ID), nil
	})
}

// events hands out what happens, to one job or to all.
func (s *server) events(of coordinator.JobID) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		within, cancel := context.WithCancel(ctx.Context())
		defer cancel()
		e := &eventWriter{ctx: ctx}
		ctx.SetHeader("Content-Type", "text/event-stream")
		ctx.SetHeader("Cache-Control", "no-store")
		ctx.SetStatus(http.StatusOK)
		happens := s.b.Subscribe(within)
		if of != "" {
			s.b.View(func(st *coordinator.State) {
				if j := st.Jobs[of]; j != nil {
					e.next = EventLine{At: stamp(j.Since), Job: string(of), What: "job", Text: statusLine(j)}
				}
			})
			if !e.send(e.next) {
				return
			}
		} else if !e.write(": tidemark\n\n") {
			return
		}
		s.follow(within, of, e, happens)
	}}
}

func statusLine(j *coordinator.Job) string {
	if j.Why == "" {
		return j.Status.String()
	}
	return j.Status.String() + ": " + j.Why
}

// follow sends events until nobody listens, the job has ended, or this agent
// leads no more.
func (s *server) follow(ctx context.Context, of coordinator.JobID, e *eventWriter, happens <-chan Event) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case ev, ok := <-happens:
			switch {
			case !ok:
				return
			case of != "" && ev.Job != of:
			case !e.send(lineOf(&ev)):
				return
			}
			if of == "" || ev.Job != of {
				continue
			}
		case <-tick.C:
			if s.b.Leader() != s.b.Self() || n%pingEvery == 0 && !e.write(": alive\n\n") {
				return
			}
		case <-ctx.Done():
			return
		}
		if of != "" && s.ended(of, e) {
			return
		}
	}
}

func lineOf(ev *Event) EventLine {
	l := EventLine{At: stamp(ev.At), Job: string(ev.Job), What: ev.What, Text: ev.Text, Lost: ev.Lost}
	if ev.Move != nil {
		step := stepOf(*ev.Move)
		l.MoveID, l.Step = string(ev.Move.Move), &step
	}
	return l
}

func (s *server) ended(of coordinator.JobID, e *eventWriter) (ended bool) {
	var line EventLine
	s.b.View(func(st *coordinator.State) {
		switch j := st.Jobs[of]; {
		case j == nil:
			ended, line = true, EventLine{Job: string(of), What: endOfJob, Text: "it was forgotten"}
		case j.Status.Ended():
			ended, line = true, EventLine{At: stamp(j.Since), Job: string(of), What: endOfJob, Text: statusLine(j)}
		}
	})
	if ended {
		e.send(line)
	}
	return ended
}

// eventWriter writes server-sent events.
type eventWriter struct {
	ctx  huma.Context
	next EventLine
}

func (e *eventWriter) send(l EventLine) bool {
	data, _ := json.Marshal(l) // it cannot fail
	return e.write(fmt.Sprintf("event: %s\ndata: %s\n\n", l.What, data))
}

// write tells whether it was taken.
func (e *eventWriter) write(text string) bool {
	w, ok := e.ctx.BodyWriter().(http.ResponseWriter)
	if !ok {
		return false
	}
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(slowest)) // not every connection has one
	if _, err := io.WriteString(w, text); err != nil {
		return false
	}
	return c.Flush() == nil
}
