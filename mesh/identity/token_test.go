package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	id := newBox(t, "2026-03-01").found("plant", "hall")
	tok, other := id.NewToken(), id.NewToken()
	got, err := ParseToken(" " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Fatalf("%v, %v", got, err)
	}
	if tok == other || tok.ID == other.ID || tok.SecretHash() == other.SecretHash() {
		t.Error("two tokens are the same")
	}
	if tok.Root != RootHash(id.Root()) {
		t.Error("it names another root")
	}
	a, b := tok.SecretHash(), other.SecretHash()
	if !SameSecret(a[:], a[:]) || SameSecret(a[:], b[:]) || SameSecret(a[:16], a[:16]) || SameSecret(nil, nil) {
		t.Error("SameSecret")
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", tok)
	if part := strings.Split(tok.String(), "-"); strings.Contains(log.String(), part[2]) || !strings.Contains(log.String(), part[1]) {
		t.Errorf("the log: %s", log.String())
	}
}

func TestTokenRefused(t *testing.T) {
	s := newBox(t, "2026-03-01").found("plant", "hall").NewToken().String()
	part := strings.Split(s, "-")
	for _, c := range []struct{ token, want string }{
		{"", "begins with tm1- or ts1-"},
		{"x" + s, "begins with"},
		{"tm2" + s[3:], "upgrade it"},
		{strings.Join(part[:3], "-"), "was it cut"},
		{s[:len(s)-1], "part 4"},
		{s + "a", "part 4"},
		{strings.ToUpper(s), "begins with"},
		{fmt.Sprintf("tm1-%s-%s-%s", part[1], part[2][:31]+"1", part[3]), "part 3"},
		{fmt.Sprintf("tm1-%s\n-%s-%s", part[1], part[2], part[3]), "part 2"},
		{strings.Repeat("tm1-", 40), "160 characters"},
	} {
		_, err := ParseToken(c.token)
		if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.token, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), part[2][:12]) {
			t.Errorf("the error repeats the secret: %v", err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("tm1-aaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Add("tm1-a-b-c")
	f.Add("tm9---")
	f.Add("ts1-aaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.String() != strings.TrimSpace(s) {
			t.Errorf("%q became %q", s, tok.String())
		}
		if err != nil && !errors.Is(err, ErrToken) {
			t.Error(err)
		}
	})
}
