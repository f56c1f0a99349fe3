// Package sensors is the vocabulary of the connectors: what a source reader
// and a sink writer promise, and the raw records that travel from a reader to
// a decoder.
//
// It moves no bytes itself. The connectors are in sensors/mqtt, sensors/file
// and sensors/generate; payloads become columns in sensors/decode.
package sensors
