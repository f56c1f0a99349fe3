package mqtt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
)

// kept collects what a feed of readers, one after the other, has in its log.
type kept struct{ log []*sensors.Records }

func (k *kept) recall(yield func(*sensors.Records) bool) {
	for _, r := range k.log {
		if !yield(r) {
			return
		}
	}
}

// until reads, and acknowledges what was read, until the payload comes.
func (k *kept) until(t testing.TB, r *mqtt.Reader, last string) (got []string) {
	t.Helper()
	for ctx := timeout(t); len(got) == 0 || got[len(got)-1] != last; {
		out := new(sensors.Records)
		if err := r.Read(ctx, out, 1); err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		k.log = append(k.log, out)
		if out.Len() > 0 {
			got = append(got, string(out.Payload(0)))
			r.Ack(sensors.Position{Split: out.Split, Offset: out.Next})
		}
	}
	return got
}

func retainedOn(id uint16, topic, text string) *packets.PublishPacket {
	m := publish(id, 1, false, text)
	m.Retain, m.TopicName = true, "t/"+topic
	return m
}

// The first subscription is one that the broker has granted. A connection that
// ends before that, or filters that are refused, take nothing away; nor does
// another process that goes on from there.
func TestRetainedFirstIsGranted(t *testing.T) {
	for _, restart := range []string{"no", "without a log", "with what is in the log"} {
		for _, known := range []bool{false, true} {
			p, log := newPeer(t), new(kept)
			r, ev := feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
			c := p.connect(t, 0, false)
			c.suback(0x80)
			ev.wait(t, mqtt.Refused)
			if restart == "with what is in the log" {
				out := new(sensors.Records)
				for len(out.Notes) == 0 {
					if err := r.Read(timeout(t), out, 1); err != nil {
						t.Fatal(err)
					}
				}
				log.log = append(log.log, out)
			}
			if restart != "no" {
				_ = r.Close()
				p = newPeer(t) // the other one may have an attempt of the reader that is gone
				r, _ = feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
			}
			c = p.session(t, known)
			c.send(retainedOn(1, "a", "R1"))
			c.send(publish(2, 1, false, "live"))
			wants(t, log.until(t, r, "live"), "R1", "live")
			_ = r.Close()
		}
	}
}

// The first subscription's retained messages are cut off with their connection or
// process. What waited in the broker's queue then comes like that of the next
// subscription, which brings everything once more: each is taken once.
func TestRetainedRest(t *testing.T) {
	for _, restart := range []bool{false, true} {
		p, log := newPeer(t), new(kept)
		r, ev := feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
		c := p.session(t, false)
		c.send(retainedOn(1, "a", "Ra"))
		c.send(retainedOn(2, "b", "Rb"))
		wants(t, log.until(t, r, "Rb"), "Ra", "Rb")
		again := func() {
			if restart {
				_ = r.Close()
				r, ev = feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
				return
			}
			c.cut()
			ev.wait(t, mqtt.Lost)
		}
		again()
		live := publish(4, 1, false, "live")
		live.TopicName = "t/d"
		c = p.session(t, true, retainedOn(3, "c", "Rc"), live)
		for i, topic := range []string{"a", "b", "c", "d", "e"} {
			c.send(retainedOn(uint16(i+5), topic, "R"+topic+" anew"))
		}
		c.send(publish(10, 1, false, "end"))
		wants(t, log.until(t, r, "end"), "Rc", "live", "Re anew", "end")
		again()
		c = p.session(t, false) // the broker lost it: that is no first subscription
		c.send(retainedOn(1, "f", "Rf"))
		c.send(publish(2, 1, false, "end"))
		wants(t, log.until(t, r, "end"), "end")
		again()
		c = p.session(t, true)
		c.send(retainedOn(3, "f", "Rf"))
		c.send(publish(4, 1, false, "last"))
		wants(t, log.until(t, r, "last"), "last")
		_ = r.Close()
	}
}

// A log whose beginning is gone does not say what came: nothing is taken twice.
func TestRetainedWithHalfALog(t *testing.T) {
	p, log := newPeer(t), new(kept)
	for i, known := range []bool{false, false, true, true} {
		r, _ := feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
		c := p.session(t, known)
		c.send(publish(uint16(2*i+1), 1, false, "live"))
		log.until(t, r, "live")
		if i >= 2 {
			c.send(retainedOn(uint16(2*i+2), "b", "Rb"))
			c.send(publish(uint16(2*i+3), 1, false, "end"))
			wants(t, log.until(t, r, "end"), "end")
		}
		_ = r.Close()
		if i == 1 { // what is left begins with the second session
			log.log = log.log[slices.IndexFunc(log.log, func(r *sensors.Records) bool { return len(r.Notes) > 0 && r.Notes[0] == 2<<24 }):]
		}
	}
	log.log = log.log[1:] // and without its note
	r, _ := feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
	c := p.session(t, true, retainedOn(20, "b", "Rb"))
	c.send(publish(21, 1, false, "end"))
	wants(t, log.until(t, r, "end"), "end")
}

func TestRetained(t *testing.T) {
	for policy, want := range map[mqtt.Retained]string{mqtt.RetainedFirst: "R1 live R2x live", mqtt.RetainedAll: "R1 live R2 live", mqtt.RetainedNever: "live live"} {
		p := newPeer(t)
		r, ev := feed(t, p, mqtt.ReaderOptions{Retained: policy})
		retained := func(id uint16, dup bool, text string) *packets.PublishPacket {
			m := publish(id, 1, dup, text)
			m.Retain = true
			return m
		}
		var got string
		collect := func() {
			for !strings.HasSuffix(got, "live") {
				got += " " + read(t, r, 1, true)[0]
			}
		}
		c := p.session(t, false)
		c.send(retained(1, false, "R1"))
		if policy == mqtt.RetainedNever {
			c.acks(packets.Puback, 1) // what is dropped is acknowledged at once
		}
		c.send(publish(2, 1, false, "live"))
		collect()
		if policy != mqtt.RetainedNever {
			c.acks(packets.Puback, 1)
		}
		c.acks(packets.Puback, 2)
		c.cut()
		ev.wait(t, mqtt.Lost)
		c = p.session(t, true)
		if policy == mqtt.RetainedFirst {
			// The rest of the first subscription, cut off, still belongs to it.
			c.send(retained(3, true, "R2x"))
		}
		c.send(retained(4, false, "R2"))
		c.send(publish(5, 1, false, "live"))
		got += " "
		collect()
		if policy == mqtt.RetainedFirst {
			c.acks(packets.Puback, 3)
		}
		c.acks(packets.Puback, 4, 5)
		if f := strings.Join(strings.Fields(got), " "); f != want {
			t.Errorf("policy %d: got %s, want %s", policy, f, want)
		}
	}
}

// The broker loses the session before anything of it was read, so that two begin before
// the log has one: it still begins with the first, and the next process knows that what it
// lacks of the first subscription is yet to come.
func TestRetainedFirstThoughTwoSessionsBegan(t *testing.T) {
	for _, lost := range []int{0, 1, 3} {
		p, log := newPeer(t), new(kept)
		r, ev := feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
		for range lost {
			c := p.connect(t, 0, false)
			ev.wait(t, mqtt.Connected)
			c.cut()
			ev.wait(t, mqtt.Lost)
		}
		c := p.session(t, false)
		c.send(retainedOn(1, "a", "R1"))
		log.until(t, r, "R1")
		_ = r.Close()
		p = newPeer(t)
		r, _ = feed(t, p, mqtt.ReaderOptions{Recall: log.recall})
		c = p.session(t, true)
		c.send(retainedOn(2, "b", "R2"))
		c.send(publish(3, 1, false, "live"))
		wants(t, log.until(t, r, "live"), "R2", "live")
		_ = r.Close()
	}
}
