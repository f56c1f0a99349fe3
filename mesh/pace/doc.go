// Package pace decides who may send next, and when, where only so many bytes a
// second may be sent to other sites: a bucket with classes. It has no clock and no
// goroutine; mesh/link drives it.
package pace
