package main

import (
	"os"
	"testing"
)

// TestMain keeps the tests away from agents and folders of the machine they run
// on: the default address may be a real agent's, and the environment a person's.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{addrVariable: "http://127.0.0.1:1", tokenVariable: "", folderVariable: ""} {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
