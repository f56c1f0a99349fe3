package mqtt

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
)

func TestTopic(t *testing.T) {
	s := batch.MustSchema(
		batch.Field{Name: "s", Type: batch.String}, batch.Field{Name: "i", Type: batch.Bigint}, batch.Field{Name: "d", Type: batch.Double},
		batch.Field{Name: "b", Type: batch.Boolean}, batch.Field{Name: "t", Type: batch.Timestamp}, batch.Field{Name: "x", Type: batch.Bytes})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	bl.SetString(0, "a/b+c#d%")
	bl.SetInt(1, -7)
	bl.SetDouble(2, 1e21)
	bl.SetBool(3, true)
	bl.SetInt(4, 1_700_000_000_500_000)
	bl.SetBytes(5, []byte{'$', 0xff, 0, 'z'})
	bl.EndRow(0)
	bl.SetString(0, "")
	bl.SetDouble(2, 2.5)
	bl.SetInt(4, int64(dataflow.MaxTime))
	bl.EndRow(0)
	bl.SetString(0, "$SYS\u0085Grüße\ufffe")
	bl.EndRow(0)
	b := bl.Take()
	for _, c := range []struct {
		topic string
		pos   int
		want  string
	}{
		{"plain/topic", 0, "plain/topic"},
		{"alerts/{s}", 0, "alerts/a%2Fb%2Bc%23d%25"},
		{"{i}/{d}/{b}", 0, "-7/1000000000000000000000/true"},
		{"{t}", 0, "2023-11-14T22:13:20.5Z"},
		{"{x}", 0, "%24%FF%00z"},
		{"a{x}b", 0, "a$%FF%00zb"},
		{"{s}/{i}/{b}", 1, "_/_/_"},
		{"{d}/{t}", 1, "2.5/9223372036854775807"},
		{"{s}", 2, "%24SYS%C2%85Grüße%EF%BF%BE"},
	} {
		tpl, err := parseTemplate(c.topic, s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tpl.append(nil, b, c.pos)); got != c.want {
			t.Errorf("%s: %q, want %q", c.topic, got, c.want)
		}
	}
}

// Escaping adds no level and no wildcard, makes valid UTF-8, and loses nothing.
func TestTopicEscape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SliceOf(rapid.Byte()).Draw(t, "v")
		if rapid.Bool().Draw(t, "text") {
			v = []byte(rapid.String().Draw(t, "s"))
		}
		got := string(appendEscaped(nil, 0, v))
		if strings.ContainsAny(got, "/+#\x00") || !utf8.ValidString(got) || strings.HasPrefix(got, "$") {
			t.Fatalf("%q becomes %q", v, got)
		}
		back, err := url.PathUnescape(got)
		if err != nil || !bytes.Equal([]byte(back), v) {
			t.Fatalf("%q becomes %q, which reads %q (%v)", v, got, back, err)
		}
	})
}

func TestTopicValueIsCut(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String})
	bl := batch.NewBuilder(batch.NewPool(0, nil), s)
	bl.SetString(0, strings.Repeat("x", 3*maxValue))
	bl.EndRow(0)
	tpl, err := parseTemplate("{s}", s)
	if err != nil {
		t.Fatal(err)
	}
	if got := tpl.append(nil, bl.Take(), 0); len(got) != maxValue {
		t.Errorf("%d bytes, want %d", len(got), maxValue)
	}
}

func TestTopicRefused(t *testing.T) {
	s := batch.MustSchema(batch.Field{Name: "s", Type: batch.String})
	for _, topic := range []string{"", "a/+", "a/#", "a\x00", "{", "}", "a}b{s}", "{s", "{t}", "{}", "\xff", strings.Repeat("a", 40000)} {
		if _, err := parseTemplate(topic, s); err == nil {
			t.Errorf("%.20q was accepted", topic)
		}
	}
	if _, err := parseTemplate("{t}", s); err == nil || !strings.Contains(err.Error(), fmt.Sprint(s)) {
		t.Errorf("the error does not name the columns: %v", err)
	}
}
