package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Every verb with its arguments, its line and its flags: whoever changes a name
// that is promised sees it here.
func TestVerbs(t *testing.T) {
	var b bytes.Buffer
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		c.InitDefaultHelpFlag()
		use := strings.TrimSpace(strings.TrimSuffix(c.CommandPath(), c.Name()) + c.Use)
		fmt.Fprintf(&b, "%s\n    %s\n", use, c.Short)
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Hidden {
				return
			}
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			kind, usage := pflag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "[]" && f.Name != "name" { // that is the machine's
				usage += fmt.Sprintf(" (%s)", f.DefValue)
			}
			fmt.Fprintf(&b, "    %s: %s\n", strings.TrimSpace(name+" "+kind), usage)
		})
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				each(sub)
			}
		}
	}
	each(newRoot(&terminal{}))
	path := filepath.Join("testdata", "verbs.txt")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := textLines(b.String()); !slices.Equal(got, textLines(string(want))) {
		t.Errorf("the verbs are not those of %s; go test ./cmd/tidemark -run TestVerbs -update rewrites it. They are now:\n%s", path, &b)
	}
}

// documented are the command lines of a page: whole ones stand in blocks, others in
// the text, where something may be left out.
type documented struct {
	where, line string
	whole       bool
}

// A line of a block, or of a comment in a file, that calls the binary; and one in
// the text, or a verb alone.
func inPage(path, text string) (all []documented) {
	call := regexp.MustCompile(`^(?:#? *\$? *|# +)(?:sudo (?:-u \w+ )?)?(?:go run )?(?:\./)?(?:cmd/)?tidemark( .*|$)`)
	span := regexp.MustCompile("`([^`\n]+)`")
	block := !strings.HasSuffix(path, ".md")
	lines := strings.Split(strings.ReplaceAll(text, "\\\n", ""), "\n")
	for i, l := range lines {
		where := fmt.Sprintf("%s:%d", path, i+1)
		if strings.HasPrefix(l, "```") {
			block = !block
			continue
		}
		if m := call.FindStringSubmatch(strings.TrimSpace(l)); block && m != nil {
			all = append(all, documented{where, m[1], strings.HasSuffix(path, ".md")})
		}
		if block {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(l, -1) {
			all = append(all, documented{where, m[1], false})
		}
	}
	return all
}

// words splits a line as a shell does, up to where its call of the binary ends.
func words(line string) (all []string) {
	token := regexp.MustCompile(`('[^']*'|"[^"]*"|[^\s'"])+`)
	for _, w := range token.FindAllString(line, -1) {
		if w == "&" || w == "|" || w == ">" || strings.HasPrefix(w, "#") || w == "…" {
			break
		}
		switch w = strings.Trim(w, `[]'",…`); w {
		case "":
		case "N": // a number
			all = append(all, "1")
		default:
			all = append(all, w)
		}
	}
	return all
}

// wrong tells what is wrong with a call: with its verb and flags, and of a whole
// one also with its arguments. verb is false if it is none.
func wrong(args []string, whole bool) (verb bool, err error) {
	root := newRoot(&terminal{})
	switch {
	case len(args) == 0:
		return true, nil
	case strings.HasPrefix(args[0], "--"): // of a verb that the text is about
		name, _, _ := strings.Cut(args[0][2:], "=")
		if !anyHas(root, name) {
			return true, fmt.Errorf("no verb has %s", args[0])
		}
		return true, nil
	}
	if first, _, err := root.Find(args[:1]); err != nil || first == root {
		return false, fmt.Errorf("no verb %q", args[0])
	}
	c, rest, err := root.Find(args)
	if err != nil {
		return true, err
	}
	err = c.ParseFlags(rest)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "flag needs an argument") && !whole:
		return true, nil
	case err != nil:
		return true, err
	case c.HasSubCommands():
		return true, knownVerb(c, c.Flags().Args())
	case whole:
		return true, c.ValidateArgs(c.Flags().Args())
	}
	return true, nil
}

// anyHas tells whether a verb has a flag.
func anyHas(c *cobra.Command, name string) bool {
	return c.LocalFlags().Lookup(name) != nil || slices.ContainsFunc(c.Commands(), func(sub *cobra.Command) bool { return anyHas(sub, name) })
}

// notYet are verbs that pages say are not there yet.
func notYet() []string { return nil }

// What the pages have a user type is taken: verbs, flags, and in blocks arguments.
func TestDocumentedCalls(t *testing.T) {
	t.Chdir("../..")
	pages := []string{"README.md"}
	for _, root := range []string{"docs", "configs"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if ext := filepath.Ext(path); err == nil && (ext == ".md" || ext == ".yaml") {
				pages = append(pages, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range inPage(page, string(text)) {
			line, called := strings.CutPrefix(d.line, "tidemark ")
			args := words(line)
			if !called && !d.whole && strings.HasSuffix(page, ".md") && len(args) < 2 {
				continue // a word
			}
			verb, err := wrong(args, d.whole)
			ours := called || d.whole || verb
			if ours {
				calls++
			}
			if err != nil && ours && !slices.ContainsFunc(notYet(), func(v string) bool { return strings.HasPrefix(strings.Join(args, " "), v) }) {
				t.Errorf("%s: tidemark %s: %v", d.where, line, err)
			}
		}
	}
	if calls < 150 {
		t.Errorf("%d calls were found: are they written in another way?", calls)
	}
	for _, v := range notYet() {
		if _, err := wrong(strings.Fields(v), false); err == nil {
			t.Errorf("%s is there: take it out of notYet", v)
		}
	}
}

// A table is as wide as what is in it, but on a terminal no wider than that.
func TestTableFits(t *testing.T) {
	for _, room := range []int{0, 100, 80} {
		var out bytes.Buffer
		w := newTable(&terminal{out: &out}, "id", "job", "status", "newest checkpoint", "why")
		w.room = room
		why := strings.Repeat("it waits for slots ", 9)
		w.AppendRow([]any{"j46", "cold", "restarting", "chk-1-hall-1-22", why})
		w.Render()
		for _, l := range textLines(out.String()) {
			if n := len([]rune(l)); room > 0 && n > room {
				t.Errorf("%d columns for %d:\n%s", n, room, l)
			}
		}
		if whole := strings.Contains(out.String(), why); whole != (room == 0) {
			t.Errorf("room for %d: what is in it is on one line: %v\n%s", room, whole, &out)
		}
		if !strings.Contains(out.String(), "j46") {
			t.Error(&out)
		}
	}
}

// A status line that wraps would stand on the terminal for ever.
func TestStatusLineIsCut(t *testing.T) {
	var out bytes.Buffer
	s := &statusLine{w: &out, terminal: true, columns: func() int { return 20 }}
	s.update("running  in 22902  out 2140  late 80")
	if got, want := out.String(), "\r\x1b[Krunning  in 22902 …"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What is wrong says which verb to ask for help, and what there is.
func TestUsageNamesTheVerb(t *testing.T) {
	tidemark(t, "", "job", "show").want(t, exitUsage, "given: nothing", "Try: tidemark job show --help")
	tidemark(t, "", "job", "lits").want(t, exitUsage, `did you mean "list"?`, "Try: tidemark job --help")
	tidemark(t, "", "token", "xyz").want(t, exitUsage, "there is create, list, revoke")
	tidemark(t, "", "version", "x").want(t, exitUsage, `no argument; given: "x"`)
	for flag, v := range map[string]string{"--name": "ä/", "--mesh": "a b", "--site": "X", "--data-dir": ""} {
		dir := filepath.Join(t.TempDir(), "d")
		args := []string{"init", "--data-dir", dir, flag, v}
		tidemark(t, "", args...).want(t, exitUsage, flag)
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("init %s %q: the folder was made", flag, v)
		}
	}
}
