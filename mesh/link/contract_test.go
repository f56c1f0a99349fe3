package link_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tidemark-mesh/tidemark/mesh/link"
	"github.com/tidemark-mesh/tidemark/mesh/simnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	simnet.Suite(t, func(t *testing.T) simnet.Two {
		a, b := link.NewTwo(t)
		return simnet.Two{
			A: a, B: b,
			Start: func() {
				for _, l := range []*link.Link{a, b} {
					if err := l.Start(); err != nil {
						t.Fatal(err)
					}
				}
			},
			CloseB: func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			},
		}
	})
}
