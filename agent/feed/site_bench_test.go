//go:build unix

package feed_test

import (
	"fmt"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/feed"
	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/mesh"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

// BenchmarkFeedCopies is a feed whose log has members in the same process: the
// CPU is that of all of them together, the disk is one.
func BenchmarkFeedCopies(b *testing.B) {
	for copies := 1; copies <= 3; copies++ {
		b.Run(fmt.Sprint(copies), func(b *testing.B) {
			net := simnet.New()
			p := newPeer(b)
			c := config(p.url(), 1)
			e := coordinator.LogEpoch{Epoch: 1, Owner: "0", Starts: []int64{0}}
			for i := range copies {
				e.Members = append(e.Members, mesh.NodeID(fmt.Sprint(i)))
			}
			var owner *feed.Feeds
			for i := copies - 1; i >= 0; i-- {
				tr := net.New(e.Members[i], "here")
				feeds := feed.New(feed.Options{Dir: b.TempDir(), Transport: tr})
				b.Cleanup(func() { _ = feeds.Close(); _ = tr.Close() })
				tr.Start()
				var err error
				if owner = feeds; i > 0 {
					err = feeds.Follow("f", e, c)
				} else {
					err = feeds.Own("f", e, c, nil)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			measure(b, p.session(b, 1, false).c)
			f, err := owner.OpenKeeping("f", nil, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/float64(f.Stats().Commits), "messages/commit")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			_ = f.Close()
		})
	}
}
