package link

import (
	"net"
	"syscall"
)

// receiveBuffer is the size of the socket's; the system counts its own needs in,
// and says twice what it was asked for.
func receiveBuffer(s *net.UDPConn) (bytes int, ok bool) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, false
	}
	var inner error
	err = raw.Control(func(fd uintptr) { bytes, inner = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF) })
	return bytes / 2, err == nil && inner == nil
}
