package state

import "unsafe"

// LargeBytes is from which size on memory that is read at random is worth large
// pages: below, the processor knows the addresses of most pages anyway.
const LargeBytes = 4 << 20

// Large tells of all the memory that s has, if it is large. What hears of it may
// ask the system for large pages: a look-up in tables of a million keys waits
// for the addresses of pages as long as for the memory.
func Large[T any](tell func([]byte), s []T) {
	var one T
	if n := uintptr(cap(s)) * unsafe.Sizeof(one); n >= LargeBytes {
		tell(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), n))
	}
}
