package api

import (
	"errors"
	"net"
)

// dialed tells whether an error is of a connection that could not be made.
func dialed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
