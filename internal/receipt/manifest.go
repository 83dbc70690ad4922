package receipt

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluis/internal/disclosure"
)

// Manifest is the source's signed statement of what it did with a permit: which fields it released, which it withheld and why, and the digest
// of the sealed answer. Or why it refused as a whole. It holds no content.
type Manifest struct {
	Version      int                   `json:"v"`
	Permit       []byte                `json:"permit"` // SHA-256 of the permit's payload: see Digest
	Request      disclosure.RequestID  `json:"request"`
	Source       disclosure.Party      `json:"source"`
	Requester    disclosure.Party      `json:"requester"`
	Released     []disclosure.Field    `json:"released,omitempty"`
	Withheld     []disclosure.Withheld `json:"withheld,omitempty"`
	Refusal      disclosure.ReasonCode `json:"refusal,omitempty"`       // empty when answered; else nothing is released or withheld
	AnswerDigest []byte                `json:"answer_digest,omitempty"` // SHA-256 of the sealed answer; empty on a refusal
	AnsweredAt   time.Time             `json:"answered_at"`
}

// SignManifest encodes and signs a manifest; its Version is set. The signer holds the source's signing key, Ed25519, and signs the message
// itself (crypto.Hash(0)). Errors wrap ErrMalformed or ErrSignature, or are the signer's.
func SignManifest(m Manifest, signer crypto.Signer) (disclosure.Signed, error) {
	m.Version = Version
	if err := m.check(); err != nil {
		return disclosure.Signed{}, fmt.Errorf("%w: manifest: %w", ErrMalformed, err)
	}
	return sign("manifest", manifestPrefix, MaxManifest, m, signer)
}

// OpenManifest checks the signature of a manifest as received and decodes it. The key is that of the source's key statement. What it says
// still has to be held against the permit: see CheckManifest. Errors wrap ErrSignature or ErrMalformed.
func OpenManifest(payload, signature []byte, key ed25519.PublicKey) (Manifest, error) {
	if err := verify("manifest", manifestPrefix, MaxManifest, payload, signature, key); err != nil {
		return Manifest{}, err
	}
	return decodeManifest(payload)
}

func decodeManifest(payload []byte) (Manifest, error) {
	var m Manifest
	if err := decode("manifest", payload, &m, json.Marshal); err != nil {
		return Manifest{}, err
	}
	if err := m.check(); err != nil {
		return Manifest{}, fmt.Errorf("%w: manifest: %w", ErrMalformed, err)
	}
	return m, nil
}

func (m Manifest) check() error {
	return firstError(
		ensure(m.Version == Version, "unknown version"),
		ensure(len(m.Permit) == sha256.Size, "digest of the permit"),
		checkID("request", m.Request),
		checkParty("source", m.Source),
		checkParty("requester", m.Requester),
		checkFields(m.Released),
		checkWithheld(m.Withheld),
		m.checkRefusal(),
		ensure(!m.AnsweredAt.IsZero(), "time of the answer"),
	)
}

func (m Manifest) checkRefusal() error {
	if m.Refusal == "" {
		return ensure(len(m.AnswerDigest) == sha256.Size, "digest of the answer")
	}
	if !codePattern.MatchString(string(m.Refusal)) {
		return errors.New("reason of the refusal")
	}
	return ensure(len(m.Released) == 0 && len(m.Withheld) == 0 && len(m.AnswerDigest) == 0, "a refusal that answers")
}

func checkWithheld(withheld []disclosure.Withheld) error {
	fields := make([]disclosure.Field, 0, len(withheld))
	for _, w := range withheld {
		fields = append(fields, w.Field)
		r := w.Reason
		if !codePattern.MatchString(string(r.Code)) || !isText(r.Article, disclosure.MaxText) ||
			r.Row != "" && !rowPattern.MatchString(string(r.Row)) ||
			r.Condition != "" && !codePattern.MatchString(string(r.Condition)) {
			return errors.New("reason for withholding")
		}
	}
	return checkFields(fields)
}

// CheckManifest holds a manifest against the permit that it answers, whose payload has the given digest. The source, the requester, the
// request and the digest must be the same, the answer must not be older than the permit, and every permitted field must be either released
// or withheld, no other field being named; a refusal releases nothing. Broker and requester both call it (released fields are a subset of
// permitted ones). Errors wrap ErrMismatch.
func CheckManifest(m Manifest, p Permit, permitDigest []byte) error {
	err := firstError(
		m.checkRefusal(), // a Manifest that was not opened, but made, is held to the same rules
		ensure(len(permitDigest) == sha256.Size && bytes.Equal(m.Permit, permitDigest), "another permit"),
		ensure(m.Request == p.Request, "another request"),
		ensure(m.Source == p.Source, "another source"),
		ensure(m.Requester == p.Requester, "another requester"),
		ensure(!m.AnsweredAt.Before(p.IssuedAt.Add(-disclosure.ClockSkew)), "answered before the permit"),
		checkCover(m, p.Fields),
	)
	if err != nil {
		return fmt.Errorf("manifest %w its permit: %w", ErrMismatch, err)
	}
	return nil
}

func checkCover(m Manifest, permitted []disclosure.Field) error {
	if m.Refusal != "" {
		return nil //nolint:nilerr // a refusal covers nothing
	}
	named := slices.Clone(m.Released)
	for _, w := range m.Withheld {
		named = append(named, w.Field)
	}
	slices.Sort(named)
	want := slices.Clone(permitted)
	slices.Sort(want)
	return ensure(slices.Equal(named, want), "released and withheld fields are not the permitted ones")
}

// CheckSealed reports whether sealed is the answer that the manifest speaks of. The broker and the requester call it; neither can read
// more, or less, than the source has signed. Errors wrap ErrMismatch.
func CheckSealed(sealed []byte, m Manifest) error {
	if m.Refusal != "" && len(sealed) == 0 {
		return nil
	}
	if m.Refusal != "" || !bytes.Equal(m.AnswerDigest, Digest(sealed)) {
		return fmt.Errorf("sealed answer %w its manifest", ErrMismatch)
	}
	return nil
}
