package mqtt

import "testing"

// The examples of MQTT 3.1.1, 4.7, and shared filters.
func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"#", "a/b", true},
		{"#", "$SYS/a", false},
		{"+/a", "$SYS/a", false},
		{"$SYS/+", "$SYS/a", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"a/b", "a", false},
		{"a", "a/b", false},
		{"a/b", "a/b", true},
		{"a/b", "a/bc", false},
		{"$share/g/a/+", "a/b", true},
		{"$share/g/a/+", "b/b", false},
	} {
		if got := matches(c.filter, c.topic); got != c.want {
			t.Errorf("%s has %s: %t", c.filter, c.topic, got)
		}
	}
}
