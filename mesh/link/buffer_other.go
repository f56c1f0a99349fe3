//go:build !linux

package link

import "net"

// receiveBuffer is not asked for on this system.
func receiveBuffer(*net.UDPConn) (bytes int, ok bool) { return 0, false }
