//go:build unix

package agent_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-mesh/tidemark/agent"
	"github.com/tidemark-mesh/tidemark/agent/durable"
)

// killed is the environment of a child process: the state folder, the output,
// the parallelism, and after how many checkpoints it kills itself.
const killed = "TIDEMARK_TEST_KILLED"

// TestKilledChild is the child of TestKill9: a process that kills itself with
// the signal that nothing can be done about.
func TestKilledChild(t *testing.T) {
	env, ok := os.LookupEnv(killed)
	if !ok {
		t.Skip("it is TestKill9's child")
	}
	f := strings.Split(env, "|")
	parallelism, _ := strconv.Atoi(f[2])
	left, _ := strconv.Atoi(f[3])
	state, err := agent.OpenState(f[0], agent.StateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	local, err := agent.NewLocal(load(t, fmt.Sprintf(countJob, killRows, f[1]), setting{parallelism: parallelism}), agent.LocalOptions{
		State: state, Checkpoints: func(durable.Completed) {
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := local.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
}

const killRows int64 = 1_500_000

// TestKill9: a process that is killed with signal 9 again and again, and goes on
// with another parallelism each time, counts every row once.
func TestKill9(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out.jsonl")
	r := rand.New(rand.NewPCG(7, 1))
	kills := 0
	for ended := false; !ended; {
		after := 1 + r.IntN(3)
		if kills == 8 {
			after = 1 << 30
		}
		cmd := exec.Command(self, "-test.run=^TestKilledChild$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%s|%d|%d", killed, filepath.Join(dir, "state"), out, 1+r.IntN(4), after))
		said, err := cmd.CombinedOutput()
		switch status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); {
		case err == nil:
			ended = true
		case status.Signaled() && status.Signal() == syscall.SIGKILL:
			kills++
		default:
			t.Fatalf("%v\n%s", err, said)
		}
	}
	if kills == 0 {
		t.Error("it ended before it could be killed")
	}
	if n, sum := total(t, out, "n"), total(t, out, "total"); n != killRows || sum != killRows*(killRows-1)/2 {
		t.Errorf("after %d kills %d rows with the sum %d, want %d and %d", kills, n, sum, killRows, killRows*(killRows-1)/2)
	}
	t.Logf("%d kills", kills)
}
