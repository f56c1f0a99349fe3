//go:build !linux

package api

// processMetrics are there on Linux only.
func processMetrics() map[string]metric { return nil }

func collectProcess(*exposition) {}
