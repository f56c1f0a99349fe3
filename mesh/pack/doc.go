// Package pack makes bytes fewer on their way to another site.
//
// What is packed at once is whole: nothing is needed of what went before, so that
// a stream that broke off goes on with any piece. It is an S2 block. Both sides
// bound what it becomes.
package pack
