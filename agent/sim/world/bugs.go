package world

// Bugs are faults that are built into the drivers that run, to see that a checker finds them.
// Each breaks one rule of the drivers, as a programmer might.
type Bugs struct {
	IgnoreLease   bool // acts on the world without asking the lease
	ConfirmAlways bool // a leader is told that it leads although no majority was asked, and does not step down
	TwoLeaders    bool // a term is given out twice, and both leaders commit
	SkipSeal      bool // a member says that it has sealed, and has not
	NoCut         bool // a copy that is ahead is not cut
	AckEarly      bool // the broker is acknowledged when the owner alone has it
	StoredEarly   bool // a share is said to have its copies before they are made
	CopiedEarly   bool // parts are said to be copied before they are here
	RestoreOlder  bool // an attempt goes on from an older checkpoint than the newest
	ForgetInputs  bool // the watermarks of inputs are not restored
	CommitEarly   bool // sinks commit before their checkpoint is complete
	IgnoreToken   bool // a channel or part of an older attempt is taken
	DropRows      bool // now and then a batch loses its rows on its way
	NeverClosed   bool // an attempt that is to be closed stays
	AppendTwice   bool // a message that is delivered again is put into the log again
	ReplayOne     bool // after a restore a source begins one message too early
	AdoptAnew     bool // a job that goes on from another's savepoint reads its feed from the beginning
	RereadFile    bool // after a restore a file is read from its beginning
	KeepForeign   bool // after a rescale a subtask takes rows of other key groups too
	MarksFirst    bool // on a channel watermarks overtake the rows of their batch
	OpenHeld      bool // the owner of a held epoch opens a session
	DecideAlone   bool // a site to which a job moves takes its own PREPARED for the other one's decision
	VerdictEarly  bool // a site says that it has handed a job over before that is in its log
	MirrorAhead   bool // a mirror says that it has all that its source has
	ForgetMirror  bool // the owner of a mirror opens the session of the feed that it is a mirror of
	DeafToOwners  bool // a site does not hear who has a job
	NeverIsolated bool // a site that was down goes on with its jobs without asking
	WarmOld       bool // what has changed since a job was first restored before it came is not given to it
	KeepWarm      bool // what is restored before a job comes stays when the job does not come
	Unbounded     bool // a channel takes whatever comes
}
