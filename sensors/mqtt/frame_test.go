package mqtt

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestFrameGolden(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, 200)
	for _, c := range []struct {
		name string
		got  []byte
		want string // hexadecimal, or its beginning
	}{
		{"QoS 0", appendPublish(nil, 0, false, 0, []byte("a/b"), []byte("hi")), "300700" + "03" + "612f62" + "6869"},
		{"QoS 1, retained", appendPublish(nil, 1, true, 0x1234, []byte("a"), nil), "3305" + "0001" + "61" + "1234"},
		{"QoS 2, length of two bytes", appendPublish(nil, 2, false, 7, []byte("a"), long), "34cd01" + "0001" + "61" + "0007" + "7878"},
		{"PUBACK", appendAck(nil, framePuback, 0xfffe), "4002fffe"},
		{"PUBREC", appendAck(nil, framePubrec, 1), "50020001"},
		{"PUBREL", appendAck(nil, framePubrel, 1), "62020001"},
		{"PINGREQ", pingreq[:], "c000"},
	} {
		if got := hex.EncodeToString(c.got); len(got) < len(c.want) || got[:len(c.want)] != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// FuzzPublish: what is framed here is what paho's parser reads.
func FuzzPublish(f *testing.F) {
	f.Add(byte(1), false, uint16(7), []byte("a/b"), []byte("payload"))
	f.Add(byte(0), true, uint16(0), []byte("t"), []byte{})
	f.Add(byte(2), false, uint16(65535), []byte("t"), bytes.Repeat([]byte("0123456789"), 2000))
	f.Fuzz(func(t *testing.T, qos byte, retain bool, id uint16, topic, payload []byte) {
		qos %= 3
		if len(topic) > 65535 || len(topic) == 0 || qos > 0 && id == 0 {
			return
		}
		if len(payload) == 0 {
			payload = nil // paho's parser reads nothing from nothing
		}
		frame := appendPublish([]byte("before"), qos, retain, id, topic, payload)
		if !bytes.HasPrefix(frame, []byte("before")) {
			t.Fatal("overwrote what was there")
		}
		in := bytes.NewReader(frame[len("before"):])
		p, err := packets.ReadPacket(in)
		if err != nil && len(payload) > 0 {
			t.Fatal(err)
		}
		m, ok := p.(*packets.PublishPacket)
		if !ok || m.TopicName != string(topic) || !bytes.Equal(m.Payload, payload) || m.Qos != qos || m.Retain != retain || m.Dup || in.Len() != 0 {
			t.Fatalf("read back as %v, %d bytes left", p, in.Len())
		}
		if qos > 0 && m.MessageID != id {
			t.Fatalf("id %d, want %d", m.MessageID, id)
		}
	})
}
