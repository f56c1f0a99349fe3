// Package sim runs the cores of a whole site from one seed: no clock, no socket,
// no disk, no goroutine. Checkers judge every step. Here are the entry (Run), the
// jobs, the faults of a schedule, and people who use the site (clients.go).
//
//	sim -> site -> work -> judge -> world
//
// world is time, machines, disks, streams and the broker; work what agents do,
// site what decides in them, judge the checkers. docs/SIMULATION.md says what is
// real and what is modelled, and how to replay a seed.
package sim
