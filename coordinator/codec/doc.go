// Package codec owns the bytes of commands, control messages and snapshots of
// the replicated state: CBOR with integer keys, deterministic, bounded. Unknown
// keys are refused, since an agent that skipped one would not be like the others.
//
// docs/COMMANDS.md and docs/CONTROL.md have golden bytes.
package codec
