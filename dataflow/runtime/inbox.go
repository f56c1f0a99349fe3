package runtime

import "sync"

// channelDepth is how many messages wait in a channel before its sender
// blocks. It is the whole of the back-pressure inside a process.
const channelDepth = 8

// inbox holds the input channels of one subtask. Each channel has one sender,
// the inbox has one receiver.
type inbox struct {
	mu       sync.Mutex // guards the fields below; never held while waiting
	channels []channel
	next     int  // where the fair search for a message begins
	ended    bool // nobody will take anything any more

	filled chan struct{} // 1: a message or an unblocked channel may be there
}

// channel is a ring of messages.
type channel struct {
	ring    [channelDepth]Message
	head, n int
	blocked bool
	room    chan struct{} // 1: the ring may have room
}

func newInbox(channels int) *inbox {
	in := &inbox{channels: make([]channel, channels), filled: make(chan struct{}, 1)}
	for i := range in.channels {
		in.channels[i].room = make(chan struct{}, 1)
	}
	return in
}

// offer sends m on channel c if there is room. If not, the channel's room tells
// when there may be. What comes after the end is dropped.
func (in *inbox) offer(c int, m Message) bool {
	ch := &in.channels[c]
	in.mu.Lock()
	switch {
	case in.ended:
		in.mu.Unlock()
		if m.Batch != nil {
			m.Batch.Release()
		}
		return true
	case ch.n == channelDepth:
		in.mu.Unlock()
		return false
	}
	ch.ring[(ch.head+ch.n)%channelDepth] = m
	ch.n++
	in.mu.Unlock()
	signal(in.filled)
	return true
}

// poll takes a message if one is there.
func (in *inbox) poll() (c int, m Message, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k := range in.channels {
		c = in.next + k
		if c >= len(in.channels) {
			c -= len(in.channels)
		}
		ch := &in.channels[c]
		if ch.n == 0 || ch.blocked {
			continue
		}
		m = ch.ring[ch.head]
		ch.ring[ch.head] = Message{}
		ch.head = (ch.head + 1) % channelDepth
		ch.n--
		in.next = c + 1
		if in.next == len(in.channels) {
			in.next = 0
		}
		signal(ch.room)
		return c, m, true
	}
	return 0, Message{}, false
}

// block holds channel c back, or lets it through again.
func (in *inbox) block(c int, held bool) {
	in.mu.Lock()
	in.channels[c].blocked = held
	in.mu.Unlock()
	if !held {
		signal(in.filled)
	}
}

// drop releases what is left when nobody will take it any more.
func (in *inbox) drop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	for i := range in.channels {
		for ch := &in.channels[i]; ch.n > 0; ch.n-- {
			if b := ch.ring[ch.head].Batch; b != nil {
				b.Release()
			}
			ch.ring[ch.head] = Message{}
			ch.head = (ch.head + 1) % channelDepth
		}
		signal(in.channels[i].room)
	}
}

// signal leaves a token that a waiter will find; one is enough.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
