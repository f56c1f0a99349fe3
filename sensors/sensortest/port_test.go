package sensortest_test

import (
	"testing"

	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// Nobody may listen at an address for as long as its test is: it is not given
// to another test meanwhile.
func TestFreeAddrIsGivenOnce(t *testing.T) {
	given := make(map[string]bool)
	for range 500 {
		addr := sensortest.FreeAddr(t)
		if given[addr] {
			t.Fatalf("%s is given twice, after %d others", addr, len(given))
		}
		given[addr] = true
	}
}
