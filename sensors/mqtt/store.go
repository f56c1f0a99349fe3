package mqtt

import (
	"strconv"
	"strings"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// store is the paho.Store of our sessions. It stores nothing, since what must
// survive a connection is kept by the reader's ledger and the writer's window;
// it is where paho tells that a packet id is done with, which its handlers
// never hear. Any of paho's goroutines may call it.
type store struct {
	inDone  func(id uint16) // a PUBREL came: the broker has closed a QoS 2 message
	outDone func(id uint16) // a PUBACK or PUBCOMP came for what we published
}

func (s *store) Open()                            {}
func (s *store) Close()                           {}
func (s *store) Reset()                           {}
func (s *store) All() []string                    { return nil }
func (s *store) Get(string) packets.ControlPacket { return nil }
func (s *store) Put(_ string, p packets.ControlPacket) {
	if rel, ok := p.(*packets.PubrelPacket); ok && s.inDone != nil {
		s.inDone(rel.MessageID)
	}
}

// Del gets "o.ID" for a packet that ended one of ours, and "i.ID" for one of
// ours that ended the broker's.
func (s *store) Del(key string) {
	if n, ours := strings.CutPrefix(key, "o."); ours && s.outDone != nil {
		if id, err := strconv.ParseUint(n, 10, 16); err == nil {
			s.outDone(uint16(id))
		}
	}
}
