package pseudonym

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"
)

var (
	// ErrBSN says that a string is not a citizen service number. The error never holds the string.
	ErrBSN = errors.New("pseudonym: not a valid citizen service number")
	// ErrRedacted is what marshalling a BSN, a private key or pending blinds gives: they must not be written.
	ErrRedacted = errors.New("pseudonym: refusing to marshal a secret")
)

const redacted = "[redacted]"

// BSN is a citizen service number: nine digits that pass the 11-test. The zero value is no BSN.
//
// A BSN prints as [redacted] and refuses to be marshalled, so that it cannot slip into a log, an error, a trace or
// a message. Only [BSN.Reveal] gives the digits. Two BSNs are == when they are the same number.
type BSN struct {
	// Behind a handle rather than as a string: fmt cannot call our methods on an unexported field of somebody
	// else's struct and prints the raw memory instead, but it does not follow pointers there.
	digits unique.Handle[string]
}

// ParseBSN reads nine ASCII digits a..i, not all zero, for which 9a+8b+7c+6d+5e+4f+3g+2h-i is a multiple of 11
// (Besluit burgerservicenummer; the "elfproef"). Shorter numbers must come with their leading zero. It fails with
// [ErrBSN], which does not repeat s.
func ParseBSN(s string) (BSN, error) {
	const length = 9
	if len(s) != length {
		return BSN{}, ErrBSN
	}
	sum, nonzero := 0, false
	for i := range length {
		if s[i] < '0' || s[i] > '9' {
			return BSN{}, ErrBSN
		}
		digit, weight := int(s[i]-'0'), length-i
		if weight == 1 {
			weight = -1
		}
		sum += weight * digit
		nonzero = nonzero || digit != 0
	}
	if !nonzero || sum%11 != 0 {
		return BSN{}, ErrBSN
	}
	// Cloned, because the handle would otherwise keep alive whatever larger text s was cut from.
	return BSN{unique.Make(strings.Clone(s))}, nil
}

// Reveal gives the nine digits. Call it only where the law lets this organisation hold the BSN, and never
// for a log, an error or the broker.
func (b BSN) Reveal() string {
	if b.IsZero() {
		return ""
	}
	return b.digits.Value()
}

// IsZero reports whether b is the zero value, which is no BSN.
func (b BSN) IsZero() bool { return b == BSN{} }

// IsTest reports whether b lies in the range 9999xxxxx, which is never issued to a person and which test data uses.
func (b BSN) IsTest() bool { return strings.HasPrefix(b.Reveal(), "9999") }

// String gives [redacted].
func (BSN) String() string { return redacted }

// GoString gives [redacted].
func (BSN) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (BSN) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue gives [redacted].
func (BSN) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON fails with [ErrRedacted].
func (BSN) MarshalJSON() ([]byte, error) { return nil, ErrRedacted }

// MarshalText fails with [ErrRedacted].
func (BSN) MarshalText() ([]byte, error) { return nil, ErrRedacted }
