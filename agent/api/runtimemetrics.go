package api

import (
	"maps"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"time"
)

// memoryMetric is a number of runtime.MemStats under the name that Prometheus'
// library for Go gives it, which dashboards know.
type memoryMetric struct {
	name, help string
	kind       metricKind
	of         func(*runtime.MemStats) float64
}

func memoryMetrics() []memoryMetric {
	type stats = runtime.MemStats
	return []memoryMetric{
		{"alloc_bytes", "Bytes of heap objects that are in use.", gauge, func(m *stats) float64 { return float64(m.Alloc) }},
		{"alloc_bytes_total", "Bytes of heap objects that were allocated so far.", counter, func(m *stats) float64 { return float64(m.TotalAlloc) }},
		{"sys_bytes", "Bytes obtained from the system.", gauge, func(m *stats) float64 { return float64(m.Sys) }},
		{"mallocs_total", "Heap objects that were allocated so far.", counter, func(m *stats) float64 { return float64(m.Mallocs) }},
		{"frees_total", "Heap objects that were freed so far.", counter, func(m *stats) float64 { return float64(m.Frees) }},
		{"heap_alloc_bytes", "The same as go_memstats_alloc_bytes.", gauge, func(m *stats) float64 { return float64(m.HeapAlloc) }},
		{"heap_sys_bytes", "Bytes of heap obtained from the system.", gauge, func(m *stats) float64 { return float64(m.HeapSys) }},
		{"heap_idle_bytes", "Bytes of heap that wait to be used.", gauge, func(m *stats) float64 { return float64(m.HeapIdle) }},
		{"heap_inuse_bytes", "Bytes of heap in spans that are in use.", gauge, func(m *stats) float64 { return float64(m.HeapInuse) }},
		{"heap_released_bytes", "Bytes of heap given back to the system.", gauge, func(m *stats) float64 { return float64(m.HeapReleased) }},
		{"heap_objects", "Heap objects that are in use.", gauge, func(m *stats) float64 { return float64(m.HeapObjects) }},
		{"stack_inuse_bytes", "Bytes of stacks that are in use.", gauge, func(m *stats) float64 { return float64(m.StackInuse) }},
		{"stack_sys_bytes", "Bytes of stacks obtained from the system.", gauge, func(m *stats) float64 { return float64(m.StackSys) }},
		{"mspan_inuse_bytes", "Bytes of mspan structures that are in use.", gauge, func(m *stats) float64 { return float64(m.MSpanInuse) }},
		{"mspan_sys_bytes", "Bytes of mspan structures obtained from the system.", gauge, func(m *stats) float64 { return float64(m.MSpanSys) }},
		{"mcache_inuse_bytes", "Bytes of mcache structures that are in use.", gauge, func(m *stats) float64 { return float64(m.MCacheInuse) }},
		{"mcache_sys_bytes", "Bytes of mcache structures obtained from the system.", gauge, func(m *stats) float64 { return float64(m.MCacheSys) }},
		{"buck_hash_sys_bytes", "Bytes of the profiler's hash table.", gauge, func(m *stats) float64 { return float64(m.BuckHashSys) }},
		{"gc_sys_bytes", "Bytes of the collector's own data.", gauge, func(m *stats) float64 { return float64(m.GCSys) }},
		{"other_sys_bytes", "Bytes obtained from the system for anything else.", gauge, func(m *stats) float64 { return float64(m.OtherSys) }},
		{"next_gc_bytes", "Size of the heap at which the next collection ends.", gauge, func(m *stats) float64 { return float64(m.NextGC) }},
	}
}

// runtimeMetrics are those of Go and of the process, under the names of
// Prometheus' library for Go.
func runtimeMetrics() map[string]metric {
	all := map[string]metric{
		"go_gc_duration_seconds":           {help: "How long the world stood still in collections of garbage."},
		"go_gc_gogc_percent":               {help: "GOGC; -1 where it is off."},
		"go_gc_gomemlimit_bytes":           {help: "GOMEMLIMIT; the greatest integer where there is none."},
		"go_goroutines":                    {help: "Goroutines that there are."},
		"go_info":                          {help: "The version of Go.", labels: []string{"version"}},
		"go_memstats_last_gc_time_seconds": {help: "When garbage was collected last, as seconds since 1970."},
		"go_sched_gomaxprocs_threads":      {help: "GOMAXPROCS."},
		"go_threads":                       {help: "Threads of the system that were made."},
	}
	for _, m := range memoryMetrics() {
		all["go_memstats_"+m.name] = metric{help: m.help}
	}
	maps.Copy(all, processMetrics())
	return all
}

func collectRuntime(e *exposition) {
	e.send("go_goroutines", gauge, float64(runtime.NumGoroutine()))
	e.send("go_info", gauge, 1, runtime.Version())
	e.send("go_threads", gauge, float64(pprof.Lookup("threadcreate").Count()))
	settings := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}, {Name: "/sched/gomaxprocs:threads"}}
	metrics.Read(settings)
	percent := float64(settings[0].Value.Uint64())
	if settings[0].Value.Uint64() == math.MaxUint64 {
		percent = -1
	}
	e.send("go_gc_gogc_percent", gauge, percent)
	e.send("go_gc_gomemlimit_bytes", gauge, float64(settings[1].Value.Uint64()))
	e.send("go_sched_gomaxprocs_threads", gauge, float64(settings[2].Value.Uint64()))

	gc := debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}
	debug.ReadGCStats(&gc)
	const pauses = "go_gc_duration_seconds"
	for i, q := range gc.PauseQuantiles {
		e.add(pauses, "", summary, q.Seconds(), []string{"quantile"}, []string{strconv.FormatFloat(float64(i)/4, 'g', -1, 64)})
	}
	e.add(pauses, "_sum", summary, gc.PauseTotal.Seconds(), nil, nil)
	e.add(pauses, "_count", summary, float64(gc.NumGC), nil, nil)
	e.send("go_memstats_last_gc_time_seconds", gauge, float64(gc.LastGC.UnixNano())/1e9)

	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	for _, m := range memoryMetrics() {
		e.send("go_memstats_"+m.name, m.kind, m.of(&mem))
	}
	collectProcess(e)
}
