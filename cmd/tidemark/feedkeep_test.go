package main

import "testing"

// --keep is a duration as jobs write it; the example of the help has days.
func TestFeedKeepIsADurationOfJobs(t *testing.T) {
	f := feedFlags{retained: "first", keepAge: "7d"}
	c, err := f.config()
	if err != nil || c.Keep.Age.Go().Hours() != 7*24 {
		t.Errorf("%v, %v", c.Keep.Age, err)
	}
	for _, bad := range []string{"7", "-1h", "1.5h", "500us"} {
		f.keepAge = bad
		if _, err := f.config(); err == nil {
			t.Errorf("--keep %s is taken", bad)
		}
	}
}
