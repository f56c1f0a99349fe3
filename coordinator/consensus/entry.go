package consensus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// entryFormat is the first byte of an entry on disk: docs/RAFT.md.
const entryFormat = 1

// appendEntry appends the bytes of an entry on disk to dst.
func appendEntry(dst []byte, l *raft.Log) []byte {
	from := len(dst)
	dst = append(dst, entryFormat, byte(l.Type))
	dst = binary.AppendUvarint(dst, l.Term)
	var at int64 // 0: it has none
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	dst = binary.AppendVarint(dst, at)
	dst = binary.AppendUvarint(dst, uint64(len(l.Extensions)))
	dst = append(dst, l.Extensions...)
	dst = append(dst, l.Data...)
	return binary.LittleEndian.AppendUint32(dst, entrySum(l.Index, dst[from:]))
}

// entrySum covers the index, so that an entry at another one's place is seen.
func entrySum(index uint64, b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, binary.BigEndian.AppendUint64(nil, index))
	return crc32.Update(sum, table, b)
}

// readEntry reads what appendEntry made into l. It keeps nothing of b.
func readEntry(index uint64, b []byte, l *raft.Log) error {
	bad := func(why string) error { return fmt.Errorf("%w: entry %d: %s", ErrCorrupt, index, why) }
	if len(b) < 4 {
		return bad("too short")
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if entrySum(index, body) != sum {
		return bad("wrong checksum")
	}
	if len(body) < 2 || body[0] != entryFormat {
		return bad("unknown format")
	}
	*l = raft.Log{Index: index, Type: raft.LogType(body[1])}
	body = body[2:]
	var n int
	if l.Term, n = binary.Uvarint(body); n <= 0 {
		return bad("no term")
	}
	body = body[n:]
	at, n := binary.Varint(body)
	if n <= 0 {
		return bad("no time")
	}
	body = body[n:]
	if at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	ext, n := binary.Uvarint(body)
	if n <= 0 || ext > uint64(len(body)-n) {
		return bad("no extensions")
	}
	body = body[n:]
	if ext > 0 {
		l.Extensions = append([]byte(nil), body[:ext]...)
	}
	if body = body[ext:]; len(body) > 0 {
		l.Data = append([]byte(nil), body...)
	}
	return nil
}
