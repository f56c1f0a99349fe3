package consensus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/tidemark-mesh/tidemark/mesh"
)

// Each line of a script's "members" is a member: its node, its host, and any of
// voter, leader, gone (not alive), behind (not caught up), leaving. "at" is the time; with
// "settle" changes are made until there are none, as the driver does.
func TestVoters(t *testing.T) {
	datadriven.Walk(t, "testdata/voters", func(t *testing.T, path string) {
		b := newBallot(5, 3*time.Second, 10*time.Second)
		var members []Candidate
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "max":
				d.ScanArgs(t, "voters", &b.max)
				return ""
			case "members":
				members = readMembers(t, d.Input)
				fallthrough
			case "at":
				var at string
				d.ScanArgs(t, "at", &at)
				after, err := time.ParseDuration(at)
				if err != nil {
					d.Fatalf(t, "%v", err)
				}
				return settle(t, b, time.Unix(0, 0).Add(after), members, d.HasArg("settle"))
			}
			d.Fatalf(t, "no such command: %s", d.Cmd)
			return ""
		})
	})
}

func readMembers(t *testing.T, in string) (members []Candidate) {
	for _, line := range strings.Split(strings.TrimSpace(in), "\n") {
		w := strings.Fields(line)
		c := Candidate{Node: mesh.NodeID(w[0]), Host: w[1], Alive: true, CaughtUp: true, Reached: true}
		for _, word := range w[2:] {
			switch word {
			case "voter":
				c.Voter = true
			case "leader":
				c.Voter, c.Leader = true, true
			case "gone":
				c.Alive, c.Reached = false, false
			case "leaving":
				c.Leaving = true
			case "behind":
				c.CaughtUp = false
			default:
				t.Fatalf("no such word: %s", word)
			}
		}
		members = append(members, c)
	}
	return members
}

// settle says what is changed, in members too, and the voters then.
func settle(t *testing.T, b *ballot, now time.Time, members []Candidate, on bool) string {
	var said strings.Builder
	for round := 0; ; round++ {
		if round == 20 {
			t.Fatalf("it never settles:\n%s", &said)
		}
		promote, demote := b.choose(now, members)
		if promote != "" && demote != "" {
			t.Fatalf("two changes at once: %s and %s", promote, demote)
		}
		for i := range members {
			if members[i].Leader && members[i].Node == demote {
				t.Fatalf("the leader loses its vote")
			}
			members[i].Voter = (members[i].Voter || members[i].Node == promote) && members[i].Node != demote
		}
		switch {
		case promote != "":
			fmt.Fprintf(&said, "promote %s\n", promote)
		case demote != "":
			fmt.Fprintf(&said, "demote %s\n", demote)
		}
		if !on || promote == "" && demote == "" {
			break
		}
	}
	var voters []string
	for _, m := range members {
		if m.Voter {
			voters = append(voters, string(m.Node))
		}
	}
	return said.String() + "voters " + strings.Join(voters, " ") + "\n"
}
