// Package sim runs the cores of a whole site from one seed: no clock, no socket,
// no disk, no goroutine. Its checkers judge every step.
package sim
