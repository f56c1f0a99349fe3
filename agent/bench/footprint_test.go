package bench

import (
	"debug/elf"
	"os"
	"testing"
)

// TestStripped compares the sizes of sections with those that debug/elf reads,
// and gives files that are cut short.
func TestStripped(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Skipf("no ELF file: %v", err)
	}
	defer f.Close()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := elfSections(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(f.Sections) || got[".text"] == 0 {
		t.Fatalf("%d sections, want %d: %v", len(got), len(f.Sections), got)
	}
	for _, s := range f.Sections {
		if got[s.Name] != int64(s.FileSize) {
			t.Errorf("section %q of %d bytes, want %d", s.Name, got[s.Name], s.FileSize)
		}
	}
	for n := 0; n < int(f.Section(".shstrtab").Offset); n += 1 + n/3 {
		if _, err := elfSections(file[:n]); err == nil {
			t.Errorf("a file cut off after %d of %d bytes is taken for whole", n, len(file))
		}
	}
}
