// Package hosts holds tests only: the real binary, beside a real Mosquitto, on
// a real kernel, with what goes wrong there: brokers that die, cables that are
// cut, disks that are full, kill -9.
//
// They stand behind the build tag hosts, because they need what `go test ./...`
// may not ask for: Debian's mosquitto, a loopback network, root for a small
// disk. A test whose need is not met skips with one line that says so. Run them
// with `.ci/run hosts`.
//
// The package owns nothing that others import, and never looks inside the
// binary: files, output, exit codes and what a broker was told are all it
// knows. docs/HOSTS.md says what is tried, and how for longer; what the tests hold
// is written down in docs/MQTT.md, docs/FILES.md and docs/AGENT.md.
// Read host_test.go (processes), mosquitto_test.go (brokers), fleet_test.go
// (publishers, which keep the record that results are compared with), then any
// test.
package hosts
