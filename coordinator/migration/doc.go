// Package migration moves a job between two sites: who decides, and when either
// of them may run it.
//
// The replicated state applies its commands (coordinator/jobmanager),
// coordinator/leader drives the machines, and agent/node carries the messages.
//
// It has three parts, all pure. Apply has the rules by which each site's
// replicated state takes a command about a move (rules.go). Source and Target
// are the leaders' machines, one each a move and term of a leader: they compare
// the record with what they know, and say what is to be proposed, sent and done
// (source.go, target.go). Unasked answers for moves of which there is no record
// (unasked.go). None of them trusts the order of messages, or that one comes, or
// that its leader still leads.
//
// # The caller's duties
//
//  1. What Applied.Order says is done to the job in the same Raft entry, and a
//     deployment of a job is refused unless MayRun says yes: jobmanager does both.
//  2. A machine is made anew in each term, with the record as it is then; it gets
//     every later version of the record, in order, and nil when that is gone.
//     Records are those that this agent has applied, never ones to come.
//  3. Facts (Event) are said again to a machine that was made anew. What is a fact
//     stays true until another event of its kind.
//  4. Step with nothing but Now when Wake says so, or later. Now never goes back.
//  5. Effects are done in order. A Send may be lost. A Propose whose command
//     changed nothing, or was not accepted, is answered with Rejected.
//  6. A message for a move without a machine goes to Unasked, but for Propose,
//     which makes a Target.
//  7. A machine ends with Over, and is dropped; a person's wishes to it that have
//     no answer are answered with what the record says.
//
// Read docs/MIGRATION.md for the protocol, event.go for the words.
package migration
