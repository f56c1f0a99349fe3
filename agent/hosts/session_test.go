//go:build hosts

package hosts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// small is a fleet that is there only to see rows flow.
var small = scale{publishers: 1, devices: 2, intervals: 3, readings: 4}

// flows sends a small fleet and expects its windows, exactly.
func flows(t *testing.T, r *running, broker string, qos byte) {
	t.Helper()
	f := newFleet(small, broker, qos)
	f.hello(t, small)
	f.send(t, small.messages())
	r.lines(t, "windows.jsonl", small.windows())
	if got := r.stop(t); got.In != int64(small.messages()) {
		t.Errorf("sent %d, totals %+v", small.messages(), got)
	}
	sameWindows(t, r, f.windows(func(*message) bool { return true }), true)
}

// QoS 2 on both sides, with the job's connection cut off again and again:
// everything comes once.
func TestHostsMosquittoExactlyOnce(t *testing.T) {
	t.Parallel()
	s := scale{publishers: 4, devices: 5, intervals: 20, readings: 9}
	m := startMosquitto(t, raised)
	net := newRelay(t, m.addr(), nil, nil)
	f := newFleet(s, m.url(), 2)
	r := run(t, job(net.url(), 2, false))
	r.says(t, "subscribed")
	f.hello(t, s)
	total := s.messages() / s.publishers
	wait := f.sending(total - s.devices*(s.readings+1))
	for cut := range 3 {
		await(t, "publishers to be in the middle", func() bool { return f.acked.Load() > int64((cut+1)*s.messages()/5) }, m.output)
		net.drop()
		r.saysTimes(t, "session resumed", cut+1)
		r.saysTimes(t, "subscribed", cut+2)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	f.send(t, total)
	r.lines(t, "windows.jsonl", s.windows())
	if got := r.stop(t); got.In != int64(s.messages()) || got.Late != 0 {
		t.Errorf("sent %d, totals %+v", s.messages(), got)
	}
	sameWindows(t, r, f.windows(func(*message) bool { return true }), true)
}

// A wrong password is said and tried again; once the file that the job names
// holds the right one, rows flow, without anybody touching the job.
func TestHostsMosquittoWrongPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	users := filepath.Join(dir, "users")
	if out, err := exec.Command(program(t, "mosquitto_passwd"), "-b", "-c", users, "edge", "right").CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	m := startMosquitto(t, raised+"allow_anonymous false\npassword_file "+users+"\n")
	secret := filepath.Join(dir, "password")
	write(t, secret, "wrong-and-not-to-be-shown")
	text := strings.Replace(job(m.url(), 1, false), "qos: 1}", "qos: 1, username: edge, password: \"${file:"+secret+"}\"}", 1)

	r := run(t, text)
	r.saysTimes(t, `refused by the broker.*password is wrong.*next attempt in`, 2)
	write(t, secret, "right")
	r.says(t, "subscribed")
	if strings.Contains(r.output(), "not-to-be-shown") {
		t.Error("the password is shown")
	}
	if got := r.stop(t); got.In != 0 {
		t.Errorf("totals %+v", got)
	}
}

// TLS: a broker whose authority the job names is believed, another is not.
func TestHostsMosquittoTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority(t, dir, "ca")
	authority(t, dir, "other")
	m := newMosquitto(t, raised)
	plain := freePort(t)
	conf := fmt.Sprintf("cafile %[1]s/ca.pem\ncertfile %[1]s/ca-server.pem\nkeyfile %[1]s/ca-server.key\nlistener %[2]d 127.0.0.1\n", dir, plain)
	appendTo(t, filepath.Join(m.dir, "mosquitto.conf"), conf)
	m.start(t)
	text := strings.Replace(job("mqtts://"+m.addr(), 1, false), "qos: 1}", "qos: 1, tls: {ca: "+dir+"/CA.pem}}", 1)

	wrong := run(t, strings.Replace(text, "CA.pem", "other.pem", 1))
	wrong.saysTimes(t, `unreachable.*TLS.*certificate.*next attempt in`, 2)
	wrong.stop(t)

	r := run(t, strings.Replace(text, "CA.pem", "ca.pem", 1))
	r.says(t, "subscribed")
	flows(t, r, fmt.Sprintf("mqtt://127.0.0.1:%d", plain), 1)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, name, text string) {
	t.Helper()
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, string(old)+text)
}

// authority makes NAME.pem, an authority, and NAME-server.pem with its key, a
// server on 127.0.0.1 that it vouches for.
func authority(t *testing.T, dir, name string) {
	t.Helper()
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "broker"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootKey, serverKey := newKey(t), newKey(t)
	signed(t, filepath.Join(dir, name+".pem"), root, root, rootKey, rootKey)
	signed(t, filepath.Join(dir, name+"-server.pem"), server, root, serverKey, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, name+"-server.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t *testing.T, file string, c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, byKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}
