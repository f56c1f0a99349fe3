package state

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// queue says which key to look at when, in order of time. It may say so in
// vain: a timer that was deleted stays in it. It is no part of snapshots, as
// the timers themselves are.
//
// With a Backing it keeps about an eighth of the memory allowed, the earliest
// entries; later ones lie in the Backing as runs of chunks, each run ordered.
// What was deleted and lies there takes room on disk until its time.
type queue struct {
	store  *Store
	domain Domain
	heap   []queued
	arena  []byte // with a Backing: the keys of the heap, each with its length before it
	stale  int    // about how many entries are in vain

	runs    []run
	lastRun uint32
	wave    []queued
}

// queued is one entry. Key is the id of the key, or its place in the arena.
type queued struct {
	at  int64
	key int64
}

// run is a run of chunks in the Backing, the read ones gone.
type run struct {
	id, chunk, chunks uint32
	first             int64 // time of the first entry
}

const (
	chunkEntries = 512
	waveKeys     = 1024 // that are read together
	fewStale     = 1024
)

func (q *queue) bytes() int64 { return int64(16*len(q.heap) + len(q.arena) + 24*len(q.runs)) }

func before(a, b queued) int {
	switch {
	case a.at != b.at && a.at < b.at:
		return -1
	case a.at != b.at:
		return 1
	case a.key < b.key:
		return -1
	case a.key > b.key:
		return 1
	}
	return 0
}

// push enters a key, which is in memory.
func (q *queue) push(at int64, key int32) {
	e := queued{at: at, key: int64(key)}
	if c := q.store.cache; c != nil {
		e.key = q.keep(c.keyOf(key))
	}
	q.up(e)
	if q.stale > fewStale+len(q.heap)/2 {
		q.tidy()
	}
	q.spillIfFull()
}

func (q *queue) keep(key []byte) int64 {
	at := int64(len(q.arena))
	q.arena = append(binary.AppendUvarint(q.arena, uint64(len(key))), key...)
	return at
}

func (q *queue) keyAt(at int64) []byte {
	n, k := binary.Uvarint(q.arena[at:])
	from := int(at) + k
	return q.arena[from : from+int(n)]
}

func (q *queue) up(e queued) {
	q.heap = append(q.heap, e)
	i := len(q.heap) - 1
	for i > 0 {
		p := (i - 1) / 2
		if before(q.heap[p], e) <= 0 {
			break
		}
		q.heap[i] = q.heap[p]
		i = p
	}
	q.heap[i] = e
}

func (q *queue) pop() queued {
	top, n := q.heap[0], len(q.heap)-1
	e := q.heap[n]
	q.heap = q.heap[:n]
	if n == 0 {
		q.arena = q.arena[:0]
		return top
	}
	i := 0
	for {
		k := 2*i + 1
		if k >= n {
			break
		}
		if k+1 < n && before(q.heap[k+1], q.heap[k]) < 0 {
			k++
		}
		if before(e, q.heap[k]) <= 0 {
			break
		}
		q.heap[i] = q.heap[k]
		i = k
	}
	q.heap[i] = e
	return top
}

// next takes out the earliest entry that is due at until; its key is in memory.
func (q *queue) next(until int64) (key int32, at int64, step Step) {
	if q.wantRuns(until) {
		return 0, 0, Wait
	}
	if len(q.heap) == 0 || q.heap[0].at > until {
		return 0, 0, None
	}
	c := q.store.cache
	if c == nil {
		e := q.pop()
		return int32(e.key), e.at, Got
	}
	if id := c.find(q.keyAt(q.heap[0].key)); id >= 0 {
		return id, q.pop().at, Got
	}
	q.wantWave(until)
	return 0, 0, Wait
}

// wantRuns asks for the chunks that may hold the earliest entry.
func (q *queue) wantRuns(until int64) bool {
	if len(q.heap) > 0 {
		until = min(until, q.heap[0].at)
	}
	wanted := false
	for i := range q.runs {
		if r := &q.runs[i]; r.first <= until {
			q.store.cache.backing.Want(tableRuns, q.chunkKey(r.id, r.chunk))
			wanted = true
		}
	}
	return wanted
}

// wantWave asks for the keys of the next entries.
func (q *queue) wantWave(until int64) {
	c := q.store.cache
	c.makeRoom()
	q.wave = q.wave[:0]
	for len(q.wave) < waveKeys && len(q.heap) > 0 && q.heap[0].at <= until {
		if len(q.heap) == 1 { // pop would forget the arena
			q.wave = append(q.wave, q.heap[0])
			q.heap = q.heap[:0]
			break
		}
		q.wave = append(q.wave, q.pop())
	}
	for _, e := range q.wave {
		if key := q.keyAt(e.key); c.find(key) < 0 {
			c.backing.Want(tableUnits, key)
		}
		q.up(e)
	}
}

// tidy takes out entries of deleted timers whose keys are in memory.
func (q *queue) tidy() {
	s := q.store
	old, arena := q.heap, q.arena
	q.heap, q.arena, q.stale = make([]queued, 0, len(old)/2), nil, 0
	for _, e := range old {
		if s.cache == nil {
			if q.alive(int32(e.key), e.at) {
				q.heap = append(q.heap, e)
			}
			continue
		}
		n, k := binary.Uvarint(arena[e.key:])
		key := arena[int(e.key)+k:][:n]
		if id := s.cache.find(key); id < 0 || q.alive(id, e.at) {
			q.heap = append(q.heap, queued{at: e.at, key: q.keep(key)})
		}
	}
	slices.SortFunc(q.heap, before)
}

func (q *queue) alive(key int32, at int64) bool {
	if q.domain == expiryTime {
		return q.store.due[key] == at
	}
	c := q.store.timers[q.domain-1]
	e := c.findSub(key, at, nil, hashSub(key, at, nil, false))
	return e >= 0 && c.flags[e]&live != 0
}

// spillIfFull moves the later half to the Backing when there is too much.
func (q *queue) spillIfFull() {
	c := q.store.cache
	if c == nil || q.bytes() < max(c.backing.Memory()/8, 256) {
		return
	}
	slices.SortFunc(q.heap, before)
	half := len(q.heap) / 2
	q.spill(q.heap[half:])
	old, arena := q.heap[:half], q.arena
	q.heap, q.arena = make([]queued, 0, half), make([]byte, 0, len(arena)/2)
	for _, e := range old {
		n, k := binary.Uvarint(arena[e.key:])
		q.heap = append(q.heap, queued{at: e.at, key: q.keep(arena[int(e.key)+k:][:n])})
	}
}

// spill writes entries, in order, as a run. A chunk is the time of the first
// entry of the next one, then time and key of each entry.
func (q *queue) spill(entries []queued) {
	q.lastRun++
	r := run{id: q.lastRun, first: entries[0].at}
	var b []byte
	for len(entries) > 0 {
		n := min(len(entries), chunkEntries)
		then := noTime
		if n < len(entries) {
			then = entries[n].at
		}
		b = binary.BigEndian.AppendUint64(b[:0], uint64(then))
		for _, e := range entries[:n] {
			key := q.keyAt(e.key)
			b = binary.BigEndian.AppendUint64(b, uint64(e.at))
			b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
		}
		q.store.cache.backing.Put(tableRuns, q.chunkKey(r.id, r.chunks), b)
		r.chunks++
		entries = entries[n:]
	}
	q.runs = append(q.runs, r)
}

// arrived takes the first chunk of a run back.
func (q *queue) arrived(key, chunk []byte) {
	id := binary.BigEndian.Uint32(key[1:])
	i := slices.IndexFunc(q.runs, func(r run) bool { return r.id == id })
	if i < 0 || q.runs[i].chunk != binary.BigEndian.Uint32(key[5:]) {
		return
	}
	r, in := &q.runs[i], &reader{b: chunk}
	r.first = int64(in.word())
	for len(in.b) > 0 {
		at := int64(in.word())
		if key := in.bytes(in.uvarint()); !in.bad {
			q.up(queued{at: at, key: q.keep(key)})
		}
	}
	if in.bad && q.store.cache.err == nil {
		q.store.cache.err = fmt.Errorf("state: timers: %w", errUnit)
	}
	q.store.cache.backing.Put(tableRuns, key, nil)
	if r.chunk++; r.chunk == r.chunks {
		q.runs = slices.Delete(q.runs, i, i+1)
	}
}

func (q *queue) chunkKey(run, chunk uint32) []byte {
	b := append(q.store.cache.runKey[:0], byte(q.domain))
	b = binary.BigEndian.AppendUint32(b, run)
	q.store.cache.runKey = binary.BigEndian.AppendUint32(b, chunk)
	return q.store.cache.runKey
}
