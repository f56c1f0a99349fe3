package eventtime

import "github.com/tidemark-mesh/tidemark/dataflow"

// Strategy is how a source's watermark is made from its rows.
type Strategy uint8

// The strategies of a job's `watermark:`.
const (
	None       Strategy = iota // no watermark before the end of input
	Punctuated                 // marker rows carry it
	Bounded                    // largest event time seen, minus the bound, minus one microsecond
	Ascending                  // Bounded with a bound of zero
	Ingestion                  // event time is arrival time: the arrival clock minus one microsecond
)

// Config is what a job says about a source's event time. All spans are
// microseconds; zero means "not given".
type Config struct {
	Strategy   Strategy
	Bound      dataflow.Duration // Bounded: how far rows may be out of order
	KeepMarker bool              // Punctuated: the marker row is data too (emit: true)
	PerDevice  bool              // one watermark a device; the source's is the least of the live devices'. Without meaning for None and Ingestion
	Per        string            // PerDevice: what names the devices; state that was made with another has other devices. Empty: no matter
	IdleAfter  dataflow.Duration // a device or split silent for longer is left out of the minimum
	MaxAhead   dataflow.Duration // rows and markers further ahead of their arrival are refused

	// MarkArrivals puts a mark before each row that arrived later than the row
	// before it: somebody downstream needs to know when each row came. Without
	// it the arrival clock is right at every other mark and at the end of a batch.
	MarkArrivals bool
}

// devices tells whether each device has a watermark of its own.
func (c *Config) devices() bool {
	return c.PerDevice && c.Strategy != None && c.Strategy != Ingestion
}
