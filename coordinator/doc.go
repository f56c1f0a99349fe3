// Package coordinator holds the nouns of whoever looks after a job: the states
// it can be in, and which may follow which.
//
// It decides nothing. coordinator/checkpoint decides when checkpoints are taken
// and when they count, coordinator/restart what follows a failure; agent does
// what they say.
package coordinator
