package mqtt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/sensors"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
	"github.com/tidemark-mesh/tidemark/sensors/mqtt"
	"github.com/tidemark-mesh/tidemark/sensors/sensortest"
)

// A broker that is down when the reader starts is no error: it tries again,
// later and later, and says so.
func TestBackoff(t *testing.T) {
	addr := sensortest.FreeAddr(t)
	ck, ev := newClock(), newEvents()
	openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: "tcp://" + addr, Clock: ck, Events: ev.add, Rand: func() float64 { return 0.5 },
			BackoffMin: dataflow.Second, BackoffMax: 5 * dataflow.Second},
		Topics: []string{"a"},
	})
	for i, want := range []dataflow.Duration{750, 1500, 3000, 3750, 3750} {
		if e := ev.wait(t, mqtt.Connecting); e.Attempt != i+1 {
			t.Errorf("attempt %d, want %d", e.Attempt, i+1)
		}
		e := ev.wait(t, mqtt.Unreachable)
		if want *= dataflow.Millisecond; e.RetryIn != want || e.Err == nil {
			t.Errorf("attempt %d: next in %v because of %v, want %v", i+1, e.RetryIn, e.Err, want)
		}
		if !strings.Contains(e.String(), addr) || !strings.Contains(e.String(), "next attempt in") {
			t.Errorf("event reads %q", e)
		}
		ck.waits(t, want)
		ck.advance(want)
	}
}

func TestRefused(t *testing.T) {
	for code, word := range map[byte]string{1: "3.1.1", 2: "client id", 3: "available", 4: "password", 5: "authorised"} {
		p := newPeer(t)
		r, ev := feed(t, p, mqtt.ReaderOptions{})
		c := p.connect(t, code, false)
		e := ev.wait(t, mqtt.Refused)
		if !errors.Is(e.Err, mqtt.ErrRefused) || !strings.Contains(e.Err.Error(), word) {
			t.Errorf("code %d: %v", code, e.Err)
		}
		if s := r.Stats(); s.Connected || !strings.Contains(s.Trouble, word) {
			t.Errorf("code %d: %+v", code, s)
		}
		c.cut()
		c = p.session(t, false) // it goes on trying
		c.send(publish(1, 1, false, "a"))
		wants(t, read(t, r, 1, true), "a")
	}
}

func TestWrongPassword(t *testing.T) {
	b := startBrokerWith(t, broker.Options{Users: map[string]string{"edge": "right"}})
	password := make(chan string, 100)
	password <- "wrong"
	ev := newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: "mqtt://" + b.Addr(), ClientID: "r", Username: "edge", Events: ev.add,
			Password: func() (string, error) { return <-password, nil }, BackoffMin: dataflow.Millisecond},
		Topics: []string{"a"}, QoS: 1,
	})
	if e := ev.wait(t, mqtt.Refused); !errors.Is(e.Err, mqtt.ErrRefused) || !strings.Contains(e.Err.Error(), "password") {
		t.Errorf("%v", e)
	} else if strings.Contains(e.String(), "wrong\"") {
		t.Errorf("the password is shown: %v", e)
	}
	password <- "right" // somebody mended it: no restart needed
	ev.wait(t, mqtt.Subscribed)
	w := openWriter(t, mqtt.WriterOptions{
		Connection: mqtt.Connection{Broker: "mqtt://edge:right@" + b.Addr()},
		Topic:      "a", QoS: 1, Schema: oneColumn, Encode: encodeText,
	})
	writeText(t, w, "hello")
	wants(t, read(t, r, 1, true), "hello")
}

func TestSubscriptionRefused(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{Topics: []string{"t/a"}})
	c := p.connect(t, 0, false)
	c.suback(0x80)
	e := ev.wait(t, mqtt.Refused)
	if !errors.Is(e.Err, mqtt.ErrRefused) || len(e.Topics) != 1 || e.Topics[0] != "t/a" {
		t.Errorf("%v", e)
	}
	// Still tries, and takes what is granted, if only in part.
	c = p.connect(t, 0, false)
	c.suback(0)
	if e := ev.wait(t, mqtt.Subscribed); e.Err == nil || !strings.Contains(e.Err.Error(), "QoS 0") {
		t.Errorf("the lower QoS is not told: %v", e)
	}
	c.send(publish(0, 0, false, "a"))
	wants(t, read(t, r, 1, true), "a")
}

// A broker that answers with more or fewer codes than filters, or without a
// question, is left; paho would panic, or leave filters without an answer.
func TestSubscriptionMiscounted(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{Topics: []string{"t/a", "t/b"}})
	for _, codes := range [][]byte{{1, 1, 1}, {1}, {}} {
		c := p.connect(t, 0, true)
		a := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		a.MessageID = c.get().(*packets.SubscribePacket).MessageID
		a.ReturnCodes = codes
		c.send(a)
		if e := ev.wait(t, mqtt.Lost); !strings.Contains(e.Err.Error(), fmt.Sprint(len(codes), " codes to a subscription of 2")) {
			t.Errorf("%v", e.Err)
		}
	}
	c := p.session(t, true)
	c.send(publish(1, 1, false, "a"))
	wants(t, read(t, r, 1, true), "a")
}

func TestSubscriptionRefusedInPart(t *testing.T) {
	p := newPeer(t)
	r, ev := feed(t, p, mqtt.ReaderOptions{Topics: []string{"t/a", "t/b"}})
	c := p.connect(t, 0, false)
	c.suback(1, 0x80)
	if e := ev.wait(t, mqtt.Refused); len(e.Topics) != 1 || e.RetryIn != 0 {
		t.Errorf("%v", e)
	}
	c.send(publish(1, 1, false, "a"))
	wants(t, read(t, r, 1, true), "a")
}

// Two clients with one id throw each other out for ever.
func TestContested(t *testing.T) {
	p, ck, ev := newPeer(t), newClock(), newEvents()
	openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", Clock: ck, Events: ev.add, BackoffMin: dataflow.Hour, BackoffMax: dataflow.Hour},
		Topics:     []string{"t/#"}, QoS: 1,
	})
	for i := range 3 { // no time passes while there is a connection
		c := p.session(t, true)
		ev.wait(t, mqtt.Subscribed)
		c.cut()
		if i < 2 {
			ck.waits(t, dataflow.Hour/2)
			ck.advance(dataflow.Hour)
		}
	}
	e := ev.wait(t, mqtt.Contested)
	if e.Count != 3 || !strings.Contains(e.String(), `"feed"`) {
		t.Errorf("%v", e)
	}
}

// While the broker is away no time passes; a tick says when it is heard again.
func TestDeafAndTicks(t *testing.T) {
	p := newPeer(t)
	ck, ev := newClock(), newEvents()
	const every = 100 * dataflow.Millisecond
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: p.url(), ClientID: "feed", Clock: ck, Events: ev.add, BackoffMin: dataflow.Hour, BackoffMax: dataflow.Hour},
		Topics:     []string{"t/#"}, QoS: 1, TickEvery: every,
	})
	var out sensors.Records
	step := func(want string) int64 {
		t.Helper()
		if err := r.Read(timeout(t), &out, 10); err != nil {
			t.Fatal(err)
		}
		got := "tick"
		if out.Deaf {
			got = "deaf"
		}
		if out.Len() > 0 {
			got = string(out.Payload(0))
		}
		if got != want {
			t.Fatalf("read %s at %d, want %s", got, out.Clock, want)
		}
		return out.Clock
	}
	start := int64(ck.Now())
	if at := step("deaf"); at != start {
		t.Errorf("deaf from %d, want %d", at, start)
	}
	ck.advance(dataflow.Second)
	c := p.session(t, false)
	c.pongs()
	if at := step("tick"); at != start+int64(dataflow.Second) {
		t.Errorf("hears from %d, want one second after %d", at, start)
	}
	// Silence: a tick each interval, however often one asks.
	ticked := make(chan int64)
	for range 3 {
		go func() { ticked <- step("tick") }()
		ck.waits(t, 1)
		ck.advance(every)
		<-ticked
	}
	c.send(publish(1, 1, false, "a"))
	at := step("a")
	ck.advance(-dataflow.Minute) // the wall clock is set back: ours stands
	c.send(publish(2, 1, false, "b"))
	if b := step("b"); b != at || out.Arrivals[0] != at {
		t.Errorf("arrival %d and clock %d after %d", out.Arrivals[0], b, at)
	}
	ck.advance(2 * dataflow.Minute)
	c.cut()
	ev.wait(t, mqtt.Lost)
	deaf := step("deaf")
	ck.waits(t, dataflow.Hour/2)
	ck.advance(dataflow.Hour)
	p.session(t, true).pongs()
	if at := step("tick"); at < deaf+int64(dataflow.Hour) {
		t.Errorf("heard again at %d, deaf from %d", at, deaf)
	}
}

func TestTLS(t *testing.T) {
	cert, ca := selfSigned(t)
	b := startBrokerWith(t, broker.Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	// Without the authority the broker is not believed.
	ev := newEvents()
	openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: "mqtts://" + b.Addr(), Events: ev.add},
		Topics:     []string{"a"},
	})
	var unknown x509.UnknownAuthorityError
	if e := ev.wait(t, mqtt.Unreachable); !errors.As(e.Err, &unknown) {
		t.Errorf("%v, want an unknown authority", e)
	}
	ev = newEvents()
	r := openReader(t, mqtt.ReaderOptions{
		Connection: mqtt.Connection{Broker: "mqtts://" + b.Addr(), ClientID: "r", CAFile: caFile, Events: ev.add},
		Topics:     []string{"a"}, QoS: 1,
	})
	ev.wait(t, mqtt.Subscribed)
	w := openWriter(t, mqtt.WriterOptions{
		Connection: mqtt.Connection{Broker: "ssl://" + b.Addr(), CAFile: caFile},
		Topic:      "a", QoS: 1, Schema: oneColumn, Encode: encodeText,
	})
	writeText(t, w, "one", "two")
	wants(t, read(t, r, 2, true), "one", "two")
}

func selfSigned(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestOptionsRefused(t *testing.T) {
	good := mqtt.ReaderOptions{Connection: mqtt.Connection{Broker: "mqtt://h", ClientID: "c"}, Topics: []string{"a"}, QoS: 1}
	for word, change := range map[string]func(o *mqtt.ReaderOptions){
		"scheme":       func(o *mqtt.ReaderOptions) { o.Broker = "http://user:secret@h" },
		"no host":      func(o *mqtt.ReaderOptions) { o.Broker = "mqtt://" },
		"read":         func(o *mqtt.ReaderOptions) { o.Broker = "mqtt://user:secret@h:x%" },
		"keep-alive":   func(o *mqtt.ReaderOptions) { o.KeepAlive = 1500 * dataflow.Millisecond },
		"qos":          func(o *mqtt.ReaderOptions) { o.QoS = 3 },
		"no topics":    func(o *mqtt.ReaderOptions) { o.Topics = nil },
		"whole level":  func(o *mqtt.ReaderOptions) { o.Topics = []string{"a/b+"} },
		"at the end":   func(o *mqtt.ReaderOptions) { o.Topics = []string{"a/#/b"} },
		"$share/GROUP": func(o *mqtt.ReaderOptions) { o.Topics = []string{"$share/g"} },
		"empty":        func(o *mqtt.ReaderOptions) { o.Topics = []string{""} },
		"client id":    func(o *mqtt.ReaderOptions) { o.ClientID = "" },
		"authority":    func(o *mqtt.ReaderOptions) { o.Broker, o.CAFile = "mqtts://h", "/nowhere/ca.pem" },
		"certificate":  func(o *mqtt.ReaderOptions) { o.Broker, o.CertFile = "mqtts://h", "/nowhere/c.pem" },
		"lanes":        func(o *mqtt.ReaderOptions) { o.Lanes = 5000 },
	} {
		o := good
		change(&o)
		r, err := mqtt.NewReader(o)
		if err == nil {
			_ = r.Close()
			t.Errorf("%s: accepted", word)
		} else if !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error reads %q", word, err)
		}
	}
}

// oneColumn is a schema of one string, which encodeText publishes as it is.
var oneColumn = batch.MustSchema(batch.Field{Name: "text", Type: batch.String})

func encodeText(dst []byte, b *batch.Batch, pos int) []byte { return append(dst, b.Cols[0].At(pos)...) }

func textBatch(texts ...string) *batch.Batch {
	bl := batch.NewBuilder(batch.NewPool(0, nil), oneColumn)
	for _, v := range texts {
		bl.SetString(0, v)
		bl.EndRow(0)
	}
	return bl.Take()
}

func writeText(t testing.TB, w *mqtt.Writer, texts ...string) {
	t.Helper()
	ctx := timeout(t)
	if err := errors.Join(w.Write(ctx, textBatch(texts...)), w.Commit(ctx)); err != nil {
		t.Fatal(err)
	}
}
