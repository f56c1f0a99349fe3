package mqtt

// earliest is how many messages a session is looked at for what is retained. It
// is also how much of a log a reader gets back (ReaderOptions.Recall), and a log
// with fewer gives all its notes, from that of its first session on.
const earliest = 65536

// firsts tells whether a retained message is one of the first subscription that
// was cut off before it came, or of a later one. A broker says that of none: what
// waited in its queue comes like what it sends for the next SUBSCRIBE. But the
// first subscription is the first to bring something of a topic, and in the
// session that began with it each topic that came is known here. It belongs to
// the reader, under its lock.
//
// Full, after so many messages that a log would not give all of them back: a
// retained message of a reconnect is one of a later subscription then.
type firsts struct {
	cut    bool // a log's beginning is not known: other sessions may have been before
	looked bool // the log's first entry was seen
	open   bool // the session is the first that brought messages, and all of them are in topics
	count  int  // messages taken, of all sessions
	topics map[uint64]struct{}
}

// nothing is firsts where nobody asks: it keeps no topics.
func nothing() firsts { return firsts{cut: true, looked: true} }

// begins begins a session.
func (f *firsts) begins() { f.open, f.topics = f.count == 0 && !f.cut, nil }

// took enters a message, whether it was retained or not.
func (f *firsts) took(topic uint64) {
	if f.count++; !f.open {
		return
	}
	if f.count >= earliest {
		f.open, f.topics = false, nil
		return
	}
	if f.topics == nil {
		f.topics = make(map[uint64]struct{})
	}
	f.topics[topic] = struct{}{}
}

// lacks tells whether nothing of a topic has come yet.
func (f *firsts) lacks(topic uint64) bool {
	_, came := f.topics[topic]
	return f.open && !came
}

// recall is took for what a process before this one has made durable. Only a log
// that begins with its first session has all of it.
func (f *firsts) recall(topic uint64, current bool) {
	f.looked = true // without a note before it: f is not open
	f.took(topic)
	f.open = f.open && current // of the session before, and durable behind the note of this one
}

// recallNote is recall for a note.
func (f *firsts) recallNote(note uint32, current bool) {
	if !f.looked {
		f.looked, f.cut = true, note != makeNote(1, 0)
	}
	if current && tagID(note) == 0 {
		f.begins()
	}
}
