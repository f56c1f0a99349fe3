package sim

// clients are people who submit, cancel and stop jobs.
type clients struct{ w *World }

func newClients(w *World) *clients { return &clients{w} }
