package codec

import (
	"crypto/sha256"
	"fmt"

	"github.com/tidemark-mesh/tidemark/coordinator"
	"github.com/tidemark-mesh/tidemark/store"
)

// EncodeWant is the bytes of what a site asks another one.
func EncodeWant(w *coordinator.Want) ([]byte, error) { return encodeWhole("question", w) }

// DecodeWant reads what EncodeWant wrote.
func DecodeWant(data []byte) (*coordinator.Want, error) {
	return decodeWhole[coordinator.Want]("question", data)
}

// EncodeOffer is the bytes of the answer.
func EncodeOffer(o *coordinator.Offer) ([]byte, error) { return encodeWhole("offer", o) }

// DecodeOffer reads what EncodeOffer wrote.
func DecodeOffer(data []byte) (*coordinator.Offer, error) {
	return decodeWhole[coordinator.Offer]("offer", data)
}

// TextOf tells one text of a job from another: it is the SHA-256 of its bytes.
func TextOf(m *coordinator.MovingJob) store.Digest {
	data, err := encMode().Marshal(m)
	if err != nil {
		panic(err) // it has nothing that could not be encoded
	}
	return sha256.Sum256(data)
}

// encodeWhole and decodeWhole are of a message that says all of its fields, between
// sites.
func encodeWhole[T any](what string, v *T) ([]byte, error) { return encodeUpTo(what, v, MaxSite) }

func decodeWhole[T any](what string, data []byte) (*T, error) {
	if len(data) > MaxSite {
		return nil, fmt.Errorf("codec: a %s has %d bytes, at most %d are possible: %w", what, len(data), MaxSite, ErrTooLarge)
	}
	v := new(T)
	if err := strictly(data, v); err != nil {
		return nil, fmt.Errorf("codec: a %s is %w: %w", what, ErrMalformed, err)
	}
	return v, nil
}
