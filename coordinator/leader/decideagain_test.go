package leader_test

import (
	"errors"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/coordinator/leader"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// A newer checkpoint of a job becomes complete while a person's word that it goes on here
// is on its way: it is decided anew, as things are then, and not for ever.
func TestAFailoverIsDecidedAgain(t *testing.T) {
	k := newKeeping(t, 0)
	r := k.st.Replicas["j6-a"]
	r.Snapshot, r.Next = r.Next, nil
	k.step(leader.Event{Sites: &[]mesh.Site{}})
	k.step(leader.Event{Confirmed: new(k.now)})
	effects := k.step(leader.Event{Wish: &leader.Wish{Ref: 5, Failover: &leader.Failover{Job: "j6-a", Force: true}}})
	proposed := func() (p *leader.Propose) {
		for _, f := range effects {
			if f.Answer != nil {
				t.Fatalf("answered: %+v, %v", f.Answer.FailedOver, f.Answer.Err)
			}
			if f.Propose != nil && f.Propose.Command.JobFailedOver != nil {
				p = f.Propose
			}
		}
		return p
	}
	stale := func(p *leader.Propose) {
		k.st.Index++
		effects = k.step(leader.Event{Applied: &leader.Applied{Index: k.st.Index, Command: &p.Command, Err: jobmanager.ErrStale, Ref: p.Ref}})
	}
	p := proposed()
	if p == nil || p.Command.JobFailedOver.Snapshot != "c7" {
		t.Fatalf("%+v", p)
	}
	newer := *r.Snapshot
	newer.Name = "c8"
	r.Snapshot = &newer
	stale(p)
	if p = proposed(); p == nil || p.Command.JobFailedOver.Snapshot != "c8" {
		t.Fatalf("%+v", p)
	}
	for range 10 {
		stale(p)
		for _, f := range effects {
			if f.Answer != nil {
				if f.Answer.Ref != 5 || !errors.Is(f.Answer.Err, jobmanager.ErrStale) {
					t.Errorf("%+v", f.Answer)
				}
				return
			}
		}
		p = proposed()
	}
	t.Error("it is decided again and again")
}

// While a person's word is on its way it comes on record that another site, which is
// reached, has taken the job: nobody has said that it is to be taken from that one.
func TestWhoIsSureIsAskedOfAnotherSite(t *testing.T) {
	k := newKeeping(t, 0)
	r := k.st.Replicas["j6-a"]
	r.Snapshot, r.Next = r.Next, nil
	k.step(leader.Event{Sites: &[]mesh.Site{"c"}})
	k.step(leader.Event{Confirmed: new(k.now)})
	var p *leader.Propose
	for _, f := range k.step(leader.Event{Wish: &leader.Wish{Ref: 5, Failover: &leader.Failover{Job: "j6-a", Force: true}}}) {
		if f.Propose != nil && f.Propose.Command.JobFailedOver != nil {
			p = f.Propose
		}
	}
	if p == nil {
		t.Fatal("nothing is proposed")
	}
	next := *r
	next.Later = &coordinator.Tenure{Site: "c", Epoch: p.Command.JobFailedOver.Epoch}
	k.st.Replicas["j6-a"] = &next
	err := jobmanager.CheckFailover(k.st, p.Command.JobFailedOver)
	if !errors.Is(err, jobmanager.ErrStale) {
		t.Fatal(err)
	}
	k.st.Index++
	answered := false
	for _, f := range k.step(leader.Event{Applied: &leader.Applied{Index: k.st.Index, Command: &p.Command, Err: err, Ref: p.Ref}}) {
		if f.Propose != nil && f.Propose.Command.JobFailedOver != nil {
			t.Errorf("%v, and then unasked %+v", err, f.Propose.Command.JobFailedOver)
		}
		answered = answered || f.Answer != nil && f.Answer.Ref == 5 && errors.Is(f.Answer.Err, jobmanager.ErrStale)
	}
	if !answered {
		t.Error("nobody is told")
	}
}
