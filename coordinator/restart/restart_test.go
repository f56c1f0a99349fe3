package restart

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

const second = dataflow.Time(dataflow.Second)

// E53: n restarts, and failure n+1 is final.
func TestE53_FixedDelay(t *testing.T) {
	m := New(Config{Kind: FixedDelay, Attempts: 3, Delay: 10 * dataflow.Second}, 0, 1)
	now := dataflow.Time(0)
	for i := 1; i <= 3; i++ {
		d := m.Failed(now)
		if !d.Restart || d.At != now+10*second {
			t.Fatalf("failure %d at %s: %+v, want a restart 10 s later", i, now, d)
		}
		now = d.At
		m.Started(now)
	}
	if d := m.Failed(now); d.Restart || d.Why == "" {
		t.Errorf("failure 4: %+v, want none, and why", d)
	}
}

// E54: more than 3 failures within 300 s, of which exactly 300 s is a part.
func TestE54_FailureRate(t *testing.T) {
	for _, c := range []struct {
		fourth  dataflow.Time
		restart bool
	}{{290, false}, {300, false}, {301, true}} {
		m := New(Config{Kind: FailureRate, MaxFailures: 3, Interval: 300 * dataflow.Second}, 0, 1)
		for i, at := range []dataflow.Time{0, 100, 200} {
			if d := m.Failed(at * second); !d.Restart {
				t.Fatalf("failure %d: %+v", i+1, d)
			}
			m.Started(at * second)
		}
		if d := m.Failed(c.fourth * second); d.Restart != c.restart {
			t.Errorf("a fourth failure at %d s: %+v, want restart %v", c.fourth, d, c.restart)
		}
	}
}

// E55: the delays in milliseconds, cut.
func TestE55_ExponentialDelay(t *testing.T) {
	for _, c := range []struct {
		multiplier float64
		max        dataflow.Duration
		want       []int64
	}{
		{2, 10 * dataflow.Second, []int64{1000, 2000, 4000, 8000, 10000, 10000}},
		{1.5, dataflow.Minute, []int64{1000, 1500, 2250, 3375, 5062, 7593, 11390, 17085, 25628, 38443, 57665, 60000, 60000}},
	} {
		m := New(Config{Kind: ExponentialDelay, Initial: dataflow.Second, Max: c.max, Multiplier: c.multiplier}, 0, 1)
		var got []int64
		now := dataflow.Time(0)
		for range c.want {
			d := m.Failed(now)
			got = append(got, int64(d.At-now)/1000)
			now = d.At
			m.Started(now)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("multiplier %v: %v, want %v", c.multiplier, got, c.want)
		}
	}
}

// E55: a job that ran long enough begins with the first delay again; one that
// ran a microsecond less does not.
func TestE55_ExponentialDelayResets(t *testing.T) {
	cfg := Config{Kind: ExponentialDelay, Initial: dataflow.Second, Max: dataflow.Minute, Multiplier: 2, ResetAfter: dataflow.Hour, Attempts: 2}
	for ran, want := range map[dataflow.Duration]dataflow.Duration{dataflow.Hour - 1: 2 * dataflow.Second, dataflow.Hour: dataflow.Second} {
		m := New(cfg, 0, 1)
		m.Started(m.Failed(0).At)
		now := second.Add(ran)
		if d := m.Failed(now); !d.Restart || d.At != now.Add(want) {
			t.Errorf("after %s: %+v, want a delay of %s", ran, d, want)
		}
	}
	m := New(cfg, 0, 1)
	for range cfg.Attempts {
		m.Started(m.Failed(0).At)
	}
	if d := m.Failed(10 * second); d.Restart {
		t.Errorf("the attempts are used up, and yet %+v", d)
	}
}

// E55: failures before the pending restart belong to it.
func TestE55_FailuresAreMerged(t *testing.T) {
	m := New(Config{Kind: ExponentialDelay, Initial: 4 * dataflow.Second, Max: dataflow.Minute, Multiplier: 2, Attempts: 2}, 0, 1)
	first := m.Failed(0)
	for at := dataflow.Time(1); at < 4; at++ {
		if d := m.Failed(at * second); !d.Merged || d.At != first.At {
			t.Errorf("at %d s: %+v, want it merged into %+v", at, d, first)
		}
	}
	m.Started(first.At)
	if d := m.Failed(first.At); d.Merged || d.At != first.At+8*second {
		t.Errorf("after the restart: %+v, want 8 s", d)
	}
}

func TestNone(t *testing.T) {
	if d := New(Default(false), 0, 1).Failed(0); d.Restart || d.Why == "" {
		t.Errorf("%+v", d)
	}
	if d := New(Default(true), 0, 1).Failed(0); !d.Restart {
		t.Errorf("%+v", d)
	}
}

// Jitter stays within its part of the delay, under the most, and is the same
// for the same seed.
func TestJitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Kind: ExponentialDelay, Initial: dataflow.Second, Max: 20 * dataflow.Second, Multiplier: 2, Jitter: rapid.Float64Range(0, 1).Draw(t, "jitter")}
		seed := rapid.Uint64().Draw(t, "seed")
		a, b := New(cfg, 0, seed), New(cfg, 0, seed)
		plain := float64(cfg.Initial)
		for range 8 {
			d, same := a.Failed(0), b.Failed(0)
			if d != same {
				t.Fatalf("%+v and %+v from one seed", d, same)
			}
			least, most := plain*(1-cfg.Jitter)-1, min(plain*(1+cfg.Jitter), float64(cfg.Max))+1
			if at := float64(d.At); at < least || at > most {
				t.Fatalf("a delay of %v, want it in %v..%v", at, least, most)
			}
			plain = min(2*plain, float64(cfg.Max))
			a.Started(0)
			b.Started(0)
		}
	})
}
