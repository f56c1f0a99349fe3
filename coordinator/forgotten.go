package coordinator

import "github.com/tidemark-mesh/tidemark/mesh"

// Forgotten is what stays of a job that had ended at a site, and was forgotten there: who
// has it. Another site that keeps something of it drops that only if it ended here: where
// it moved on that may be all that is left of it. A site that has no record says nothing,
// as it cannot know: the job was forgotten before SettledLevel, or before too many others,
// or the site was recovered without its majority.
//
// Invariant: there is none of a job that is here, that is kept here of another site, or
// that is on its way here: that says more, and when it is over somebody else may have it.
type Forgotten struct {
	Job   JobID  `cbor:"1,keyasint"`
	Index uint64 `cbor:"2,keyasint"` // at which it was forgotten
	Has   Tenure `cbor:"3,keyasint"` // this site: it ended here
}

// Tenure is who has a job that is or was here; Epoch 0: nobody is known to. What is kept of
// other sites' jobs does not count.
func (s *State) Tenure(id JobID) Tenure {
	if j := s.Jobs[id]; j != nil {
		return j.Tenure(s.Site)
	}
	if f := s.Forgotten[id]; f != nil {
		return f.Has
	}
	return Tenure{}
}

// Tenure is who has a job of a site's state, by that; At is 0 if it always had it.
func (j *Job) Tenure(self mesh.Site) Tenure {
	t := Tenure{Epoch: j.Epoch, Site: self}
	if j.Status == Moved {
		t.Site = j.Owner
	}
	if h := len(j.History); h > 0 && j.History[h-1].Epoch == j.Epoch {
		t.At = j.History[h-1].At
	}
	return t
}
