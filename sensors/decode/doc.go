// Package decode owns the way from payloads to columns: JSON, CSV and text,
// straight into a batch builder. A payload that does not decode is an error
// value with its reason, never a panic and never half a row.
package decode
