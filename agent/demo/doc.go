// Package demo is `tidemark demo`: an embedded broker and a simulated fleet in
// this process, three agents of one site as processes of their own, one job; an
// agent and then the leader are killed and come back; and at the end every
// reading and every window is compared with what the fleet really sent.
//
// Nothing in it is shown that was not computed by the agents: the view reads
// their API and the files that the job wrote. It owns the processes that it
// starts and the folder in which they live, and leaves neither behind. Read
// demo.go, then site.go (the processes), send.go (the fleet), faults.go (what is
// done to the site), output.go (what came out), view.go and report.go.
package demo
