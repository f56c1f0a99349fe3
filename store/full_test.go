package store

import (
	"errors"
	"syscall"
	"testing"
)

// A full disk is told once, and is of both kinds.
func TestFullSaysItOnce(t *testing.T) {
	err := Full(syscall.ENOSPC)
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) || err.Error() != syscall.ENOSPC.Error() {
		t.Errorf("%v", err)
	}
}
