package runtime

import (
	"slices"
	"testing"
)

// Asking for large pages changes nothing that a program sees, wherever the
// memory begins and ends.
func TestLargePagesLeaveMemoryAlone(t *testing.T) {
	ask := largePages()
	if ask == nil {
		t.Skip("the system has no large pages")
	}
	memory := make([]byte, 9<<20)
	for i := range memory {
		memory[i] = byte(i * 7 >> 3)
	}
	want := slices.Clone(memory)
	for _, part := range [][]byte{memory, memory[1:], memory[:len(memory)-1], memory[4097 : 5<<20], memory[:100], memory[1<<20 : 2<<20], nil} {
		ask(part)
	}
	if !slices.Equal(memory, want) {
		t.Error("memory is not what it was")
	}
}
