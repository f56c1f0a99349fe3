package fleet_test

import (
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent/fleet"
	"github.com/tidemark-mesh/tidemark/sensors/broker"
)

// A password in the broker's URL is used and never shown, whatever goes wrong.
func TestPasswordIsNotShown(t *testing.T) {
	const password = "hush-hush"
	b, err := broker.Start(broker.Options{Users: map[string]string{"edge": password}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p, err := fleet.Connect("mqtt://edge:"+password+"@"+b.Addr(), "a", 1)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Broker(); got != "mqtt://"+b.Addr() {
		t.Errorf("the broker is shown as %s", got)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	for name, url := range map[string]string{
		"refused":   "mqtt://nobody:" + password + "@" + b.Addr(),
		"no host":   "mqtt://edge:" + password + "@",
		"no URL":    "mqtt://edge:" + password + "@ho st",
		"no scheme": "http://edge:" + password + "@" + b.Addr(),
		"no TLS":    "mqtts://edge:" + password + "@" + b.Addr(), // and never in the clear instead
	} {
		if _, err := fleet.Connect(url, "b", 1); err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
