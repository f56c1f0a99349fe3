// Package decode owns the way from payloads to columns: JSON, CSV and text,
// straight into a batch builder, and the cutting of a stream of bytes into
// payloads. A payload that does not decode is an error value with its reason,
// never a panic, never half a row, and never an allocation.
//
// It never reads a file or a socket, never looks at a clock, and never decides
// what becomes of a rejected payload. The rules a user sees are in
// docs/PAYLOADS.md; sensors/encode is the way back. Read decoder.go first, then
// json.go.
package decode
