package mqtt

import "testing"

// It knows topics for as many messages as a log gives back, and no more.
func TestFirstsAreBounded(t *testing.T) {
	var f firsts
	f.begins()
	for i := range uint64(earliest - 1) {
		f.took(i)
	}
	if !f.lacks(earliest) || f.lacks(1) {
		t.Fatalf("after %d messages: %v", f.count, f.open)
	}
	f.took(1)
	if f.lacks(earliest) || f.topics != nil {
		t.Fatalf("after %d messages: %v, %d topics", f.count, f.open, len(f.topics))
	}
	f.begins()
	if f.lacks(earliest) {
		t.Fatal("another session is no first one")
	}
}

// What a session brought can become durable behind the note of the next one: that
// was not the first.
func TestFirstsOfTwoSessions(t *testing.T) {
	var f firsts
	f.recallNote(makeNote(1, 0), true)
	f.recallNote(makeNote(2, 0), true)
	if !f.lacks(7) {
		t.Fatal("no message came in the first session")
	}
	f.recall(8, false)
	if f.lacks(7) {
		t.Fatal("one came in the session before")
	}
}

// Where nobody asks nothing is kept, whatever the log says.
func TestFirstsOfNothing(t *testing.T) {
	f := nothing()
	f.recallNote(makeNote(1, 0), true)
	f.recall(7, true)
	f.took(8)
	if f.lacks(9) || f.topics != nil {
		t.Fatalf("%+v", f)
	}
}
