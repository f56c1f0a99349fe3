package api

import (
	"maps"
	"slices"
)

// MetricNames are what GET /metrics may have of Tidemark's own.
func MetricNames() (names []string) {
	for _, short := range slices.Sorted(maps.Keys(newCollector(nil).desc)) {
		names = append(names, "tidemark_"+short)
	}
	return names
}
