package mqtt

import (
	"errors"
	"fmt"
)

// Types of packets, the upper half of their first byte.
const (
	packetSuback   = 9
	packetPingresp = 13
)

var errLength = errors.New("the length of a packet cannot be read")

// inbound follows the packets that paho is about to read, by their headers: what
// paho would stumble over does not come that far. It belongs to conn.Read.
type inbound struct {
	kind   byte // of the packet that is read; 0: its first byte is still to come
	length int  // of its body, as far as that is known
	shift  int  // bits of length that came
	body   int  // bytes of the body that are still to come; 0 while the header is read
}

// pass takes what was read, and calls head with each header that is complete.
func (b *inbound) pass(p []byte, head func(kind byte, length int) error) error {
	for len(p) > 0 {
		switch {
		case b.body > 0:
			n := min(b.body, len(p))
			b.body -= n
			p = p[n:]
			if b.body == 0 {
				*b = inbound{}
			}
		case b.kind == 0:
			if b.kind = p[0] >> 4; b.kind == 0 {
				return errors.New("a packet of type 0")
			}
			p = p[1:]
		default:
			b.length |= int(p[0]&0x7f) << b.shift
			more := p[0] >= 0x80
			p = p[1:]
			if b.shift += 7; more && b.shift == 28 {
				return errLength
			} else if more {
				continue
			}
			if err := head(b.kind, b.length); err != nil {
				return err
			}
			if b.body = b.length; b.body == 0 {
				*b = inbound{}
			}
		}
	}
	return nil
}

// header looks at the header of a packet that comes in. Paho takes the codes of
// a SUBACK for the filters that were asked for without counting them: it would
// panic over more, and leave filters without an answer over fewer.
func (c *conn) header(kind byte, length int) error {
	if kind != packetPingresp {
		c.came.Add(1)
	}
	if asked := int(c.asked.Load()); kind == packetSuback && length != 2+asked {
		return fmt.Errorf("the broker answers with %d codes to a subscription of %d filters", length-2, asked)
	}
	return nil
}
