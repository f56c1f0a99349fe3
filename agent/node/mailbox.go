package node

import "sync"

// mailbox hands what others post to the one goroutine that takes it. Posting
// never blocks.
//
// What waits in it is bounded by those who post: each has a bounded number of
// things under way. A talk waits until what its peer said was taken: talk.
// Where neither holds, at most limit things wait; then post is false.
type mailbox[T any] struct {
	limit int // 0: none

	mu     sync.Mutex // guards what follows
	items  []T
	closed bool

	filled chan struct{} // 1: something may be there
}

func newMailbox[T any](limit int) *mailbox[T] {
	return &mailbox[T]{limit: limit, filled: make(chan struct{}, 1)}
}

// post adds an item; it is false if nobody will take it.
func (m *mailbox[T]) post(item T) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.limit > 0 && len(m.items) >= m.limit {
		return false
	}
	m.items = append(m.items, item)
	select {
	case m.filled <- struct{}{}:
	default:
	}
	return true
}

// take takes all that is there.
func (m *mailbox[T]) take() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.items
	m.items = nil
	return all
}

// close refuses what comes from now on, and returns what is there.
func (m *mailbox[T]) close() []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	all := m.items
	m.items = nil
	return all
}
