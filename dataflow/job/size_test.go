package job_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0B": 0, "1B": 1, "64KiB": 64 << 10, "512MB": 512e6, "10GB": 10e9, "10gb": 10e9, "1 TiB": 1 << 40, "5kb": 5000, "2TB": 2e12} {
		if n, err := job.ParseSize(s); err != nil || n != want {
			t.Errorf("%s is %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "10", "GB", "-1GB", "1.5GB", "1XB", "9223372036854775808B", "10000000000TB", "1e3B"} {
		if n, err := job.ParseSize(s); err == nil {
			t.Errorf("%q is %d", s, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Min(0).Draw(t, "bytes")
		if got, err := job.ParseSize(job.FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is written %s, and that is %d, %v", n, job.FormatSize(n), got, err)
		}
	})
}
