package config_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/config"
)

func check(t *testing.T, text string) (config.Config, error) {
	t.Helper()
	c, err := config.Parse("agent.yaml", []byte(text))
	if err != nil {
		return c, err
	}
	return c, c.Check()
}

func TestDefaultsWillDo(t *testing.T) {
	c, err := check(t, "# nothing\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.GossipBind != "0.0.0.0:7072" || c.WANBind != "0.0.0.0:7073" || c.WAN.Connections != 4 || c.WAN.Rate != 0 || c.HTTP.Bind != config.DefaultHTTP || c.Slots < 1 {
		t.Errorf("%+v", c)
	}
}

func TestFileOverDefaults(t *testing.T) {
	c, err := check(t, `
name: n1
site: plant
data_dir: /tmp/x
slots: 3
memory: 64MiB
bind: 127.0.0.1:9000
labels: {rack: a}
join: [10.0.0.1:7071, "b:7071"]
http: {bind: "127.0.0.1:9002"}
wan: {rate: 2MB}
advertise: 10.0.0.9:100
`)
	if err != nil {
		t.Fatal(err)
	}
	if c.Memory != 64<<20 || c.GossipBind != "127.0.0.1:9001" || c.WANBind != "127.0.0.1:9002" || c.WANAdvertise != "10.0.0.9:102" ||
		c.WAN != (config.WAN{Rate: 2_000_000, Connections: 4}) || c.Labels["rack"] != "a" || len(c.Join) != 2 || c.HTTP.Bind != "127.0.0.1:9002" {
		t.Errorf("%+v", c)
	}
}

// TestEverythingWrongAtOnce: each line names the file, the line, the key and what
// to do.
func TestEverythingWrongAtOnce(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"nmae: x\nslots: many\nhttp: {bnd: 1}\n", []string{
			`agent.yaml:1: nmae: is no key; did you mean "name"?`,
			`agent.yaml:2: slots: cannot unmarshal`,
			`agent.yaml:3: http.bnd: is no key; did you mean "bind"?`,
		}},
		{"name: a\nname: b\n", []string{"agent.yaml:2: name: stands here twice"}},
		{"- a\n", []string{"agent.yaml:1: : a mapping of keys is wanted"}},
		{"memory: 12\n", []string{`agent.yaml:1: memory: "12" has no unit`}},
		{"name: a b\nslots: -1\nvoters: 2\nbind: here\nhttp: {bind: \"0.0.0.0:7070\"}\ntoken: ${x}\n", []string{
			`name: "a b": letters, digits`, "slots: -1; between 0 and 4096", "voters: 2; a site has 1, 3 or 5", `bind: "here" is no host:port`,
			"http.bind: 0.0.0.0:7070 is open to others; give http.cert, http.key and http.token", "token: ",
		}},
		{"dev: true\nbind: 0.0.0.0:7000\njoin: [\"10.0.0.1:1\"]\n", []string{"bind: 0.0.0.0:7000 is not loopback", "join[0]: 10.0.0.1:1 is not loopback"}},
		{"wan_bind: x\nwan: {rate: 1kB, connections: 0}\nreplication: {keep: 0B}\n", []string{"replication.keep: 0 bytes", `wan_bind: "x" is no host:port`, "wan.rate: 1000 bytes a second are too few", "wan.connections: 0; between 1 and 16"}},
		{"bind: 127.0.0.1:65534\n", []string{`wan_bind: "127.0.0.1:65536": the port is a number up to 65535`}},
		{"http: {bind: \"0.0.0.0:1\", cert: a, token: \"${env:T}\"}\n", []string{"http: cert and key belong together"}},
	} {
		_, err := check(t, c.text)
		if err == nil {
			t.Errorf("%q: accepted", c.text)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q:\n%v\nlacks %q", c.text, err, w)
			}
		}
	}
}

func TestDevIsLoopback(t *testing.T) {
	c, err := check(t, "dev: true\n")
	if err != nil || !config.Loopback(c.Bind) || !config.Loopback(c.GossipBind) || !config.Loopback(c.WANBind) || !config.Loopback(c.HTTP.Bind) {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestExplainSaysWhatIsInForce: what it prints is a file that says the same, and
// no secret stands in it.
func TestExplainSaysWhatIsInForce(t *testing.T) {
	c, err := check(t, "name: n1\nlabels: {b: \"2\", a: \"1\"}\njoin: [\"a:1\"]\ntoken: s3cret\nhttp: {token: \"${env:T}\"}\n")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Explain(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "s3cret") || !strings.Contains(out.String(), "${env:T}") {
		t.Errorf("secrets:\n%s", out.String())
	}
	again, err := check(t, strings.Replace(out.String(), "(given)", "s3cret", 1))
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	var second strings.Builder
	_ = again.Explain(&second)
	if out.String() != second.String() {
		t.Errorf("it said\n%s\nand then\n%s", out.String(), second.String())
	}
}

func FuzzParse(f *testing.F) {
	f.Add("name: a\nhttp: {bind: x}\nlabels: {a: b}\n")
	f.Add("{{{")
	f.Add("a: &x [*x]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse("f", []byte(text))
		if err == nil {
			_ = c.Check()
		}
	})
}
