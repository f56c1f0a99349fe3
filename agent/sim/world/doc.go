// Package world is what a simulated site lives in: time, events, machines with
// their disks and processes, streams between them that break, an MQTT broker
// outside. One seed decides all; there is no clock, no socket, no goroutine.
//
// It knows nothing of sites, agents or jobs: whoever runs in a process says what
// the process serves (Proc.Serve, Proc.Answer) and what it begins with
// (Node.Boot).
package world
