package receipt

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"sluis/internal/disclosure"
)

// Version is the version of the permit, manifest and answer that this program writes and reads.
const Version = 1

// Limits of payloads, in bytes. A manifest becomes part of an entry of the ledger, in base64 and with its lists copied, and must fit there: a
// source could otherwise keep the outcome of its own disclosure from being recorded.
const (
	MaxPermit   = 256 << 10
	MaxManifest = 24 << 10
)

// The sentinels of this package. None of the errors that wrap them repeats what was read.
var (
	// ErrMalformed is wrapped where something is not of the form that the package doc describes.
	ErrMalformed = errors.New("malformed")
	// ErrSignature is wrapped where a signature is missing, wrong, or by another key than the expected one.
	ErrSignature = errors.New("signature not accepted")
	// ErrExpired is wrapped where a permit is not valid now: expired, or not yet issued.
	ErrExpired = errors.New("permit not valid at this time")
	// ErrMismatch is wrapped where a manifest does not fit its permit, or an answer its manifest.
	ErrMismatch = errors.New("does not match")
	// ErrIncomplete is wrapped where a receipt has no checkpoint yet.
	ErrIncomplete = errors.New("receipt has no checkpoint yet")
	// ErrNotIncluded is wrapped where a receipt's entry is not in the tree of its checkpoint.
	ErrNotIncluded = errors.New("entry not in the ledger")
)

const (
	permitPrefix   = "sluis/permit/v1\x00"
	manifestPrefix = "sluis/manifest/v1\x00"
)

// Digest is the SHA-256 by which permits, manifests, key statements and sealed answers are named.
func Digest(payload []byte) []byte {
	digest := sha256.Sum256(payload)
	return digest[:]
}

// sign encodes v once and signs those bytes. The signer may sit behind a network (Vault), so its signature is checked before it is used.
func sign(what, prefix string, limit int, v any, signer crypto.Signer) (disclosure.Signed, error) {
	if _, ok := signer.Public().(ed25519.PublicKey); !ok {
		return disclosure.Signed{}, fmt.Errorf("%w: %s: want an Ed25519 key", ErrSignature, what)
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return disclosure.Signed{}, fmt.Errorf("%w: %s: cannot be encoded", ErrMalformed, what)
	}
	if len(payload) > limit {
		return disclosure.Signed{}, fmt.Errorf("%w: %s: longer than %d bytes", ErrMalformed, what, limit)
	}
	signature, err := signer.Sign(rand.Reader, append([]byte(prefix), payload...), crypto.Hash(0))
	if err != nil {
		return disclosure.Signed{}, fmt.Errorf("sign %s: %w", what, err)
	}
	// Not verified here: whoever is to act on it does so before anything is released, the source a permit and the broker a manifest.
	return disclosure.Signed{Payload: payload, Signature: signature}, nil
}

func verify(what, prefix string, limit int, payload, signature []byte, public ed25519.PublicKey) error {
	switch {
	case len(payload) > limit:
		return fmt.Errorf("%w: %s: longer than %d bytes", ErrMalformed, what, limit)
	case len(public) != ed25519.PublicKeySize:
		return fmt.Errorf("%w: %s: want an Ed25519 key", ErrSignature, what)
	case !ed25519.Verify(public, append([]byte(prefix), payload...), signature):
		return fmt.Errorf("%w: %s", ErrSignature, what)
	}
	return nil
}

// decode reads JSON that must be spelt as marshal spells it. encoding/json alone would let the same bytes mean two things: it takes the last of
// two members of the same name, ignores case and leaves out what it does not know, where another reader may not. Writing again what was read
// shows all of that. Error texts of encoding/json can hold values, so they are not passed on.
func decode(what string, data []byte, v any, marshal func(any) ([]byte, error)) error {
	if json.Unmarshal(data, v) != nil {
		return fmt.Errorf("%w: %s: not JSON of the right types", ErrMalformed, what)
	}
	if again, err := marshal(v); err != nil || !bytes.Equal(again, data) {
		return fmt.Errorf("%w: %s: not in its one spelling: a member unknown, repeated, out of order or in another case", ErrMalformed, what)
	}
	return nil
}

// isText reports whether s is at most limit characters of readable text: what ends up on a screen must not steer it.
func isText(s string, limit int) bool {
	if !utf8.ValidString(s) || utf8.RuneCountInString(s) > limit {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return false
		}
	}
	return true
}

// firstError returns the first error of checks that are cheap enough to all be made.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func ensure(ok bool, text string) error {
	if ok {
		return nil
	}
	return errors.New(text)
}

func checkParty(what string, p disclosure.Party) error {
	if _, err := disclosure.ParseParty(string(p.OIN), string(p.Domain)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func checkID[T ~string](what string, id T) error {
	_, err := disclosure.ParseID[T](what, string(id))
	return err
}

// checkFields wants concrete fields, none twice.
func checkFields(fields []disclosure.Field) error {
	if len(fields) > disclosure.MaxFields {
		return errors.New("too many fields")
	}
	seen := make(map[disclosure.Field]bool, len(fields))
	for _, f := range fields {
		if _, err := disclosure.ParseField(string(f)); err != nil {
			return err
		}
		if f.All() || seen[f] {
			return errors.New("a field twice, or not concrete")
		}
		seen[f] = true
	}
	return nil
}
