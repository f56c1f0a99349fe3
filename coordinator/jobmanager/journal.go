package jobmanager

// Changed is what a watcher of the state must look at again.
type Changed struct {
	All   bool     // everything: Names does not count
	Names []Change // each once, in the order in which they changed first
}

// Journal collects what changed until its one watcher takes it. At first
// everything has: the watcher has seen nothing. It holds a name once, so it is
// bounded by what is in the state. It has no lock.
type Journal struct {
	all   bool
	seen  map[Change]bool
	names []Change
}

// NewJournal makes the journal of a watcher that has seen nothing.
func NewJournal() *Journal { return &Journal{all: true, seen: make(map[Change]bool)} }

// Add notes what a command changed.
func (j *Journal) Add(changes []Change) {
	for _, c := range changes {
		if !j.all && !j.seen[c] {
			j.seen[c] = true
			j.names = append(j.names, c)
		}
	}
}

// AddAll notes that everything may have changed: a snapshot was installed.
func (j *Journal) AddAll() {
	j.all, j.names = true, nil
	clear(j.seen)
}

// Take returns what changed since the last call.
func (j *Journal) Take() Changed {
	c := Changed{All: j.all, Names: j.names}
	j.all, j.names = false, nil
	clear(j.seen)
	return c
}
