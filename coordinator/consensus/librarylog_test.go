package consensus

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// What the library says again and again is one line a minute.
func TestLibraryRepeatsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		log := libraryLog(func(e Event) { told = append(told, e.Text) })
		for i := range 3 {
			log.Error("failed to heartbeat to", "peer", "b", "backoff", i)
			log.Info("entering follower state")
		}
		log.Warn("heartbeat timeout reached")
		time.Sleep(sayAgain)
		log.Error("failed to heartbeat to", "peer", "c", "backoff", 9)
		log.Warn("heartbeat timeout reached")
		want := []string{
			"[ERROR] failed to heartbeat to: peer=b backoff=0",
			"[WARN]  heartbeat timeout reached",
			"[ERROR] failed to heartbeat to: peer=c backoff=9 (said 2 times more in the last 1m0s)",
			"[WARN]  heartbeat timeout reached",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told:\n%q\nwant:\n%q", told, want)
		}
	})
}
