// Package storetest helps to test what is durable: a file system in memory that
// loses power at any write, fills up, and breaks; and the suite that every
// store.Parts passes.
//
// It is harsher than real file systems: what was not synced may be lost or kept
// in any combination, torn within a write, a name without its bytes or the
// other way round. Read store/part next.
package storetest
