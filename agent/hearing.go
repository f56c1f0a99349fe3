package agent

import (
	"sync"

	"github.com/tidemark-mesh/tidemark/agent/connect"
	"github.com/tidemark-mesh/tidemark/dataflow/job"
	"github.com/tidemark-mesh/tidemark/store/manifest"
)

// hearing is which sources wait for their brokers to grant them their topics.
type hearing struct {
	heard chan struct{} // closed when none waits any more

	mu      sync.Mutex // guards waiting
	waiting map[*job.Source]bool
}

func newHearing(j *job.Job) *hearing {
	h := &hearing{heard: make(chan struct{}), waiting: make(map[*job.Source]bool)}
	for _, s := range j.Sources {
		if s.MQTT != nil || s.Feed != nil {
			h.waiting[s] = true
		}
	}
	if len(h.waiting) == 0 {
		close(h.heard)
	}
	return h
}

// subscribed notes that the broker granted a source's topics.
func (h *hearing) subscribed(s *job.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.waiting[s] {
		return
	}
	if delete(h.waiting, s); len(h.waiting) == 0 {
		close(h.heard)
	}
}

// connectorsOf are the connectors of a job in this process.
func connectorsOf(j *job.Job, opt LocalOptions, h *hearing, d *surroundings, from *manifest.Manifest) connect.Options {
	o := connect.Options{
		Job: j, Clock: opt.Clock, Secrets: opt.Secrets, Events: opt.Events, From: from, Heard: h.subscribed, Stdin: opt.Stdin, Stdout: opt.Stdout,
		Wrap: opt.Wrap, Files: opt.Files, Overwrite: opt.Overwrite,
	}
	if d != nil {
		o.Durable, o.Feed, o.State, o.SinkDir = true, d.reader, d.state.store.FS(), d.sinkDir
	}
	return o
}
