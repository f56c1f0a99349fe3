package job

import (
	"errors"
	"fmt"
	"strings"
)

// Secret is a user name or password as the job has it: text, or a reference
// `${env:NAME}` or `${file:PATH}` that is resolved where the connector runs.
// The value is never stored in a job and never printed: all formatting verbs
// show the reference, or "(given in the job)".
type Secret struct {
	kind  secretKind
	value string // the text, or what the reference names
}

type secretKind uint8

const (
	noSecret secretKind = iota
	plainText
	envReference
	fileReference
)

// Resolver looks secrets up on the machine where they are needed. Each function
// returns an error that says why there is none; it must not contain the value.
type Resolver struct {
	Env  func(name string) (string, error)
	File func(path string) ([]byte, error)
}

// errNoResolver is a mistake of the caller, not of the job.
var errNoResolver = errors.New("there is no way to look it up here")

// ParseSecret reads a secret as a job has it: text, or a reference. What
// String gives for text is not a secret.
func ParseSecret(s string) (Secret, error) {
	if s == "" {
		return Secret{}, nil
	}
	secret, msg := parseSecret(s)
	if msg != "" {
		return Secret{}, fmt.Errorf("%q: %s", s, msg)
	}
	return secret, nil
}

// Stored tells whether String is all there is to the secret, so that it can be
// kept anywhere: it is a reference, or not given.
func (s Secret) Stored() bool { return s.kind != plainText }

func parseSecret(s string) (Secret, string) {
	if !strings.Contains(s, "${") {
		return Secret{kind: plainText, value: s}, ""
	}
	body, ok := strings.CutPrefix(s, "${")
	body, closed := strings.CutSuffix(body, "}")
	if !ok || !closed || strings.ContainsAny(body, "{}") {
		return Secret{}, "a reference is the whole value: ${env:NAME} or ${file:PATH}"
	}
	kind, name, _ := strings.Cut(body, ":")
	switch {
	case name == "":
		return Secret{}, "a reference names something: ${env:NAME} or ${file:PATH}"
	case kind == "env":
		return Secret{kind: envReference, value: name}, ""
	case kind == "file":
		return Secret{kind: fileReference, value: name}, ""
	}
	return Secret{}, fmt.Sprintf("unknown reference ${%s:…}; use ${env:NAME} or ${file:PATH}", kind)
}

// Given tells whether the job has the key at all.
func (s Secret) Given() bool { return s.kind != noSecret }

// Resolve returns the value. A file's last line end is not part of it.
func (s Secret) Resolve(r Resolver) (string, error) {
	switch s.kind {
	case envReference:
		if r.Env == nil {
			return "", fmt.Errorf("%v: %w", s, errNoResolver)
		}
		v, err := r.Env(s.value)
		if err != nil {
			return "", fmt.Errorf("%v: %w", s, err)
		}
		return v, nil
	case fileReference:
		if r.File == nil {
			return "", fmt.Errorf("%v: %w", s, errNoResolver)
		}
		v, err := r.File(s.value)
		if err != nil {
			return "", fmt.Errorf("%v: %w", s, err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(v), "\n"), "\r"), nil
	}
	return s.value, nil
}

// String is the reference, or a word that hides the text.
func (s Secret) String() string {
	switch s.kind {
	case envReference:
		return "${env:" + s.value + "}"
	case fileReference:
		return "${file:" + s.value + "}"
	case plainText:
		return "(given in the job)"
	}
	return ""
}

// GoString hides the text from %#v too.
func (s Secret) GoString() string { return "job.Secret(" + s.String() + ")" }

// MarshalText hides it from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
