package migration

import (
	"fmt"
	"strings"

	"github.com/tidemark-mesh/tidemark/coordinator"
)

// The words of scripts and of the exploration. What they leave out does not decide
// anything.

func ends(list []coordinator.FeedEnd) string {
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprintf("%s:%d", e.Feed, e.End))
	}
	return strings.Join(out, ",")
}

func describeToTarget(m *coordinator.ToTarget) string {
	switch {
	case m.Propose != nil && m.Propose.Dry:
		return "propose? " + m.Propose.Newest.Name
	case m.Propose != nil:
		return fmt.Sprintf("propose epoch %d, %s", m.Propose.Epoch, m.Propose.Newest.Name)
	case m.Newest != nil:
		return "newest " + m.Newest.Snapshot.Name
	case m.Offer != nil:
		return fmt.Sprintf("offer %s, logs to %s", m.Offer.Savepoint.Name, ends(m.Offer.Ends))
	}
	return "verdict " + m.Verdict.String()
}

func describeToSource(m *coordinator.ToSource) string {
	switch {
	case m.Accepted != nil:
		s := "accepted"
		if m.Accepted.Fetching != "" {
			s += ", fetching " + m.Accepted.Fetching
		}
		if m.Accepted.Offered {
			s += ", offered"
		}
		return s
	case m.Refused != nil:
		return "refused: " + m.Refused.Why
	case m.Got != nil:
		return "got " + m.Got.Snapshot
	case m.Prepared != nil:
		return "prepared " + m.Prepared.Savepoint
	}
	s := "done"
	if m.Done.Phase != 0 {
		s += " " + m.Done.Phase.String()
	}
	if m.Done.Forced {
		s += ", forced"
	}
	if m.Done.First != 0 {
		s += ", rows flow"
	}
	return s
}

func describeCommand(c *coordinator.MoveCommand) string {
	switch {
	case c.Began != nil:
		return fmt.Sprintf("begin %s to %s", c.Began.Job, c.Began.To)
	case c.Halting != nil:
		return "HALTING"
	case c.Offered != nil:
		return fmt.Sprintf("OFFERED %s, logs to %s", c.Offered.Savepoint, ends(c.Offered.Ends))
	case c.Decided != nil && c.Decided.HandedOver:
		return "HANDED-OVER"
	case c.Decided != nil:
		return "ABORTED: " + c.Decided.Why
	case c.Forgotten != nil:
		return "forget it"
	case c.Fenced != nil:
		return fmt.Sprintf("FENCED: %s has it at epoch %d", c.Fenced.Owner, c.Fenced.Epoch)
	case c.ArrivalBegan != nil:
		return fmt.Sprintf("RECEIVING, for epoch %d", c.ArrivalBegan.Epoch)
	case c.ArrivalPrepared != nil:
		return fmt.Sprintf("PREPARED %s, logs to %s", c.ArrivalPrepared.Savepoint.Name, ends(c.ArrivalPrepared.Ends))
	case c.ArrivalDecided != nil && c.ArrivalDecided.Forced:
		return "ACTIVE, forced"
	case c.ArrivalDecided != nil && c.ArrivalDecided.Active():
		return "ACTIVE"
	case c.ArrivalDecided != nil:
		return fmt.Sprintf("DROPPED (%s): %s", c.ArrivalDecided.Verdict, c.ArrivalDecided.Why)
	}
	return "forget it here"
}

func describeProgress(p *Progress) string {
	s := p.Phase
	if p.Ended != "" {
		s += fmt.Sprintf(", %s took %s", p.Ended, p.Took)
	} else if p.Round > 0 {
		s += fmt.Sprintf(": round %d, %d bytes in %s, left %s, lag %d", p.Round, p.Bytes, p.Took, p.Left, p.Lag)
	}
	if p.Pause > 0 {
		s += fmt.Sprintf(": the pause was %s, give or take %s", p.Pause, p.Error)
	}
	if p.Anew {
		s += ": another leader counts anew"
	}
	if p.Doubt {
		s += ": IN_DOUBT"
	}
	if p.Why != "" {
		s += ": " + p.Why
	}
	return s
}
