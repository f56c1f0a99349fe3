package job_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// What a feed's filters may be follows from the source that reads it.
func TestFiltersOfFeeds(t *testing.T) {
	for _, c := range []struct {
		watermark string
		filters   []string
		want      []string // in the error; none: there is none
	}{
		{"bounded: 5s", []string{"plant/+/temp", "$share/g/plant/+/temp", "plant/#"}, nil},
		{"bounded: 5s, per: sensor", []string{"$share/g/plant/+/temp"}, []string{`source "r": the shared filter "$share/g/plant/+/temp" cannot be used with per`, "subscribe without $share"}},
		{"punctuated: {when: n > 1, at: ts}", []string{"$share/g/plant/+/temp", "a"}, []string{"cannot be used with punctuated", `field "sensor" reads level 1 of topics that the filter "a" gives 1 levels`}},
		{"bounded: 5s", []string{"a/#", "b"}, []string{`the filter "b" gives 1 levels`}},
	} {
		j, err := job.Load("j.yaml", []byte(`
name: j
sources:
  r:
    feed: readings
    format: json
    fields: {sensor: {type: string, topic: 1}, ts: timestamp, n: bigint}
    event_time: ts
    watermark: {`+c.watermark+`}
sinks: [{id: out, from: r, blackhole: {}}]
`), job.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = j.Sources[0].CheckFilters(c.filters)
		if (err != nil) != (len(c.want) > 0) {
			t.Errorf("%s, %q: %v", c.watermark, c.filters, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s, %q: %v, want %q in it", c.watermark, c.filters, err, w)
			}
		}
	}
}

// A feed is named by its name, or as another job's source.
func TestFeedNames(t *testing.T) {
	for name, ok := range map[string]bool{"readings": true, "cold-chain.readings": true, "a.b.c": false, ".a": false, "a.": false, "a b": false, "1a": false} {
		_, err := job.Load("job.yaml", []byte("name: j\nsources:\n  in: {feed: \""+name+"\", format: text}\nsinks:\n  - {id: out, from: in, blackhole: {}}\n"), job.Options{})
		if (err == nil) != ok {
			t.Errorf("feed %q: %v", name, err)
		}
	}
}
