package feed

import (
	"fmt"
	"testing"
)

// A log has so many mirrors, and no more, whatever they are called.
func TestMirrorsAreBounded(t *testing.T) {
	f := &Feed{}
	f.mirrors.all = make(map[mirrorKey]*mirrored)
	for i := range mostMirrors {
		f.mirrors.all[mirrorKey{"depot", fmt.Sprint(i)}] = new(mirrored)
	}
	if r, no := f.join(mirrorKey{"depot", "one more"}, nil, 0); r != nil || no.code != refusedLater || len(f.mirrors.all) != mostMirrors {
		t.Errorf("%v %v, %d mirrors", r, no, len(f.mirrors.all))
	}
	s := &Feeds{}
	for _, as := range []string{"", string(make([]byte, mostMirrorName+1))} {
		if no := s.serveMirror(nil, nil, mirrorHello{feed: "f", as: as}); no.code != refusedOther {
			t.Errorf("a name of %d bytes: %v", len(as), no)
		}
	}
}
