// Package codec owns the bytes of commands, control messages and snapshots of
// the replicated state: CBOR with integer keys, deterministic, bounded. Unknown
// keys are refused, since an agent that skipped one would not be like the others.
//
// Each value has one encoding, and no other is taken: so equal states are equal
// bytes on every agent. A slice without elements and nil are the same value,
// and nil may come back as the other.
//
// docs/COMMANDS.md and docs/CONTROL.md have golden bytes. Frames around the
// bytes are whose streams or logs carry them.
package codec
