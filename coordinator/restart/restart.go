// Package restart decides whether a job that failed is started again, and when.
// It is told of failures and of restarts with their times, and starts nothing
// itself: agent does.
//
// A Machine has two states:
//
//	up       the job runs, or nobody has said that it failed
//	pending  it failed, and is to be started again at a time
//
// and these transitions:
//
//	up      --Failed, strategy allows it--> pending
//	up      --Failed, strategy forbids it-> up; the failure is final
//	pending --Failed--> pending: the failure is merged into the restart that is pending, and counts as none
//	pending --Started--> up
package restart

import (
	"fmt"
	"math/rand/v2"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

// Kind is a restart strategy.
type Kind uint8

// The strategies.
const (
	None             Kind = iota // the first failure is final
	FixedDelay                   // Attempts restarts, each after Delay
	FailureRate                  // after Delay, unless more than MaxFailures came within Interval
	ExponentialDelay             // after Initial, then Multiplier times as long each time, at most Max
)

// Config is a strategy. Each uses only the fields named at it.
type Config struct {
	Kind        Kind
	Attempts    int               // FixedDelay; ExponentialDelay: at most so many without a reset, 0: no limit
	Delay       dataflow.Duration // FixedDelay, FailureRate
	MaxFailures int               // FailureRate
	Interval    dataflow.Duration // FailureRate: failures further apart than this are not counted together
	Initial     dataflow.Duration // ExponentialDelay
	Max         dataflow.Duration
	Multiplier  float64
	Jitter      float64           // each delay is longer or shorter by at most this part of it, 0..1
	ResetAfter  dataflow.Duration // a job that ran so long since it was started begins with Initial again
}

// Default is the strategy of a job that names none: exponential-delay if it
// takes checkpoints, or else none, because starting over would repeat what it
// has put out.
func Default(checkpoints bool) Config {
	if !checkpoints {
		return Config{Kind: None}
	}
	return Config{Kind: ExponentialDelay, Initial: dataflow.Second, Max: dataflow.Minute, Multiplier: 2, Jitter: 0.1, ResetAfter: dataflow.Hour}
}

// Decision is what follows a failure.
type Decision struct {
	Restart bool
	At      dataflow.Time // when, if Restart
	Merged  bool          // a restart was pending already; At is its time
	Why     string        // why there is no restart
}

// Machine applies a strategy to one job.
type Machine struct {
	cfg      Config
	rand     *rand.Rand
	pending  bool
	at       dataflow.Time
	started  dataflow.Time
	restarts int             // FixedDelay: all; ExponentialDelay: since the last reset
	failures []dataflow.Time // FailureRate: the last ones, at most MaxFailures+1
}

// New makes the machine of a job that is started at now. The seed decides
// jitter.
func New(cfg Config, now dataflow.Time, seed uint64) *Machine {
	return &Machine{cfg: cfg, started: now, rand: rand.New(rand.NewPCG(seed, 0))}
}

// Started says that the pending restart has happened.
func (m *Machine) Started(now dataflow.Time) { m.pending, m.started = false, now }

// Failed says that the job failed, and returns what follows.
func (m *Machine) Failed(now dataflow.Time) Decision {
	if m.pending {
		return Decision{Restart: true, At: m.at, Merged: true}
	}
	delay, why := m.delay(now)
	if why != "" {
		return Decision{Why: why}
	}
	m.pending, m.at = true, now.Add(delay)
	m.restarts++
	return Decision{Restart: true, At: m.at}
}

// delay is how long to wait before the next start, or why there is none.
func (m *Machine) delay(now dataflow.Time) (d dataflow.Duration, why string) {
	switch m.cfg.Kind {
	case FixedDelay:
		if m.restarts >= m.cfg.Attempts {
			return 0, fmt.Sprintf("it was restarted %d times, and fixed-delay allows no more", m.restarts)
		}
		return m.cfg.Delay, ""
	case FailureRate:
		m.failures = append(m.failures, now)
		if n := len(m.failures) - m.cfg.MaxFailures - 1; n > 0 {
			m.failures = m.failures[n:]
		}
		// Strictly longer than the interval apart is apart enough.
		if len(m.failures) > m.cfg.MaxFailures && now <= m.failures[0].Add(m.cfg.Interval) {
			return 0, fmt.Sprintf("it failed more than %d times within %s", m.cfg.MaxFailures, m.cfg.Interval)
		}
		return m.cfg.Delay, ""
	case ExponentialDelay:
		if m.cfg.ResetAfter > 0 && now >= m.started.Add(m.cfg.ResetAfter) {
			m.restarts = 0
		}
		if m.cfg.Attempts > 0 && m.restarts >= m.cfg.Attempts {
			return 0, fmt.Sprintf("it was restarted %d times, and exponential-delay allows no more", m.restarts)
		}
		return m.exponential(), ""
	}
	return 0, "the strategy is none"
}

func (m *Machine) exponential() dataflow.Duration {
	most := float64(m.cfg.Max)
	d := float64(m.cfg.Initial)
	for range m.restarts {
		if d *= m.cfg.Multiplier; d >= most {
			break
		}
	}
	if m.cfg.Jitter > 0 {
		d = min(d, most)
		d += d * m.cfg.Jitter * (2*m.rand.Float64() - 1)
	}
	return dataflow.Duration(min(d, most))
}
