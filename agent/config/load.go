package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tidemark-mesh/tidemark/dataflow/job"
)

// maxText is how long a file may be; what is longer was not written by a person.
const maxText = 1 << 20

// Load puts a file over the defaults. Unknown keys are refused, with the line and
// the nearest valid one; all that is wrong is said at once.
func Load(file string) (Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	return Parse(file, text)
}

// Parse is Load of a text.
func Parse(file string, text []byte) (c Config, err error) {
	defer func() { // the yaml package reports some malformed input by panicking
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v", file, p)
		}
	}()
	c = Default()
	if len(text) > maxText {
		return c, fmt.Errorf("%s: it has %d bytes, a configuration has at most %d", file, len(text), maxText)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return c, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 { // nothing but comments
		return c, nil
	}
	var e problems
	set(&e, reflect.ValueOf(&c).Elem(), doc.Content[0], "")
	if len(e) > 0 {
		for i := range e {
			e[i] = file + ":" + e[i]
		}
		return c, Errors(e)
	}
	return c, nil
}

// set puts a mapping into a struct by its tags.
func set(e *problems, into reflect.Value, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		at(e, n, path, "a mapping of keys is wanted")
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := strings.TrimPrefix(path+"."+k.Value, ".")
		field, known := fieldOf(into, k.Value)
		switch {
		case !known:
			at(e, k, key, "is no key%s", nearest(k.Value, keysOf(into)))
		case seen[k.Value]:
			at(e, k, key, "stands here twice")
		case field.Kind() == reflect.Struct:
			set(e, field, v, key)
		default:
			setValue(e, field, v, key)
		}
		seen[k.Value] = true
	}
}

func setValue(e *problems, field reflect.Value, v *yaml.Node, key string) {
	if size(key) {
		n, err := job.ParseSize(v.Value)
		if err != nil {
			at(e, v, key, "%v", err)
			return
		}
		field.SetInt(n)
		return
	}
	if err := v.Decode(field.Addr().Interface()); err != nil {
		what := err.Error()
		var te *yaml.TypeError
		if errors.As(err, &te) && len(te.Errors) > 0 {
			_, what, _ = strings.Cut(te.Errors[0], ": ")
		}
		at(e, v, key, "%s", what)
	}
}

// size tells whether a key is a number of bytes, which has a unit.
func size(key string) bool {
	return key == "memory" || key == "wan.rate" || key == "rate" || key == "replication.keep" || key == "keep"
}

func at(e *problems, n *yaml.Node, key, format string, args ...any) {
	*e = append(*e, fmt.Sprintf("%d: %s: ", n.Line, key)+fmt.Sprintf(format, args...))
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == key {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(v reflect.Value) []string {
	var keys []string
	for i := range v.NumField() {
		keys = append(keys, v.Type().Field(i).Tag.Get("yaml"))
	}
	return keys
}

// nearest is a hint at the key that was probably meant.
func nearest(key string, of []string) string {
	best, least := "", 3
	for _, k := range of {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "; the keys are " + strings.Join(of, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}

// Explain writes what is in force, as a file that says the same; secrets are
// shown as they were given, and only if they are references.
func (c Config) Explain(w io.Writer) error {
	var out strings.Builder
	explain(&out, reflect.ValueOf(c), "")
	_, err := io.WriteString(w, out.String())
	return err
}

func explain(out *strings.Builder, v reflect.Value, indent string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key, val := f.Tag.Get("yaml"), v.Field(i)
		if f.Type.Kind() == reflect.Struct {
			fmt.Fprintf(out, "%s%s:\n", indent, key)
			explain(out, val, indent+"  ")
			continue
		}
		fmt.Fprintf(out, "%s%-17s %-28s # %s\n", indent, key+":", shown(key, val), f.Tag.Get("help"))
	}
}

func shown(key string, v reflect.Value) string {
	switch {
	case key == "token" && v.String() != "":
		if s, err := job.ParseSecret(v.String()); err != nil || !s.Stored() {
			return "(given)"
		}
		return v.String()
	case size(key):
		return fmt.Sprintf("%dB", v.Int())
	case v.Kind() == reflect.Map:
		var pairs []string
		for _, k := range v.MapKeys() {
			pairs = append(pairs, fmt.Sprintf("%q: %q", k.String(), v.MapIndex(k).String()))
		}
		slices.Sort(pairs)
		return "{" + strings.Join(pairs, ", ") + "}"
	case v.Kind() == reflect.Slice:
		return "[" + strings.Join(v.Interface().([]string), ", ") + "]"
	case v.Kind() == reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}
