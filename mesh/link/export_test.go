package link

import "testing"

// NewTwo makes two links on this machine that know each other.
func NewTwo(t *testing.T) (a, b *Link) {
	s := newSite(t)
	return s.link("a", nil), s.link("b", nil)
}

// Crash closes the port as the end of the process does: nobody is told.
func (l *Link) Crash() { l.udp.Close() } //nolint:errcheck // it is a crash
