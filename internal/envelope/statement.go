package envelope

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrStatement says that a statement of keys is malformed, not signed by the organisation that it names, or not valid
// now.
var ErrStatement = errors.New("envelope: statement does not hold")

const (
	// MaxStatementLifetime is the longest that a statement may be valid, so that a broker which keeps giving an old one
	// cannot do so for long.
	MaxStatementLifetime = 90 * 24 * time.Hour

	// clockSkew is how far ahead the clock of the organisation that states may be.
	clockSkew = 30 * time.Second

	maxStatement = 8 << 10
)

// Statement is an organisation's word on which keys are its own.
type Statement struct {
	Organisation string            // OIN, as its certificate has it
	EnvelopeKey  PublicKey         // what to seal to; parsed, so keep it and use it again
	SigningKey   ed25519.PublicKey // what its manifests are signed with
	NotBefore    time.Time         // UTC, whole seconds
	NotAfter     time.Time         // UTC, whole seconds, exclusive
}

type statementJSON struct {
	Organisation string    `json:"organisation"`
	EnvelopeKey  []byte    `json:"envelope_key"`
	SigningKey   []byte    `json:"signing_key"`
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`
}

// SignStatement signs the statement with the organisation's key and certificate chain (DER, leaf first, at most
// five). The times are cut to seconds. It fails with [ErrStatement] when the statement is incomplete, lasts longer
// than [MaxStatementLifetime] or reaches outside the certificate's own validity, or with [ErrSigner].
func SignStatement(s Statement, key crypto.Signer, chain [][]byte) ([]byte, error) {
	s.NotBefore, s.NotAfter = s.NotBefore.UTC().Truncate(time.Second), s.NotAfter.UTC().Truncate(time.Second)
	payload, err := json.Marshal(statementJSON{
		Organisation: s.Organisation, EnvelopeKey: s.EnvelopeKey.Bytes(), SigningKey: s.SigningKey,
		NotBefore: s.NotBefore, NotAfter: s.NotAfter,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if _, err := decodeStatement(payload); err != nil {
		return nil, err
	}
	message, leaf, err := sign(labelStatement, nil, payload, key, chain)
	if err != nil {
		return nil, err
	}
	if err := s.within(leaf); err != nil {
		return nil, err
	}
	return message, nil
}

// VerifyStatement verifies a signed statement: the certificate chain leads to the trusted roots, the signature is over
// exactly the payload's bytes, the certificate is that of the organisation named, and the statement is valid now,
// give or take 30 seconds of the other's clock. Every failure is [ErrStatement], and [ErrSignature] when it was that.
func VerifyStatement(message []byte, trust Trust, now time.Time) (Statement, error) {
	s, _, err := verifyStatement(message, trust, now)
	return s, err
}

func verifyStatement(message []byte, trust Trust, now time.Time) (Statement, signer, error) {
	fail := func(cause error) (Statement, signer, error) {
		return Statement{}, signer{}, fmt.Errorf("%w: %w", ErrStatement, cause)
	}
	container, ok := decodeSigned(message, maxStatement)
	if !ok {
		return Statement{}, signer{}, ErrStatement
	}
	by, err := trust.verify(labelStatement, nil, container, now)
	if err != nil {
		return fail(err)
	}
	s, err := decodeStatement(container.payload)
	if err != nil {
		return Statement{}, signer{}, err
	}
	if s.Organisation != by.organisation {
		return fail(fmt.Errorf("%w: not by the organisation that it names", ErrSignature))
	}
	if err := s.within(by.leaf); err != nil {
		return Statement{}, signer{}, err
	}
	if !s.validAt(now) {
		return Statement{}, signer{}, fmt.Errorf("%w: not valid now", ErrStatement)
	}
	return s, by, nil
}

// decodeStatement fails with [ErrStatement].
func decodeStatement(payload []byte) (Statement, error) {
	var wire statementJSON
	if !decodeCanonical(payload, &wire) {
		return Statement{}, fmt.Errorf("%w: malformed", ErrStatement)
	}
	key, err := ParsePublicKey(wire.EnvelopeKey)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	s := Statement{
		Organisation: wire.Organisation, EnvelopeKey: key, SigningKey: wire.SigningKey,
		NotBefore: wire.NotBefore, NotAfter: wire.NotAfter,
	}
	lifetime := s.NotAfter.Sub(s.NotBefore)
	switch {
	case s.Organisation == "" || len(s.Organisation) > 256:
		return Statement{}, fmt.Errorf("%w: organisation", ErrStatement)
	case len(s.SigningKey) != ed25519.PublicKeySize:
		return Statement{}, fmt.Errorf("%w: signing key", ErrStatement)
	case !isWholeUTC(s.NotBefore) || !isWholeUTC(s.NotAfter):
		return Statement{}, fmt.Errorf("%w: times must be UTC and whole seconds", ErrStatement)
	case lifetime <= 0 || lifetime > MaxStatementLifetime:
		return Statement{}, fmt.Errorf("%w: lifetime", ErrStatement)
	}
	return s, nil
}

func isWholeUTC(t time.Time) bool {
	return t.Location() == time.UTC && t.Nanosecond() == 0
}

// within checks that the organisation does not promise for longer than its certificate speaks for it.
func (s Statement) within(leaf *x509.Certificate) error {
	if s.NotBefore.Before(leaf.NotBefore) || s.NotAfter.After(leaf.NotAfter) {
		return fmt.Errorf("%w: reaches outside the certificate's validity", ErrStatement)
	}
	return nil
}

func (s Statement) validAt(now time.Time) bool {
	return !now.Before(s.NotBefore.Add(-clockSkew)) && now.Before(s.NotAfter)
}

// StatementCache remembers statements that were verified, by the SHA-256 of all their bytes, since the same one comes
// with every request to its organisation and verifying costs a hundred times as much as hashing. When it is full,
// the statement that was asked for longest ago goes. Safe for concurrent use.
type StatementCache struct {
	trust Trust
	known *digestCache[cachedStatement]
}

type cachedStatement struct {
	statement Statement
	by        signer
}

// NewStatementCache makes a cache of at most size statements (at least one). Changed roots need a new cache.
func NewStatementCache(trust Trust, size int) *StatementCache {
	return &StatementCache{trust: trust, known: newDigestCache[cachedStatement](size)}
}

// Verify is [VerifyStatement] with the cache's trust. A statement that is remembered must still be valid now, its chain
// unexpired, and its certificate still accepted by [Trust.OrganisationID].
func (c *StatementCache) Verify(message []byte, now time.Time) (Statement, error) {
	digest := sha256.Sum256(message)
	if s, ok := c.lookup(digest, now); ok {
		return s, nil
	}
	s, by, err := verifyStatement(message, c.trust, now)
	if err != nil {
		return Statement{}, err
	}
	c.known.remember(digest, cachedStatement{statement: s, by: by})
	return s.clone(), nil
}

func (c *StatementCache) lookup(digest [sha256.Size]byte, now time.Time) (Statement, bool) {
	found, ok := c.known.find(digest)
	if !ok {
		return Statement{}, false
	}
	// Outside the lock, since OrganisationID is not ours and may take its time.
	organisation, err := c.trust.organisation(found.by.leaf)
	if err != nil || organisation != found.statement.Organisation ||
		!found.statement.validAt(now) || now.After(found.by.chain.until) {
		c.known.forget(digest)
		return Statement{}, false
	}
	return found.statement.clone(), true
}

// clone keeps a caller from changing what the cache hands to the next.
func (s Statement) clone() Statement {
	s.SigningKey = bytes.Clone(s.SigningKey)
	return s
}
