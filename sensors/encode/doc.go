// Package encode owns the way from columns to bytes: JSON lines and CSV, for
// sinks and for people. What it writes, sensors/decode reads back to the same
// values; docs/PAYLOADS.md has the rules and the two exceptions.
//
// It never writes to a file or a socket and never decides which rows go out.
// Read encoder.go.
package encode
