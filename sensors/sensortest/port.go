package sensortest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddr is an address of loopback on which nobody listens. Its port is below
// those that systems give to whoever asks for any, and to outgoing connections:
// nobody gets it by chance before the test has it, or while what listens there
// is down.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(8000)))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return ln.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}
