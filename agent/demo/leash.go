package demo

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// leashEnv is set in the environment of a demo's agents: the demo's folder.
const leashEnv = "TIDEMARK_DEMO_FOLDER"

// tidyEnv is set in that of a process that only removes the folder and ends.
const tidyEnv = "TIDEMARK_DEMO_TIDY"

// folderPrefix begins the name of every demo's folder.
const folderPrefix = "tidemark-demo-"

// Leash ends this process when its stdin does, if it is an agent that a demo
// started: a demo that is killed leaves no agents behind, nor their folder. Every
// program that runs demos calls it first.
func Leash() {
	folder := os.Getenv(leashEnv)
	switch {
	case folder == "":
		return
	case os.Getenv(tidyEnv) != "":
		tidy(folder)
		os.Exit(1)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the demo, whatever the error is
		again(tidyEnv + "=1")                // else the agent would make again what is removed
		tidy(folder)
		os.Exit(1)
	}()
}

// tidy removes a demo's folder, into which other agents may still be writing.
func tidy(folder string) {
	if !strings.HasPrefix(filepath.Base(folder), folderPrefix) {
		return
	}
	for range 20 {
		if os.RemoveAll(folder) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
