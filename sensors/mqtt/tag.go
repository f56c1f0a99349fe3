package mqtt

// A tag is what the log keeps of a message beside topic and payload, so that
// the message is known again after a restart. It is a format on disk; see
// docs/MQTT.md.
//
//	bits 0–15   packet id; 0 with QoS 0
//	bits 16–17  QoS
//	bit  18     RETAIN
//	bit  19     DUP
//	bits 24–31  the session: counts, from 0, those that the broker lost; wraps
//
// A note has the same session and id: the broker released that id (PUBREL). With
// id 0 it says that the session began.
const (
	tagQoSShift     = 16
	tagRetain       = 1 << 18
	tagDup          = 1 << 19
	tagSessionShift = 24
)

func makeTag(session uint8, id uint16, qos byte, retain, dup bool) uint32 {
	t := uint32(session)<<tagSessionShift | uint32(qos)<<tagQoSShift | uint32(id)
	if retain {
		t |= tagRetain
	}
	if dup {
		t |= tagDup
	}
	return t
}

func makeNote(session uint8, id uint16) uint32 { return makeTag(session, id, 0, false, false) }

func tagID(t uint32) uint16     { return uint16(t) }
func tagQoS(t uint32) byte      { return byte(t>>tagQoSShift) & 3 }
func tagSession(t uint32) uint8 { return uint8(t >> tagSessionShift) }
