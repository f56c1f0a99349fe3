// Package replication keeps at one site what it needs to go on with jobs of
// another one: who asks whom for what, and when what is complete.
//
// It is pure, and has two machines. Follower is of the site that keeps, one for
// each other site and term of its leader: it asks (Want), compares the answers
// (coordinator.Offer) with the records in the replicated state, and says what is
// to be proposed. Source is of the site that has the jobs: it answers, and knows
// which snapshots must stay because somebody is fetching them. How parts and logs
// come is not its business: the leader orders copies of Replica.Next, and feeds
// that are mirrors fetch their logs.
//
// # The caller's duties
//
//  1. A Follower and a Source are made anew in each term. What they forget is asked
//     for, and said, again: nothing depends on it but time.
//  2. Follower.Step with the records of all replicas as they are now, whenever one
//     has changed, its copies or logs have come further, an answer has come or was
//     lost (Event), or Wake says so. Now never goes back.
//  3. A Propose that was not accepted, or changed nothing, is answered with
//     Rejected.
//  4. A Want goes to the leader of the other site; whoever answers must lead there,
//     and answer from the state that it has applied. Step hears of its answer, with its
//     number, or of its loss. While one is under way the caller may pass over others.
//  5. Source.Pinned is asked before a checkpoint is let go.
//
// Read event.go for the words, docs/REPLICATION.md for the whole.
package replication
