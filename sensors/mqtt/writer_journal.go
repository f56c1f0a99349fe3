package mqtt

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/pending"
	durable "github.com/tidemark-mesh/tidemark/store"
)

// The journal of a client id says how far a commit has come with its broker:
// what a checkpoint, taken before the commit, cannot know. docs/MQTT.md has it
// byte by byte.

// stage is how far a piece has come. It only goes up.
type stage string

const (
	opened   stage = "opened"   // its rows may have been published, none was released
	released stage = "released" // QoS 2: the broker has them all; they must not be published again, only released
	complete stage = "complete" // the broker has acknowledged all to the end
)

// pieceKey names a piece for ever: ids of checkpoints are never used twice.
type pieceKey struct {
	Epoch   uint64 `json:"epoch"`
	Site    string `json:"site,omitempty"`
	Attempt uint64 `json:"attempt"`
	Counter uint64 `json:"counter"`
	Piece   int64  `json:"piece"`
}

func keyOf(id dataflow.CheckpointID, piece int64) pieceKey {
	return pieceKey{id.Token.Epoch, id.Token.Site, id.Token.Attempt, id.Counter, piece}
}

func (k pieceKey) id() dataflow.CheckpointID {
	return dataflow.CheckpointID{Token: dataflow.FencingToken{Epoch: k.Epoch, Site: k.Site, Attempt: k.Attempt}, Counter: k.Counter}
}

// progress is what a journal holds: the piece that is furthest on its way.
type progress struct {
	Seq   uint64    `json:"seq"`
	QoS   byte      `json:"qos"`
	Piece pieceKey  `json:"piece"` // zero: of none; see forget
	Half  int       `json:"half"`  // which half of the packet ids its rows have: 0 or 1
	Stage stage     `json:"stage"`
	Next  *pieceKey `json:"next,omitempty"` // opened as well, with the other half

	Holder *holder `json:"holder,omitempty"` // the attempt that had the client id last, as far as this agent knows; nil: there was no site
}

// holder is an attempt of a job in a site.
type holder struct {
	Epoch   uint64 `json:"epoch"`
	Site    string `json:"site,omitempty"`
	Attempt uint64 `json:"attempt"`
}

// open is the piece whose rows may be with the broker, not released; nil: none.
func (e *progress) open() (*pieceKey, int) {
	if e.Stage == opened {
		return &e.Piece, e.Half
	}
	return e.Next, 1 - e.Half
}

// has tells whether the broker has all of k, so that it must not be published
// again.
func (e *progress) has(k pieceKey) bool {
	switch {
	case e.Piece == k:
		return e.Stage != opened
	case e.Piece.id() == k.id():
		return k.Piece < e.Piece.Piece
	}
	return k.id().Less(e.Piece.id())
}

const (
	slotSize  = 1024
	slotHead  = 12
	slotMagic = 0x544d4a31 // "TMJ1"
)

// journal is two slots that are written in turn, so that one always holds. A
// nil journal forgets everything with the process.
type journal struct {
	fs   durable.FS
	name string
	file durable.File
	last *progress // nil: none
	me   *holder   // of what is saved
}

// journalName is the file of a client id, whose characters a file name may not
// be able to hold.
func journalName(dir, clientID string) string {
	d := sha256.Sum256([]byte(clientID))
	return filepath.Join(dir, "mqtt-"+hex.EncodeToString(d[:16])+".journal")
}

func openJournal(fsys durable.FS, dir, clientID string) (*journal, error) {
	if dir == "" {
		return &journal{}, nil
	}
	j := &journal{fs: fsys, name: journalName(dir, clientID)}
	folders, err := pending.MakeFolders(fsys, j.name)
	if err != nil {
		return nil, j.fault(err)
	}
	f, err := fsys.Open(j.name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, j.fault(err)
	}
	j.file = f
	if err := j.load(); err != nil {
		return nil, j.fault(errors.Join(err, f.Close()))
	}
	if err := pending.SyncFolders(fsys, folders); err != nil {
		return nil, j.fault(errors.Join(err, f.Close()))
	}
	return j, nil
}

func (j *journal) load() error {
	var buf [slotSize]byte
	for i := range int64(2) {
		n, err := j.file.ReadAt(buf[:], i*slotSize)
		if err != nil && err != io.EOF {
			return err
		}
		if e, ok := decodeProgress(buf[:n]); ok && (j.last == nil || e.Seq > j.last.Seq) {
			j.last = e
		}
	}
	return nil
}

// save makes e durable. After an error the entry before it, or e, is there: e
// must be true when save is called, and only acted on when it has returned.
func (j *journal) save(e progress) error {
	e.Holder = j.me
	if j.last != nil {
		e.Seq = j.last.Seq + 1
	}
	if j.file != nil {
		slot, err := encodeProgress(&e)
		if err != nil {
			return j.fault(err)
		}
		if _, err := j.file.WriteAt(slot, int64(e.Seq%2)*slotSize); err != nil {
			return j.fault(err)
		}
		if err := j.file.Sync(); err != nil {
			return j.fault(err)
		}
	}
	j.last = &e
	return nil
}

// forget makes the journal say nothing: of a job that was here before, whose
// checkpoints may have had the ids of ours.
func (j *journal) forget() error {
	if j.last == nil {
		return nil
	}
	return j.save(progress{Stage: complete})
}

// hold makes the journal that of an attempt. It tells the truth about the session
// only if nobody else can have had the client id since it was written: if that
// was in the attempt before this one, or in this one. Otherwise it forgets.
func (j *journal) hold(p *sensors.Placed) error {
	was := (*holder)(nil)
	if j.last != nil {
		was = j.last.Holder
	}
	if p.Node == "" {
		if was != nil {
			return j.forget()
		}
		return nil
	}
	j.me = &holder{p.Attempt.Epoch, p.Attempt.Site, p.Attempt.Attempt}
	if was != nil && was.Epoch == j.me.Epoch && was.Site == j.me.Site && (was.Attempt == j.me.Attempt || was.Attempt+1 == j.me.Attempt) {
		return j.save(*j.last)
	}
	return j.save(progress{Stage: complete})
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

func (j *journal) fault(err error) error { return roomFault("journal "+j.name, err) }

func encodeProgress(e *progress) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if len(text) > slotSize-slotHead {
		return nil, fmt.Errorf("an entry of %d bytes; the most are %d: the site's name is too long", len(text), slotSize-slotHead)
	}
	slot := make([]byte, slotSize)
	binary.BigEndian.PutUint32(slot, slotMagic)
	binary.BigEndian.PutUint32(slot[4:], uint32(len(text)))
	binary.BigEndian.PutUint32(slot[8:], crc32.ChecksumIEEE(text))
	copy(slot[slotHead:], text)
	return slot, nil
}

// decodeProgress reads a slot; false: it was never written, or not to its end.
func decodeProgress(slot []byte) (*progress, bool) {
	if len(slot) < slotHead || binary.BigEndian.Uint32(slot) != slotMagic {
		return nil, false
	}
	n := binary.BigEndian.Uint32(slot[4:])
	if n > uint32(len(slot)-slotHead) {
		return nil, false
	}
	text := slot[slotHead : slotHead+n]
	if binary.BigEndian.Uint32(slot[8:]) != crc32.ChecksumIEEE(text) {
		return nil, false
	}
	var e progress
	if json.Unmarshal(text, &e) != nil || e.Half != 0 && e.Half != 1 || e.Stage != opened && e.Stage != released && e.Stage != complete {
		return nil, false
	}
	return &e, true
}
