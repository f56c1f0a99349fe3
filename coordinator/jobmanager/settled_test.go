package jobmanager_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/coordinator/jobmanager"
	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/mesh"
)

// bothLevels has something looked at below feature level 6, and there. Below it agents of
// before apply the same commands, and all are to have the same state.
func bothLevels(t *testing.T, look func(t *testing.T, s *site1, settled bool)) {
	for _, level := range []int{coordinator.GoesOnLevel, coordinator.SettledLevel} {
		t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) {
			s := newSite(t)
			s.raiseTo(level)
			look(t, s, level == coordinator.SettledLevel)
		})
	}
}

func (s *site1) feed(name string) *coordinator.Feed {
	s.t.Helper()
	f := s.m.State().Feeds[name]
	if f == nil {
		s.t.Fatalf("there is no feed %s", name)
	}
	return f
}

// submits has a job run, and returns its id.
func (s *site1) submits(text string) string {
	s.t.Helper()
	id := fmt.Sprintf("j%d-s", s.do("submit %s", text))
	s.do("deploy %s 1 term=2 on=n1", id)
	s.do("became %s 1 running", id)
	return id
}

// halts has a job begin to move to site b, and stop with savepoint sp-ID. Feeds are those
// of its feeds whose sessions go.
func (s *site1) halts(id, stay string, feeds ...string) (move string) {
	s.t.Helper()
	move = fmt.Sprintf("m%d-s", s.do("move began %s 1 to=b stay=%s", id, stay))
	s.do("move halting %s", move)
	s.do("became %s 1 stopping", id)
	s.do("done %s 1 4 checkpoint=chk-4-%s savepoint=sp-%s", id, id, id)
	s.do("became %s 1 suspended savepoint=sp-%s", id, id)
	for _, f := range feeds {
		s.do("epoch %s %d term=2 owner=n1 members=n1 start=0 held=yes", f, s.feed(f).NextEpoch())
	}
	return move
}

// offers has it offered, too.
func (s *site1) offers(id, stay string, feeds ...string) (move string) {
	s.t.Helper()
	move = s.halts(id, stay, feeds...)
	ends := ""
	for _, f := range feeds {
		ends += "," + f + ":0"
	}
	s.do("move offered %s savepoint=sp-%s ends=%s", move, id, ends[min(1, len(ends)):])
	return move
}

// arrives has a job come from site b at an epoch.
func (s *site1) arrives(id, text string, epoch int, ends string) {
	s.t.Helper()
	move := "m99-b"
	s.do("move arrives %s %s door from=b epoch=%d %s", move, id, epoch, text)
	s.do("offered %s from=b epoch=%d name=door %s moving=%s @4", id, epoch-1, text, move)
	for _, f := range sortedFeeds(s) {
		if s.feed(f).Mirror != nil {
			is := s.feed(f)
			s.do("epoch %s %d term=%d owner=n1 members=n1 start=%d", f, is.NextEpoch(), s.m.State().Term, is.Log.Start)
		}
	}
	s.do("move prepared %s savepoint=sp-b job=%s attempt=4 era=%d site=b ends=%s", move, id, epoch-1, ends)
	s.do("move active %s verdict=1", move)
}

// stops has a job that came with sp-b run, and stop with sp-up.
func (s *site1) stops(id string) {
	s.t.Helper()
	s.do("deploy %s 5 term=2 on=n1 from=sp-b", id)
	s.do("became %s 5 running", id)
	s.do("told %s halt", id)
	s.do("became %s 5 stopping", id)
	s.do("done %s 5 10 checkpoint=chk-10 savepoint=sp-up era=2 site=s", id)
	s.do("became %s 5 stopped savepoint=sp-up", id)
}

func sortedFeeds(s *site1) (names []string) {
	for name := range s.m.State().Feeds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// The session of a shared feed does not leave while a job reads a mirror of it elsewhere.
func TestASharedFeedDoesNotLeaveItsReaders(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("feed line")
		door, gate := s.submits("door reads=line"), s.submits("gate reads=line")
		s.do("move handed %s", s.offers(door, "line"))
		dry := jobmanager.CheckMove(s.m.State(), &coordinator.MoveBegan{Job: coordinator.JobID(gate), Epoch: 1, To: "b"})
		if !errors.Is(dry, jobmanager.ErrRefused) { // who asks knows better than the state may
			t.Errorf("dry: %v", dry)
		}
		switch err := s.try("move began %s 1 to=b", gate); {
		case settled && !errors.Is(err, jobmanager.ErrRefused):
			t.Errorf("%v, want it refused", err)
		case !settled && err != nil:
			t.Error(err)
		}
		if settled {
			s.do("move began %s 1 to=b stay=line", gate)
		}
	})
}

// A shared feed comes with a job whose epoch is not greater than that of the job that had
// taken it away: its session begins here.
func TestASharedFeedComesWithAYoungerJob(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("feed line")
		s.do("move handed %s", s.offers(s.submits("door reads=line"), "", "line"))
		if f := s.feed("line"); f.Owner != "b" {
			t.Fatalf("%+v", f)
		}
		first := coordinator.LineageOf(s.feed("line"), "s")[0].Epoch
		s.arrives("j50-b", fmt.Sprintf("feeds=line reads=line reigns=%d:s:0,%d:b:0", first, first+1), 2, "line:0")
		switch f := s.feed("line"); {
		case settled && (f.Mirror != nil || f.Owner != "" || f.Reigns != first+2):
			t.Errorf("nobody has the session: %+v", f)
		case !settled && f.Mirror == nil:
			t.Errorf("%+v", f)
		}
		if settled { // the one with which it left reads no mirror of it
			s.do("deploy j50-b 5 term=2 on=n1 from=sp-b")
			s.do("became j50-b 5 running")
			s.do("move began j50-b 2 to=b")
		}
	})
}

// A job that goes on from a savepoint of one whose session stayed elsewhere does not open
// a second one.
func TestAMirrorIsNotAdopted(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.arrives("j50-b", "of=j50-b.in:j50-b.in:b", 2, "")
		s.stops("j50-b")
		switch err := s.try("submit up from=sp-up feeds=in adopts=in:j50-b.in @2"); {
		case settled && !errors.Is(err, jobmanager.ErrRefused):
			t.Errorf("%v, want it refused", err)
		case !settled && err != nil:
			t.Error(err)
		}
	})
}

// The feed of a job that goes on from another one's savepoint keeps its lineage.
func TestAnAdoptedFeedKeepsItsLineage(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.arrives("j50-b", "feeds=j50-b.in reigns=1:b:0", 2, "j50-b.in:0")
		s.do("epoch j50-b.in %d term=2 owner=n1 members=n1 start=0", s.feed("j50-b.in").NextEpoch())
		s.stops("j50-b")
		had := s.feed("j50-b.in").Lineage
		s.do("submit up from=sp-up feeds=in adopts=in:j50-b.in @2")
		if has := s.feed("j50-b.in").Lineage; len(had) != 2 || slices.Equal(had, has) != settled {
			t.Errorf("it had %v, and has %v", had, has)
		}
	})
}

// A job that goes on from a savepoint of before its feed was at another site is above all
// epochs that the feed's log had.
func TestAJobIsAboveTheFeedThatItAdopts(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		id := s.submits("door feeds=in")
		feed := id + ".in"
		s.do("done %s 1 3 checkpoint=chk-3 savepoint=sp-old request=r1", id)
		s.do("move handed %s", s.offers(id, "", feed))
		s.arrives(id, "feeds="+feed+" reigns=1:s:0,2:b:0", 3, feed+":0")
		s.do("epoch %s %d term=2 owner=n1 members=n1 start=0", feed, s.feed(feed).Log.Epoch+1)
		s.do("became %s %d failed", id, s.m.State().Jobs[coordinator.JobID(id)].Attempt)
		next := fmt.Sprintf("j%d-s", s.do("submit up from=sp-old feeds=in adopts=in:%s @2", feed))
		j, had := s.m.State().Jobs[coordinator.JobID(next)], uint64(3)
		if settled != (j.Epoch > had) {
			t.Errorf("it is at epoch %d, and the job before was at %d", j.Epoch, had)
		}
	})
}

// The mirror of a feed that another job has taken over is that one's, and stays when
// nothing is kept of the first one any more.
func TestTheMirrorOfAnAdoptedFeed(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("offered j1-b from=b epoch=1 name=door feeds=j1-b.in @4")
		s.do("offered j2-b from=b epoch=2 name=up feeds=j1-b.in @4")
		if f := s.feed("j1-b.in"); settled != (f.Job == "j2-b" && slices.Equal(f.Past, []coordinator.JobID{"j1-b"})) {
			t.Errorf("it is of %s, and was of %v", f.Job, f.Past)
		}
		s.do("offered j2-b from=b epoch=2 name=up feeds=j1-b.in @4")
		s.do("dropped j1-b from=b epoch=1 @4")
		if is := s.m.State().Feeds["j1-b.in"] != nil; is != settled {
			t.Errorf("it is there: %t", is)
		}
		s.do("dropped j2-b from=b epoch=2 @4")
		if s.m.State().Feeds["j1-b.in"] != nil {
			t.Error("it is there, and nothing stands in it")
		}
	})
}

// A job that took another one's place elsewhere comes to where that one was before.
func TestAnAdoptedFeedComesHome(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		id := s.submits("door feeds=in")
		feed := id + ".in"
		s.do("move handed %s", s.offers(id, "", feed))
		if !settled {
			if err := s.try("move arrives m99-b j50-b up from=b epoch=4 feeds=%s reigns=1:s:0,2:b:0", feed); !errors.Is(err, jobmanager.ErrRefused) {
				t.Errorf("%v, want it refused", err)
			}
			return
		}
		s.arrives("j50-b", "feeds="+feed+" reigns=1:s:0,2:b:0", 4, feed+":0")
		if f := s.feed(feed); f.Job != "j50-b" || !slices.Equal(f.Past, []coordinator.JobID{coordinator.JobID(id)}) || f.Mirror != nil || f.Owner != "" || f.Reigns != 4 {
			t.Errorf("%+v", f)
		}
	})
}

// What is kept of a job is not gone on from where another site went on with less of its
// log than that may stand in.
func TestAReplicaIsCut(t *testing.T) {
	for name, c := range map[string]struct {
		feed, reads string // as they are called at b
		again       string // how c has them
		begins      int    // with how much of the log
		cut         bool
	}{
		"with less":           {"j1-b.in", "", "feeds=j1-b.in", 700, true},
		"with all":            {"j1-b.in", "", "feeds=j1-b.in", 900, false},
		"a shared one":        {"line", "reads=line", "feeds=line.at.b reads=line.at.b", 700, true},
		"a shared one, whole": {"line", "reads=line", "feeds=line.at.b reads=line.at.b", 901, false},
	} {
		t.Run(name, func(t *testing.T) {
			bothLevels(t, func(t *testing.T, s *site1, settled bool) {
				s.do("offered j1-b from=b epoch=1 name=door feeds=%s %s @4", c.feed, c.reads)
				s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
				s.do("copies j1-b chk-5 aa:n1")
				s.do("advanced j1-b chk-5 from=b epoch=1 ends=%s:900 @4", c.feed)
				s.do("offered j1-b from=c epoch=2 name=door %s reigns=1:b:0,2:c:%d @4", c.again, c.begins)
				if err := s.try("over j1-b chk-5 from=c epoch=2 to=3 @4"); errors.Is(err, jobmanager.ErrRefused) != (settled && c.cut) {
					t.Errorf("%v", err)
				}
				if !settled || !c.cut {
					return
				}
				s.do("next j1-b chk-3 3 from=c epoch=2 parts=aa,bb @4") // which c went on from: it is older, and all there is
				if r := s.m.State().Replicas["j1-b"]; len(r.Next.Copies[0].Nodes) != 1 {
					t.Errorf("the part that is here is fetched again: %v", r.Next.Copies)
				}
				s.do("copies j1-b chk-3 bb:n1")
				name, _, _ := strings.Cut(strings.TrimPrefix(c.again, "feeds="), " ")
				s.do("advanced j1-b chk-3 from=c epoch=2 ends=%s:700 @4", name)
				s.do("over j1-b chk-3 from=c epoch=2 to=3 @4")
			})
		})
	}
}

// Where a job is taken while it moves, and its session was to stay, the session is the
// taker's; where a move that was prepared is forced, it stays.
func TestFencedWhileTheSessionWasToStay(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		for i, c := range []struct {
			halts, offers bool
			epoch         int
			stays         bool
		}{{false, false, 2, false}, {false, false, 3, false}, {true, false, 3, false}, {true, true, 2, true}, {true, true, 3, false}} {
			id := s.submits(fmt.Sprintf("door%d feeds=in", i))
			feed := id + ".in"
			switch {
			case c.offers:
				s.offers(id, feed)
			case c.halts:
				s.halts(id, feed)
			default:
				s.do("move began %s 1 to=b stay=%s", id, feed)
			}
			s.do("move fenced %s %d owner=b", id, c.epoch)
			owner := mesh.Site("b")
			if c.stays || !settled {
				owner = ""
			}
			if f := s.feed(feed); f.Owner != owner {
				t.Errorf("%+v: the session is of %q, want %q", c, f.Owner, owner)
			}
		}
	})
}

// The savepoint with which a job was stopped for a move goes when that is decided,
// unless somebody asked for it, or begins with it.
func TestWhatAMoveLeavesBehind(t *testing.T) {
	has := func(s *site1, id string) bool { return s.m.State().Savepoints["sp-"+id] != nil }
	for name, decide := range map[string]func(s *site1, id, move string){
		"aborted while it ends": func(s *site1, _, move string) { s.do("move aborted %s", move) },
		"handed over": func(s *site1, id, move string) {
			s.do("epoch %s.in 1 term=2 owner=n1 members=n1 start=0 held=yes", id)
			s.do("move offered %s savepoint=sp-%s ends=%s.in:0", move, id, id)
			s.do("move handed %s", move)
		},
		"aborted":          func(s *site1, _, move string) { s.do("move aborted %s", move) },
		"fenced":           func(s *site1, id, _ string) { s.do("move fenced %s 3 owner=b", id) },
		"in two of them":   func(s *site1, id, _ string) { s.do("quarantined %s from=b epoch=1 @4", id) },
		"somebody's":       func(s *site1, _, move string) { s.do("move aborted %s", move) },
		"somebody's begin": func(s *site1, _, move string) { s.do("move aborted %s", move) },
	} {
		t.Run(name, func(t *testing.T) {
			bothLevels(t, func(t *testing.T, s *site1, settled bool) {
				id := s.submits("door feeds=in")
				move := fmt.Sprintf("m%d-s", s.do("move began %s 1 to=b", id))
				s.do("move halting %s", move)
				s.do("became %s 1 stopping", id)
				asked := ""
				if name == "somebody's" {
					asked = "request=r1"
				}
				s.do("done %s 1 4 checkpoint=chk-4 savepoint=sp-%s %s", id, id, asked)
				if name != "aborted while it ends" {
					s.do("became %s 1 suspended savepoint=sp-%s", id, id)
				}
				if name == "somebody's begin" {
					s.do("submit other from=sp-%s", id)
				}
				decide(s, id, move)
				if want := !settled || name == "somebody's" || name == "somebody's begin"; has(s, id) != want {
					t.Errorf("it is there: %t", !want)
				}
			})
		})
	}
}

// commits has the present attempt of a job say how much of a file counts, and through what;
// then is what is on record.
func (s *site1) commits(id string, through dataflow.CheckpointID, length, then int64) {
	s.t.Helper()
	j := s.m.State().Jobs[coordinator.JobID(id)]
	s.index++
	r, _ := s.m.Apply(s.index, &coordinator.Command{At: 1000, SinkCommitted: &coordinator.SinkCommitted{Job: j.ID, Attempt: j.Attempt,
		Commits: []coordinator.SinkCommit{{Operator: "out", Node: "n1", Target: "out.csv", Through: through, Length: length}}}})
	if r.Err != nil {
		s.t.Fatal(r.Err)
	}
	if now := s.m.State().Jobs[coordinator.JobID(id)].Sinks; len(now) != 1 || now[0].Length != then {
		s.t.Errorf("after %d bytes through %v: on record is %+v, want %d bytes", length, through, now, then)
	}
}

// A job that begins with an older savepoint of one that has ended takes its files over as
// they were then: on record is what the first attempt found of them, and what it commits.
func TestFilesOfAnOlderSavepoint(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		old := s.submits("door")
		s.do("done %s 1 7 checkpoint=chk-1-7 savepoint=sp-1", old)
		s.do("committed %s 1 n1:out.csv:7:700", old)
		s.do("done %s 1 10 checkpoint=chk-1-10", old)
		s.do("committed %s 1 n1:out.csv:10:1000", old)
		s.do("became %s 1 cancelled", old)
		id := fmt.Sprintf("j%d-s", s.do("submit door from=sp-1"))
		s.do("deploy %s 1 term=2 on=n1 from=sp-1", id)
		s.do("became %s 1 running", id)

		from := s.m.State().Savepoints["sp-1"].ID
		found, first, second := int64(700), int64(750), int64(740)
		if !settled {
			found, first, second = 1000, 1000, 1000
		}
		six := from
		six.Counter--
		s.commits(id, six, 10, 1000) // not what it goes on from
		s.commits(id, from, 700, found)
		s.commits(id, from, 600, found)
		token := s.m.State().Jobs[coordinator.JobID(id)].Token("s")
		s.commits(id, dataflow.CheckpointID{Token: token, Counter: 1}, 750, first)
		s.commits(id, from, 600, first) // said again, and late
		s.commits(id, dataflow.CheckpointID{Token: token, Counter: 1}, 720, first)
		s.commits(id, dataflow.CheckpointID{Token: token, Counter: 2}, 740, second) // it knows what it did
	})
}

// A job moves here whose feed was deleted at its site and made again. There is a mirror here
// of the one before, which nothing reads: it is made anew, and the move is not in its own way.
func TestAMoveWithAFeedThatWasMadeAgain(t *testing.T) {
	for name, c := range map[string]struct{ before, feeds, feed string }{
		"its session stays": {"offered j1-b from=b epoch=1 name=old feeds=line reads=line reigns=20:b:0", "stay=line", "line.at.b"},
		"its session comes": {"offered j1-b from=b epoch=1 name=old feeds=line reads=line reigns=20:b:0 moving=m50-b", "feeds=line", "line"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.raise()
			s.do("%s @4", c.before)
			s.do("epoch %s %d term=2 owner=n1 members=n1 start=0", c.feed, s.feed(c.feed).NextEpoch())
			s.do("move arrives m99-b j2-b door from=b epoch=2 %s reads=line reigns=90:b:0", c.feeds)
			s.do("offered j2-b from=b epoch=1 name=door %s reads=line reigns=90:b:0 moving=m99-b @4", c.feeds)
			if f := s.feed(c.feed); f.Mirror == nil || f.Lineage[0].Epoch != 90 || f.Log.Epoch != 0 {
				t.Errorf("%+v", f)
			}
			if err := s.try("offered j3-b from=b epoch=1 name=gate feeds=line reads=line reigns=95:b:0 %s @4", map[bool]string{true: "moving=m60-b"}[c.feed == "line"]); !errors.Is(err, jobmanager.ErrRefused) {
				t.Errorf("a job that comes needs the log: %v", err)
			}
		})
	}
}

// A shared feed moved away from here, was deleted there and made again, and comes back.
func TestAFeedThatWentAndWasMadeAgainComesBack(t *testing.T) {
	s := newSite(t)
	s.raise()
	s.do("feed line")
	s.do("epoch line %d term=2 owner=n1 members=n1 start=0", s.feed("line").NextEpoch())
	s.do("move handed %s", s.offers(s.submits("door reads=line"), "", "line"))
	s.do("move arrives m99-b j2-b gate from=b epoch=2 feeds=line reads=line reigns=90:b:0")
	s.do("offered j2-b from=b epoch=1 name=gate feeds=line reads=line reigns=90:b:0 moving=m99-b @4")
	if f := s.feed("line"); f.Owner != "b" || f.Log.Epoch != 0 {
		t.Errorf("%+v", f)
	}
	if err := s.try("move arrives m98-b j3-b other from=b epoch=2 feeds=out,out reads=out"); !errors.Is(err, jobmanager.ErrRefused) {
		t.Errorf("a feed that is there twice: %v", err)
	}
}

// A job comes whose session stays, and another one is taken with the same feed: the log here
// has left that of its source, and the job that comes would read another one.
func TestAMoveIsNotPreparedWithALogThatLeft(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("offered j1-b from=b epoch=1 name=one feeds=line reads=line @4")
		s.do("epoch line.at.b %d term=2 owner=n1 members=n1 start=0", s.feed("line.at.b").NextEpoch())
		s.do("next j1-b chk-5 5 from=b epoch=1 parts=aa @4")
		s.do("copies j1-b chk-5 aa:n1")
		s.do("advanced j1-b chk-5 from=b epoch=1 ends=line:0 @4")
		s.do("move arrives m99-b j2-b door from=b epoch=2 stay=line reads=line")
		s.do("offered j2-b from=b epoch=1 name=door stay=line reads=line moving=m99-b @4")
		s.do("over j1-b chk-5 from=b epoch=1 to=2 @4")
		s.do("epoch line.at.b %d term=2 owner=n1 members=n1 start=0", s.feed("line.at.b").NextEpoch())
		if err := s.try("move prepared m99-b savepoint=sp-b job=j2-b attempt=4 era=1 site=b"); errors.Is(err, jobmanager.ErrStale) != settled {
			t.Errorf("%v", err)
		}
	})
}

// A feed whose session stayed where a job comes from, at a third site, or is here: the move is
// prepared with a copy of each that is none, and with the one here itself.
func TestAMoveIsPreparedWithCopiesOfWhatStays(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		s.do("feed home")
		home := coordinator.LineageOf(s.feed("home"), "s")[0].Epoch
		s.do("move arrives m99-b j2-b door from=b epoch=2 stay=line,j2-b.in reads=line,line.at.c,home.at.s of=line.at.c:line:c,home.at.s:home:s:%d", home)
		if err := s.try("move prepared m99-b savepoint=sp-b job=j2-b attempt=4 era=1 site=b"); errors.Is(err, jobmanager.ErrStale) != settled {
			t.Errorf("before there is a copy of anything: %v", err)
		}
		if settled {
			s.do("offered j2-b from=b epoch=1 name=door stay=line,j2-b.in reads=line,line.at.c,home.at.s of=line.at.c:line:c,home.at.s:home:s:%d moving=m99-b @4", home)
			s.do("move prepared m99-b savepoint=sp-b job=j2-b attempt=4 era=1 site=b")
		}
	})
}

// A job moved away with its feed, and all agents that had its log were replaced meanwhile. It
// comes back: the log was held, and is with the site that has the session, so it begins anew.
func TestALogComesBackToOtherAgents(t *testing.T) {
	bothLevels(t, func(t *testing.T, s *site1, settled bool) {
		id := s.submits("door feeds=in")
		in := id + ".in"
		s.do("move handed %s", s.offers(id, "", in))
		s.do("left %s", s.feed(in).Log.Members[0])
		to := "n2"
		if s.m.State().Agents["n2"] == nil {
			to = "n1"
		}
		begins := func(start int) error {
			held := map[bool]string{true: "held=yes"}[s.m.State().Holds(s.feed(in))]
			return s.try("epoch %s %d term=2 owner=%s members=%s start=%d %s", in, s.feed(in).NextEpoch(), to, to, start, held)
		}
		if err := begins(0); !errors.Is(err, jobmanager.ErrRefused) {
			t.Errorf("nobody has said what goes on there: %v", err)
		}
		first := coordinator.LineageOf(s.feed(in), "s")[0].Epoch
		s.do("move arrives m99-b %s door from=b epoch=3 feeds=%s reigns=%d:s:0,2:b:0", id, in, first)
		s.do("offered %s from=b epoch=2 name=door feeds=%s reigns=%d:s:0,2:b:0 moving=m99-b @4", id, in, first)
		if err := begins(7); !errors.Is(err, jobmanager.ErrRefused) {
			t.Errorf("not from the beginning: %v", err)
		}
		if err := begins(0); (err == nil) != settled {
			t.Error(err)
		}
	})
}
