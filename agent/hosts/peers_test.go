//go:build hosts

package hosts

import (
	"bufio"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Foreign clients at both ends: mosquitto_pub writes what the job reads, and
// mosquitto_sub reads what it writes.
func TestHostsMosquittoClients(t *testing.T) {
	t.Parallel()
	sub, pub := program(t, "mosquitto_sub"), program(t, "mosquitto_pub")
	m := startMosquitto(t, raised+"log_type subscribe\n")
	port := fmt.Sprint(m.port)
	reader := launch(t, t.TempDir(), nil, sub, "-h", "127.0.0.1", "-p", port, "-t", "alerts/#", "-q", "1", "-C", "3", "-F", "%q %t %p")
	m.says(t, "alerts/#")
	r := run(t, fmt.Sprintf(`
name: peers
sources:
  readings:
    mqtt: {broker: "%[1]s", topics: [in/+]}
    format: json
    fields: {room: {type: string, topic: 1}, n: bigint, text: string}
steps:
  - {id: some, from: readings, where: n >= 2}
sinks:
  - {id: out, from: some, mqtt: {broker: "%[1]s", topic: "alerts/{room}"}}
`, m.url()))
	r.says(t, "subscribed")

	in := exec.Command(pub, "-h", "127.0.0.1", "-p", port, "-t", "in/cold", "-q", "1", "-l")
	in.Stdin = strings.NewReader("{\"n\":1,\"text\":\"a\"}\n{\"n\":2,\"text\":\"b\"}\nno json\n{\"n\":3,\"text\":\"ü \\\"quoted\\\"\"}\n{\"n\":4,\"text\":null}\n")
	if out, err := in.CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
	if code := reader.exit(t); code != 0 {
		t.Fatalf("mosquitto_sub: exit code %d", code)
	}
	if got := r.stop(t); got.In != 5 || got.Out != 3 || got.Rejected != 1 {
		t.Errorf("totals %+v", got)
	}
	var got []string
	for lines := bufio.NewScanner(strings.NewReader(reader.output())); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "1 alerts/") {
			got = append(got, lines.Text())
		}
	}
	want := []string{
		`1 alerts/cold {"room":"cold","n":2,"text":"b"}`,
		`1 alerts/cold {"room":"cold","n":3,"text":"ü \"quoted\""}`,
		`1 alerts/cold {"room":"cold","n":4,"text":null}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("mosquitto_sub read\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
