package api

import (
	"maps"
	"slices"
)

// MetricNames are what GET /metrics may have of Tidemark's own.
func MetricNames() []string { return slices.Sorted(maps.Keys(siteMetrics())) }

// Expose is the text of one metric with one label, with these values.
func Expose(name, help, label string, values map[string]float64) []byte {
	e := newExposition(map[string]metric{name: {help, []string{label}}})
	for l, v := range values {
		e.send(name, gauge, v, l)
	}
	return e.text()
}
