package job

import (
	"errors"
	"fmt"
	"strings"
)

// CheckFilters checks a source against the filters of the feed that it names,
// which the job's text does not show: shared filters, and levels of topics that
// fields are read from. The error has all that is wrong.
func (s *Source) CheckFilters(filters []string) error {
	var errs []error
	bad := func(hint, format string, args ...any) {
		errs = append(errs, fmt.Errorf("source %q: %s; %s", s.ID, fmt.Sprintf(format, args...), hint))
	}
	for _, f := range filters {
		if why := s.Time.together(); why != "" && strings.HasPrefix(f, "$share/") {
			bad(unshare, partsDevices, f, why)
		}
		for _, field := range s.Decode.Fields {
			if n, more := filterLevels(f); field.Topic >= n && !more {
				bad("levels are counted from 0", "field %q reads level %d of topics that the filter %q gives %d levels", field.Name, field.Topic, f, n)
			}
		}
	}
	return errors.Join(errs...)
}
