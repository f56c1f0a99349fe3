// Package disk is the machine's file system as drivers are given it, and the few
// things that they all do with a store.FS: replace a small file in one step,
// read one, make a folder that outlives a power cut, know a full disk.
//
// It never knows what a file means: who owns one says in which format it is, and
// wraps the error with what to do. Read store next, and storetest for the file
// system that loses power.
package disk
