package feed

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// Who looks at a feed that hears nothing is told why.
func TestAtBroker(t *testing.T) {
	for want, s := range map[string]mqtt.ReaderStats{
		"connected": {Connected: true, Subscribed: true, Trouble: "of before"},
		"connected, but the broker has not answered to SUBSCRIBE yet": {Connected: true},
		"away":                     {},
		"away: connection refused": {Trouble: "connection refused"},
		"away: " + strings.Repeat("x", maxTrouble-1): {Trouble: strings.Repeat("x", maxTrouble-1) + "ä"}, // text is cut as text
	} {
		if got := atBroker(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}
