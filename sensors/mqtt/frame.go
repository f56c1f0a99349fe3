package mqtt

import "encoding/binary"

// First bytes of the packets that are framed here.
const (
	framePublish = 0x30
	framePuback  = 0x40
	framePubrec  = 0x50
	framePubrel  = 0x62
	framePubcomp = 0x70
	frameDup     = 0x08
	frameRetain  = 0x01
)

var pingreq = [2]byte{0xC0, 0}

// maxRemaining is the most that a packet's length field can say.
const maxRemaining = 268_435_455

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP.
func appendAck(dst []byte, first byte, id uint16) []byte {
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// appendPublish appends a PUBLISH. Topic and payload together must not exceed
// maxRemaining - 4, the topic 65,535.
func appendPublish(dst []byte, qos byte, retain bool, id uint16, topic, payload []byte) []byte {
	first := byte(framePublish) | qos<<1
	if retain {
		first |= frameRetain
	}
	n := 2 + len(topic) + len(payload)
	if qos > 0 {
		n += 2
	}
	dst = append(dst, first)
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	dst = append(dst, byte(n))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(topic)))
	dst = append(dst, topic...)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	return append(dst, payload...)
}
