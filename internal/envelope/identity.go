package envelope

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrIdentity says that an identity is incomplete or malformed. The error names the field, never what is in it.
var ErrIdentity = errors.New("envelope: malformed identity")

const (
	maxName    = 400 // bytes: the BRP allows 200 characters
	maxAddress = 500 // bytes
	// identityBucket is the one padded size of all identities.
	identityBucket = 2048
	// maxSealedIdentity leaves room for the largest encapsulated key and the tag.
	maxSealedIdentity = identityBucket + 2048
)

// Identity is who the data subject is, as one organisation tells it to another: the BSN where the law lets the
// recipient hold one, otherwise name, birth date and address. BSN, or FamilyName and BirthDate, must be set.
//
// An Identity prints as [redacted] and refuses to be marshalled, also as an exported field or an element of something
// else. Its fields are plain strings, and fmt reads them where it cannot call our methods: in an unexported field of
// a struct. So do not print such a struct.
type Identity struct {
	BSN        string // nine digits; that they pass the 11-test is for the caller to check
	FamilyName string // with prefixes, such as "van der Berg"; at most 400 bytes
	GivenNames string // separated by spaces; may be empty; at most 400 bytes
	BirthDate  string // YYYY-MM-DD; 00 for an unknown day, or month and day, as the BRP has it
	Address    string // on one line; may be empty; at most 500 bytes
}

// identityJSON is the content of the seal.
type identityJSON struct {
	BSN        string `json:"bsn,omitempty"`
	FamilyName string `json:"family_name,omitempty"`
	GivenNames string `json:"given_names,omitempty"`
	BirthDate  string `json:"birth_date,omitempty"`
	Address    string `json:"address,omitempty"`
}

// Validate checks which fields are there and what they look like. It fails with [ErrIdentity].
func (id Identity) Validate() error {
	if id.BSN == "" && (id.FamilyName == "" || id.BirthDate == "") {
		return fmt.Errorf("%w: neither BSN nor family name and birth date", ErrIdentity)
	}
	if id.BSN != "" && !isDigits(id.BSN, 9) {
		return fmt.Errorf("%w: BSN", ErrIdentity)
	}
	if !isLine(id.FamilyName, maxName) {
		return fmt.Errorf("%w: family name", ErrIdentity)
	}
	if !isLine(id.GivenNames, maxName) {
		return fmt.Errorf("%w: given names", ErrIdentity)
	}
	if id.BirthDate != "" && !isBirthDate(id.BirthDate) {
		return fmt.Errorf("%w: birth date", ErrIdentity)
	}
	if !isLine(id.Address, maxAddress) {
		return fmt.Errorf("%w: address", ErrIdentity)
	}
	return nil
}

// isLine reports whether s is valid text on one line, within the limit and without space around it. It may be empty.
func isLine(s string, limit int) bool {
	if len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		// Format characters can turn text around or hide it, so that two names look alike.
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
			return false
		}
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	return !unicode.IsSpace(first) && !unicode.IsSpace(last)
}

func isDigits(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range n {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// isBirthDate accepts a date of the calendar, and the BRP's incomplete dates YYYY-MM-00 and YYYY-00-00 (Logisch
// Ontwerp BRP, element 03.10). A date without a year identifies nobody.
func isBirthDate(s string) bool {
	const layout = "2006-01-02"
	if len(s) != len(layout) || s[:4] == "0000" {
		return false
	}
	switch {
	case s[4:] == "-00-00":
		s = s[:4] + "-01-01"
	case s[7:] == "-00":
		s = s[:7] + "-01"
	}
	_, err := time.Parse(layout, s)
	return err == nil
}

// String gives [redacted].
func (Identity) String() string { return redacted }

// GoString gives [redacted].
func (Identity) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue gives [redacted].
func (Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON fails with [ErrRedacted]; the only way out is [SealIdentity].
func (Identity) MarshalJSON() ([]byte, error) { return nil, ErrRedacted }

// MarshalText fails with [ErrRedacted].
func (Identity) MarshalText() ([]byte, error) { return nil, ErrRedacted }

// GobEncode fails with [ErrRedacted].
func (Identity) GobEncode() ([]byte, error) { return nil, ErrRedacted }

// IdentityContext is what an identity can be sealed for: an [IdentityBinding] or a [DirectBinding].
type IdentityContext interface {
	Info() []byte     // the bytes that the seal is bound to, nil when the binding is incomplete
	SealedBy() string // the organisation that must have signed the seal
}

// SealIdentity seals the identity to the recipient's key for that binding, and signs the result with the key and
// certificate chain (DER, leaf first, at most five) of the organisation that the binding names as sealer. The result
// has the same length for every identity, but for the signature. It fails with [ErrIdentity], [ErrBinding],
// [ErrKey] or [ErrSigner].
func SealIdentity(
	to PublicKey, b IdentityContext, id Identity, key crypto.Signer, chain [][]byte,
) ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if b == nil {
		return nil, ErrBinding
	}
	info := b.Info()
	content, err := json.Marshal(identityJSON(id))
	if err != nil {
		return nil, ErrIdentity // json's error could quote the content
	}
	defer clear(content)
	if len(content) > identityBucket-lengthBytes {
		return nil, fmt.Errorf("%w: too long altogether", ErrIdentity)
	}
	sealed, err := seal(to, info, content, identityBucket)
	if err != nil {
		return nil, err
	}
	message, _, err := sign(labelIdentity, info, sealed, key, chain)
	return message, err
}

// OpenIdentity verifies that the organisation which the binding names as sealer signed the message, and opens it. The
// certificates must hold at that moment: for an identity in a case, the time of the ledger's entry that recorded it,
// since cases outlive certificates; for a direct request, now. Every failure is [ErrOpen] (and also [ErrSignature],
// when it was that), except [ErrKey] and [ErrBinding] for the caller's own arguments.
func OpenIdentity(key *PrivateKey, b IdentityContext, message []byte, trust Trust, at time.Time) (Identity, error) {
	if b == nil || len(b.Info()) == 0 {
		return Identity{}, ErrBinding
	}
	info := b.Info()
	s, ok := decodeSigned(message, maxSealedIdentity)
	if !ok {
		return Identity{}, ErrOpen
	}
	by, err := trust.verify(labelIdentity, info, s, at)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrOpen, err)
	}
	if by.organisation != b.SealedBy() {
		return Identity{}, fmt.Errorf("%w: %w: not by the sealer", ErrOpen, ErrSignature)
	}
	content, err := Open(key, info, s.payload)
	if err != nil {
		return Identity{}, err
	}
	defer clear(content)
	id, err := decodeIdentity(content)
	if err != nil {
		return Identity{}, ErrOpen
	}
	return id, nil
}

// decodeIdentity fails with [ErrIdentity].
func decodeIdentity(content []byte) (Identity, error) {
	var wire identityJSON
	if !decodeCanonical(content, &wire) {
		return Identity{}, ErrIdentity
	}
	id := Identity(wire)
	return id, id.Validate()
}

// decodeCanonical reads JSON that must be spelt as we spell it: no unknown or repeated members, no other case, order
// or spacing, nothing behind it.
func decodeCanonical[T any](b []byte, v *T) bool {
	if err := json.Unmarshal(b, v); err != nil {
		return false
	}
	again, err := json.Marshal(v)
	return err == nil && bytes.Equal(again, b)
}
