package mqtt

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"pgregory.net/rapid"
)

// Packets of all lengths, read in pieces of any size: each header is told once,
// before the first byte of its body.
func TestInboundProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wire []byte
		var want, got []int
		for range rapid.IntRange(0, 5).Draw(t, "packets") {
			size := rapid.SampledFrom([]int{0, 1, 125, 126, 16380, 16390}).Draw(t, "size")
			wire = appendPublish(wire, 0, false, 0, []byte("t"), make([]byte, size))
			want = append(want, size+3)
			if rapid.Bool().Draw(t, "ping") {
				wire = append(wire, 0xD0, 0)
				want = append(want, 0)
			}
		}
		var b inbound
		for at := 0; at < len(wire); {
			n := min(len(wire)-at, rapid.SampledFrom([]int{1, 1, 2, 3, 100, 10_000}).Draw(t, "read"))
			if err := b.pass(wire[at:at+n], func(_ byte, length int) error { got = append(got, length); return nil }); err != nil {
				t.Fatal(err)
			}
			at += n
		}
		if !slices.Equal(got, want) || b != (inbound{}) {
			t.Fatalf("lengths %v, want %v; then %+v", got, want, b)
		}
	})
}

// A header says what paho reads in it, and what paho cannot read ends here.
func FuzzInbound(f *testing.F) {
	f.Add([]byte{0x30, 0x05, 0, 1, 't', 'x', 'y'})
	f.Add([]byte{0x90, 0x83, 0x00, 0, 1, 1})
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{0x00, 0x00})
	f.Fuzz(func(t *testing.T, wire []byte) {
		wire = wire[:min(len(wire), 5)]
		kind, length := byte(0), -1
		err := new(inbound).pass(wire, func(k byte, n int) error {
			if length < 0 {
				kind, length = k, n
			}
			return errors.New("seen")
		})
		if length >= 0 && length < 1<<16 {
			p, perr := packets.ReadPacket(bytes.NewReader(append(wire[:len(wire):len(wire)], make([]byte, length)...)))
			if h, ok := p.(*packets.PublishPacket); ok && perr == nil && (kind != packets.Publish || h.RemainingLength != length) {
				t.Errorf("% x: type %d of %d bytes, and paho reads %d", wire, kind, length, h.RemainingLength)
			}
		} else if len(wire) == 5 && err == nil {
			t.Errorf("% x: no header in five bytes", wire)
		}
	})
}
