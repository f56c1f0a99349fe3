package window

import (
	"fmt"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// shape names the windows' form and measures: "tumbling_10s". It stands in the
// name of the state column that tells a key's windows apart, since state of
// windows of another shape is of no use: a restore that finds another name there
// is refused. Count windows that do not slide have no such column, and go on
// with another size.
func (s *Spec) shape() string {
	var name string
	switch s.Form {
	case Tumbling:
		name = "tumbling_" + length(s.Size) + offset(s.Offset, s.Size)
	case Sliding:
		name = "sliding_" + length(s.Size) + "_by_" + length(s.Slide) + offset(s.Offset, s.Slide)
	case Session:
		name = "session_" + length(s.Gap)
	case SlidingCount:
		name = fmt.Sprintf("count_%d_by_%d", s.Rows, s.EachRows)
	}
	if s.ProcessingTime {
		name = "processing_" + name
	}
	return name
}

// offset is the part of the shape that says where windows begin, the same for
// all offsets that make the same windows.
func offset(d, slide dataflow.Duration) string {
	if d %= slide; d < 0 {
		d += slide
	}
	if d == 0 {
		return ""
	}
	return "_from_" + length(d)
}

// length is a duration in one unit, the largest that makes it a whole number.
func length(d dataflow.Duration) string {
	units := [...]struct {
		name string
		span dataflow.Duration
	}{{"d", dataflow.Day}, {"h", dataflow.Hour}, {"m", dataflow.Minute}, {"s", dataflow.Second}, {"ms", dataflow.Millisecond}}
	for _, u := range units {
		if d%u.span == 0 {
			return fmt.Sprintf("%d%s", d/u.span, u.name)
		}
	}
	return fmt.Sprintf("%dus", d)
}
