package jobmanager

// Limits. What they bound is refused when they are reached, unless the comment
// says otherwise; the sentence says what to delete.
const (
	MaxAgents     = 1000
	MaxRemoved    = 1000 // agents that were taken out; beyond it the one that was first goes, as its certificate ends first
	MaxTokens     = 1000 // tokens that can admit nobody any more go first, oldest first
	MaxTokenUses  = 1000 // of a token with a number of uses
	MaxSealed     = 4096 // bytes of the sealed key of another site
	MaxLiveJobs   = 1000
	MaxEndedJobs  = 100  // those that ended first are forgotten, with their checkpoints and feeds
	MaxForgotten  = 1000 // of which it is known whether they ended here; beyond it the one that was forgotten first goes, and what other sites keep of it stays
	MaxFeeds      = 1000
	MaxSavepoints = 1000
	MaxReplicated = 1000 // jobs of other sites that are kept here
	// MaxCheckpoints of a job are kept, whatever is released; beyond it the oldest
	// goes.
	MaxCheckpoints = 64
	// MaxSinks is how many targets of a job have their length kept; beyond it the
	// one that was committed longest ago goes: no checkpoint that is still kept
	// has rows for it, unless thousands of files are written at once.
	MaxSinks    = 10_000
	MaxStarts   = 1000    // of a log's epochs; beyond it the oldest go, and LogEpoch.Forgotten counts them
	MaxReigns   = 1000    // of a feed's lineage; beyond it the oldest go
	MaxReplicas = 9       // of a feed's log
	MaxSpec     = 1 << 20 // bytes of a job's spec, and of a feed's config
	MaxSets     = 1000
	MaxSources  = 100 // feeds of one job, and shared ones that it reads
	MaxPlaces   = 1 << 16
	MaxText     = 4096 // bytes of a sentence that is kept; the rest is cut off
	MaxName     = 128
	MaxHistory  = 100 // sites that had a job, one after the other; beyond it the first go
)
