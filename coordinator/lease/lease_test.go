package lease

import (
	"errors"
	"sync"
	"testing"

	"github.com/tidemark-mesh/tidemark/dataflow"
)

func TestLease(t *testing.T) {
	now := dataflow.Time(100)
	l := New(func() dataflow.Time { return now })
	if !errors.Is(l.Err(), ErrExpired) || l.Until() != dataflow.MinTime {
		t.Fatalf("nobody granted it, and it is there: %v", l.Err())
	}
	l.Extend(200)
	l.Extend(150) // a late answer to an older heartbeat
	for at, want := range map[dataflow.Time]error{100: nil, 199: nil, 200: ErrExpired, 5000: ErrExpired} {
		now = at
		if err := l.Err(); !errors.Is(err, want) {
			t.Errorf("at %d: %v, want %v", at, err, want)
		}
	}
	if l.Until() != 200 {
		t.Errorf("it runs until %d", l.Until())
	}
}

func TestLeaseOfManyGoroutines(t *testing.T) {
	l := New(func() dataflow.Time { return 0 })
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range dataflow.Time(100) {
				l.Extend(n*8 + dataflow.Time(i))
				_ = l.Err()
			}
		})
	}
	all.Wait()
	if l.Until() != 99*8+7 {
		t.Errorf("it runs until %d, want the longest that anybody gave", l.Until())
	}
}
