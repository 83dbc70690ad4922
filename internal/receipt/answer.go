package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"sluis/internal/disclosure"
)

// MaxAnswer is the most bytes that an answer may have before it is sealed: with the padding, at most an eighth, and what sealing adds it stays
// within disclosure.MaxAnswer.
const MaxAnswer = disclosure.MaxAnswer / 8 * 7

// Answer is what a source tells a requester: the content. It exists in the clear only inside the source's and the requester's agent, and its
// formatted form shows nothing.
type Answer struct {
	Version int      `json:"v"`
	Permit  []byte   `json:"permit"` // SHA-256 of the permit's payload: see Digest
	Records []Record `json:"records,omitempty"`
}

// Record is one row of one category.
type Record struct {
	Category disclosure.Category `json:"category"`
	Values   map[string]string   `json:"values"` // by field name, without category; a field without a value is left out
}

// EncodeAnswer returns the bytes to seal; the answer's Version is set. Errors wrap ErrMalformed.
func EncodeAnswer(a Answer) ([]byte, error) {
	a.Version = Version
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("%w: answer: %w", ErrMalformed, err)
	}
	data, err := marshalAnswer(a)
	if err != nil {
		return nil, fmt.Errorf("%w: answer: cannot be encoded", ErrMalformed)
	}
	if len(data) > MaxAnswer {
		return nil, fmt.Errorf("%w: answer: longer than %d bytes", ErrMalformed, MaxAnswer)
	}
	return data, nil
}

// marshalAnswer leaves angle brackets as they are: six bytes for each would count against the limit.
func marshalAnswer(v any) ([]byte, error) {
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(data.Bytes(), []byte("\n")), nil
}

// DecodeAnswer reads an answer after it was opened. What it says still has to be held against the manifest: see CheckAnswer. Errors wrap
// ErrMalformed.
func DecodeAnswer(data []byte) (Answer, error) {
	if len(data) > MaxAnswer {
		return Answer{}, fmt.Errorf("%w: answer: longer than %d bytes", ErrMalformed, MaxAnswer)
	}
	var a Answer
	if err := decode("answer", data, &a, marshalAnswer); err != nil {
		return Answer{}, err
	}
	if err := a.check(); err != nil {
		return Answer{}, fmt.Errorf("%w: answer: %w", ErrMalformed, err)
	}
	return a, nil
}

func (a Answer) check() error {
	if a.Version != Version {
		return errors.New("unknown version")
	}
	if len(a.Permit) != sha256.Size {
		return errors.New("digest of the permit")
	}
	for _, r := range a.Records {
		if len(r.Values) == 0 || len(r.Values) > disclosure.MaxFields {
			return errors.New("a record without values, or with too many")
		}
		for name := range r.Values {
			field, err := disclosure.ParseField(string(r.Category) + "." + name)
			if err != nil || field.All() || field.Name() != name {
				return errors.New("category or field of a record")
			}
		}
	}
	return nil
}

// CheckAnswer holds an opened answer against the manifest: it must be of the same permit, and hold released fields only. Errors wrap
// ErrMismatch and name at most a field that should not be there.
func CheckAnswer(a Answer, m Manifest) error {
	if !bytes.Equal(a.Permit, m.Permit) {
		return fmt.Errorf("answer %w its manifest: another permit", ErrMismatch)
	}
	if m.Refusal != "" {
		return fmt.Errorf("answer %w its manifest: refused", ErrMismatch)
	}
	for _, r := range a.Records {
		for name := range r.Values {
			if field := disclosure.Field(string(r.Category) + "." + name); !slices.Contains(m.Released, field) {
				return fmt.Errorf("answer %w its manifest: %s was not released", ErrMismatch, field)
			}
		}
	}
	return nil
}

const redacted = "[redacted]"

// String shows nothing: an answer is content.
func (Answer) String() string { return redacted }

// Format shows nothing, whatever the verb.
func (Answer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue shows nothing.
func (Answer) LogValue() slog.Value { return slog.StringValue(redacted) }

// String shows nothing: a record is content.
func (Record) String() string { return redacted }

// Format shows nothing, whatever the verb.
func (Record) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue shows nothing.
func (Record) LogValue() slog.Value { return slog.StringValue(redacted) }
