package api

import "github.com/prometheus/procfs"

func processMetrics() map[string]metric {
	return map[string]metric{
		"process_cpu_seconds_total":            {help: "Processor time of the process."},
		"process_max_fds":                      {help: "File descriptors that may be open."},
		"process_network_receive_bytes_total":  {help: "Bytes that came in over the network, of all in the network namespace."},
		"process_network_transmit_bytes_total": {help: "Bytes that went out over the network, of all in the network namespace."},
		"process_open_fds":                     {help: "File descriptors that are open."},
		"process_resident_memory_bytes":        {help: "Memory of the process that is resident."},
		"process_start_time_seconds":           {help: "When the process began, as seconds since 1970."},
		"process_virtual_memory_bytes":         {help: "Address space of the process."},
		"process_virtual_memory_max_bytes":     {help: "Address space that the process may have."},
	}
}

// collectProcess leaves out what cannot be read.
func collectProcess(e *exposition) {
	p, err := procfs.Self()
	if err != nil {
		return
	}
	if s, err := p.Stat(); err == nil {
		e.send("process_cpu_seconds_total", counter, s.CPUTime())
		e.send("process_virtual_memory_bytes", gauge, float64(s.VirtualMemory()))
		e.send("process_resident_memory_bytes", gauge, float64(s.ResidentMemory()))
		if at, err := s.StartTime(); err == nil {
			e.send("process_start_time_seconds", gauge, at)
		}
	}
	if n, err := p.FileDescriptorsLen(); err == nil {
		e.send("process_open_fds", gauge, float64(n))
	}
	if l, err := p.Limits(); err == nil {
		e.send("process_max_fds", gauge, float64(l.OpenFiles))
		e.send("process_virtual_memory_max_bytes", gauge, float64(l.AddressSpace))
	}
	if n, err := p.Netstat(); err == nil && n.InOctets != nil && n.OutOctets != nil {
		e.send("process_network_receive_bytes_total", counter, *n.InOctets)
		e.send("process_network_transmit_bytes_total", counter, *n.OutOctets)
	}
}
