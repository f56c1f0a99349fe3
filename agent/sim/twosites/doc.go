// Package twosites runs two simulated sites, each with its own Raft group, agents
// and disks, in one world with a WAN between them, and has a job move from the one
// to the other, or be taken by the other when its own is lost. The steps of the
// undisturbed run are known (Steps); a plan of faults says what goes wrong at which
// of them. What is judged is package judge's, with judge.Sites for both together.
package twosites
