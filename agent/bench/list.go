package bench

// All lists the benchmarks in the order in which they run.
func All() []Benchmark {
	return []Benchmark{
		{ID: "engine", What: "where, select, key_by, tumbling window, against a loop over structs", Run: engine},
	}
}
