package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/zeebo/xxh3"

	"github.com/tidemark-mesh/tidemark/dataflow"
	"github.com/tidemark-mesh/tidemark/dataflow/batch"
	"github.com/tidemark-mesh/tidemark/mesh/wire"
)

// The frames of a channel's stream: docs/WIRE.md.
const (
	frameOpen     = 1
	frameAccepted = 2
	frameRefused  = 3
	frameBatch    = 4
	framePacked   = 5
	frameBarrier  = 6
	frameEnd      = 7
	frameTaken    = 8
)

// Limits of payloads.
const (
	maxOpen    = 64 << 10
	maxRefused = 4 << 10
	maxBarrier = 4 << 10
	maxBatch   = wire.MaxPayload
)

// toReceiver are the frames that a sender sends, toSender the others.
func toReceiver() []wire.Limit {
	return []wire.Limit{{Kind: frameOpen, Bytes: maxOpen}, {Kind: frameBatch, Bytes: maxBatch}, {Kind: framePacked, Bytes: maxBatch},
		{Kind: frameBarrier, Bytes: maxBarrier}, {Kind: frameEnd}}
}

func toSender() []wire.Limit {
	return []wire.Limit{{Kind: frameAccepted}, {Kind: frameRefused, Bytes: maxRefused}, {Kind: frameTaken}}
}

// Hello opens a channel: what the receiver needs to know to let it in.
type Hello struct {
	Job     string
	Token   dataflow.FencingToken
	From    dataflow.SubtaskID
	To      dataflow.SubtaskID
	Channel int    // of To's inputs
	Schema  uint64 // SchemaDigest of the rows
}

// String names the channel in errors.
func (h Hello) String() string {
	return fmt.Sprintf("channel %d of %s, from %s, of job %s, attempt %d", h.Channel, h.To, h.From, h.Job, h.Token.Attempt)
}

// SchemaDigest tells schemas apart.
func SchemaDigest(s *batch.Schema) uint64 { return xxh3.HashString(s.String()) }

// Reason is why a receiver refuses a channel.
type Reason uint8

// The reasons; the numbers are part of the wire format.
const (
	NoAttempt   Reason = iota + 1 // no such attempt is here, or not any more
	Fenced                        // another attempt, with a greater token, holds the job here
	NoChannel                     // the attempt has no such channel here
	OtherSchema                   // the channel has other columns
	Failed                        // the receiver failed while rows came
)

var reasonNames = [...]string{NoAttempt: "no such attempt", Fenced: "fenced", NoChannel: "no such channel", OtherSchema: "other schema", Failed: "failed"}

// Refusal is the error of a channel that was refused.
type Refusal struct {
	Reason Reason
	Why    string // a sentence for people
}

// Error is the reason and the sentence.
func (r *Refusal) Error() string {
	return fmt.Sprintf("refused (%s): %s", reasonNames[r.Reason], r.Why)
}

// errFormat is wrapped by errors about payloads.
var errFormat = fmt.Errorf("channel: %w", wire.ErrFormat)

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendToken(dst []byte, t dataflow.FencingToken) []byte {
	dst = binary.AppendUvarint(dst, t.Epoch)
	dst = appendString(dst, t.Site)
	return binary.AppendUvarint(dst, t.Attempt)
}

func appendHello(dst []byte, h Hello) []byte {
	dst = appendString(dst, h.Job)
	dst = appendToken(dst, h.Token)
	for _, s := range [...]dataflow.SubtaskID{h.From, h.To} {
		dst = appendString(dst, string(s.Task))
		dst = binary.AppendUvarint(dst, uint64(s.Index))
	}
	dst = binary.AppendUvarint(dst, uint64(h.Channel))
	return binary.LittleEndian.AppendUint64(dst, h.Schema)
}

func parseHello(p []byte) (h Hello, err error) {
	d := decoder{wire.FieldsOf(p)}
	h.Job = d.string()
	h.Token = d.token()
	for _, s := range [...]*dataflow.SubtaskID{&h.From, &h.To} {
		s.Task = dataflow.TaskID(d.string())
		s.Index = d.int()
	}
	h.Channel = d.int()
	if v := d.Take(8); v != nil {
		h.Schema = binary.LittleEndian.Uint64(v)
	}
	return h, d.end("open")
}

const (
	barrierFull = 1 << 0
	barrierThen = 1 // where the bits of Then begin
)

func appendBarrier(dst []byte, b dataflow.Barrier) []byte {
	flags := byte(b.Then) << barrierThen
	if b.Full {
		flags |= barrierFull
	}
	dst = append(dst, flags)
	dst = appendToken(dst, b.ID.Token)
	return binary.AppendUvarint(dst, b.ID.Counter)
}

func parseBarrier(p []byte) (b dataflow.Barrier, err error) {
	d := decoder{wire.FieldsOf(p)}
	if v := d.Take(1); v != nil {
		b.Full = v[0]&barrierFull != 0
		b.Then = dataflow.Then(v[0] >> barrierThen)
		if b.Then > dataflow.Drain {
			d.Fail()
		}
	}
	b.ID.Token = d.token()
	b.ID.Counter = d.Uvarint()
	return b, d.end("barrier")
}

func appendRefusal(dst []byte, r *Refusal) []byte {
	return append(append(dst, byte(r.Reason)), r.Why[:min(len(r.Why), maxRefused-1)]...)
}

func parseRefusal(p []byte) (*Refusal, error) {
	if len(p) == 0 || p[0] == 0 || int(p[0]) >= len(reasonNames) {
		return nil, fmt.Errorf("%w: refused", errFormat)
	}
	return &Refusal{Reason: Reason(p[0]), Why: string(p[1:])}, nil
}

// refusalOf is what a receiver that ended with err tells the sender.
func refusalOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Reason: Failed, Why: err.Error()}
}

// decoder takes a payload apart.
type decoder struct{ wire.Fields }

func (d *decoder) int() int {
	v := d.Uvarint()
	if v > math.MaxInt32 {
		d.Fail()
		return 0
	}
	return int(v)
}

func (d *decoder) string() string {
	return string(d.Take(d.int()))
}

func (d *decoder) token() dataflow.FencingToken {
	return dataflow.FencingToken{Epoch: d.Uvarint(), Site: d.string(), Attempt: d.Uvarint()}
}

func (d *decoder) end(what string) error {
	if !d.Whole() {
		return fmt.Errorf("%w: %s", errFormat, what)
	}
	return nil
}
