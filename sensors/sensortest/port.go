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
// is down. Nor is it given to another test before this one ends, of this process
// or another: a UDP socket at the same port says that it is taken.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(8000))
		taken, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = taken.Close() })
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port")
	return ""
}
