package pseudonym

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/cloudflare/circl/oprf"
	"github.com/cloudflare/circl/zk/dleq"
)

// MaxBatch is the most elements that one evaluation may hold.
const MaxBatch = 100

var (
	// ErrKey says that bytes are not a private or public key of this package, or that a key version is 0.
	ErrKey = errors.New("pseudonym: malformed key")
	// ErrBatch says that a batch is empty or longer than [MaxBatch].
	ErrBatch = errors.New("pseudonym: batch must hold 1 to 100 elements")
	// ErrElement says that bytes are not a canonical group element, or are the identity.
	ErrElement = errors.New("pseudonym: malformed element")
	// ErrProof says that the server did not prove that it used the pinned key for exactly these elements. It is an
	// alarm, not a passing fault: the server uses another key, or somebody changed its answer.
	ErrProof = errors.New("pseudonym: evaluation does not prove the pinned key")
)

const (
	elementBytes = 32
	scalarBytes  = 32
	proofBytes   = 2 * scalarBytes

	privateFormat = 0x01
	suiteID       = 0x01
)

func suite() oprf.Suite { return oprf.SuiteRistretto255 }

// PrivateKey is the secret of the pseudonyms. It prints as [redacted]; [PrivateKey.Encode] gives the
// bytes. The zero value is no key. Safe for concurrent use.
type PrivateKey struct{ key *oprf.PrivateKey }

// GenerateKey makes a private key from the system's random source.
func GenerateKey() (PrivateKey, error) {
	key, err := oprf.GenerateKey(suite(), rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("pseudonym: generate key: %w", err)
	}
	return newPrivateKey(key), nil
}

// ParsePrivateKey reads the 34 bytes that [PrivateKey.Encode] gave. It fails with [ErrKey].
func ParsePrivateKey(encoded []byte) (PrivateKey, error) {
	if len(encoded) != 2+scalarBytes || encoded[0] != privateFormat || encoded[1] != suiteID {
		return PrivateKey{}, ErrKey
	}
	key := new(oprf.PrivateKey)
	// Refuses scalars that are zero or not reduced.
	if err := key.UnmarshalBinary(suite(), encoded[2:]); err != nil {
		return PrivateKey{}, ErrKey
	}
	return newPrivateKey(key), nil
}

// newPrivateKey computes the public key now: the library caches it on first use without a lock, which would be a
// data race between concurrent evaluations.
func newPrivateKey(key *oprf.PrivateKey) PrivateKey {
	key.Public()
	return PrivateKey{key}
}

// Encode gives the 34 bytes to keep in a file that only the broker can read, or in Vault. It fails with [ErrKey] on
// the zero value. It is not called MarshalBinary, so that no encoder finds the secret by reflection.
func (k PrivateKey) Encode() ([]byte, error) {
	if k.key == nil {
		return nil, ErrKey
	}
	scalar, err := k.key.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("pseudonym: encode key: %w", err)
	}
	return append([]byte{privateFormat, suiteID}, scalar...), nil
}

// PublicKey gives the 32 bytes that clients pin and that the ledger records. It fails with [ErrKey] on the zero
// value.
func (k PrivateKey) PublicKey() ([]byte, error) {
	if k.key == nil {
		return nil, ErrKey
	}
	public, err := k.key.Public().MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("pseudonym: encode public key: %w", err)
	}
	return public, nil
}

// String gives [redacted].
func (PrivateKey) String() string { return redacted }

// GoString gives [redacted].
func (PrivateKey) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue gives [redacted].
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText fails with [ErrRedacted].
func (PrivateKey) MarshalText() ([]byte, error) { return nil, ErrRedacted }

// Evaluation is the server's answer to a batch of blinded elements.
type Evaluation struct {
	Elements [][]byte // one of 32 bytes for each blinded element, in the same order
	Proof    []byte   // 64 bytes: one DLEQ proof over the whole batch
}

// Server evaluates blinded elements under one private key. Safe for concurrent use.
type Server struct {
	voprf   oprf.VerifiableServer
	public  []byte
	version uint32
}

// NewServer makes a server for the key with that version, counted from 1. It fails with [ErrKey].
func NewServer(key PrivateKey, version uint32) (*Server, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, ErrKey
	}
	return &Server{voprf: oprf.NewVerifiableServer(suite(), key.key), public: public, version: version}, nil
}

// Version is the version of the server's key.
func (s *Server) Version() uint32 { return s.version }

// PublicKey gives the 32 bytes that clients pin.
func (s *Server) PublicKey() []byte { return bytes.Clone(s.public) }

// Evaluate is BlindEvaluate of RFC 9497 §3.3.2 on 1 to [MaxBatch] blinded elements of 32 bytes. It fails with
// [ErrBatch] or [ErrElement]. It learns nothing about what is blinded, so the caller must budget whom it answers.
func (s *Server) Evaluate(blinded [][]byte) (Evaluation, error) {
	if len(blinded) == 0 || len(blinded) > MaxBatch {
		return Evaluation{}, ErrBatch
	}
	elements, err := parseElements(blinded)
	if err != nil {
		return Evaluation{}, err
	}
	evaluated, err := s.voprf.Evaluate(&oprf.EvaluationRequest{Elements: elements})
	if err != nil {
		return Evaluation{}, fmt.Errorf("pseudonym: evaluate: %w", err)
	}
	out, err := encodeElements(evaluated.Elements)
	if err != nil {
		return Evaluation{}, err
	}
	proof, err := evaluated.Proof.MarshalBinary()
	if err != nil {
		return Evaluation{}, fmt.Errorf("pseudonym: encode proof: %w", err)
	}
	return Evaluation{Elements: out, Proof: proof}, nil
}

// Client blinds BSNs for the server whose public key it pins. Safe for concurrent use.
type Client struct {
	voprf   oprf.VerifiableClient
	version uint32
}

// NewClient makes a client that accepts only evaluations under that public key, which must come from a place
// that the server cannot change for one client alone (the ledger). It fails with [ErrKey].
func NewClient(publicKey []byte, version uint32) (*Client, error) {
	if version == 0 {
		return nil, ErrKey
	}
	if _, err := parseElements([][]byte{publicKey}); err != nil {
		return nil, ErrKey
	}
	key := new(oprf.PublicKey)
	if err := key.UnmarshalBinary(suite(), publicKey); err != nil {
		return nil, ErrKey
	}
	return &Client{voprf: oprf.NewVerifiableClient(suite(), key), version: version}, nil
}

// Version is the version of the pinned key.
func (c *Client) Version() uint32 { return c.version }

// Blind is Blind of RFC 9497 §3.3.2 for 1 to [MaxBatch] BSNs, with fresh random blinds on each call. It gives what to
// send and what to keep. It fails with [ErrBatch], or with [ErrBSN] on a zero BSN.
func (c *Client) Blind(bsns ...BSN) (*Pending, [][]byte, error) {
	if len(bsns) == 0 || len(bsns) > MaxBatch {
		return nil, nil, ErrBatch
	}
	inputs := make([][]byte, len(bsns))
	for i, bsn := range bsns {
		if bsn.IsZero() {
			return nil, nil, ErrBSN
		}
		inputs[i] = []byte(bsn.Reveal())
	}
	data, request, err := c.voprf.Blind(inputs)
	if err != nil {
		return nil, nil, fmt.Errorf("pseudonym: blind: %w", err)
	}
	blinded, err := encodeElements(request.Elements)
	if err != nil {
		return nil, nil, err
	}
	return c.newPending(data, len(bsns)), blinded, nil
}

func (c *Client) newPending(data *oprf.FinalizeData, batch int) *Pending {
	return &Pending{
		version:  c.version,
		batch:    batch,
		finalize: func(e *oprf.Evaluation) ([][]byte, error) { return c.voprf.Finalize(data, e) },
	}
}

// Pending is what the client keeps of one batch: the inputs and the blinds that hide them. It never leaves the
// agent, and prints as [redacted].
type Pending struct {
	version uint32
	batch   int
	// finalize closes over BSNs and blinds. A function, since that is what fmt never looks into: a pointer it follows
	// when the verb does not fit.
	finalize func(*oprf.Evaluation) ([][]byte, error)
}

// Finalize is Finalize of RFC 9497 §3.3.2: it verifies the proof and gives the pseudonyms in the order of the BSNs. It
// fails with [ErrBatch], [ErrElement] or [ErrProof], and then gives none at all.
func (p Pending) Finalize(e Evaluation) ([]ID, error) {
	outputs, err := p.outputs(e)
	if err != nil {
		return nil, err
	}
	ids := make([]ID, len(outputs))
	for i, output := range outputs {
		ids[i] = newID(p.version, output)
	}
	return ids, nil
}

// outputs gives the whole OPRF outputs of 64 bytes.
func (p Pending) outputs(e Evaluation) ([][]byte, error) {
	if len(e.Elements) != p.batch {
		return nil, ErrBatch
	}
	elements, err := parseElements(e.Elements)
	if err != nil {
		return nil, err
	}
	if len(e.Proof) != proofBytes {
		return nil, ErrProof
	}
	proof := new(dleq.Proof)
	// Refuses scalars that are not reduced.
	if err := proof.UnmarshalBinary(suite().Group(), e.Proof); err != nil {
		return nil, ErrProof
	}
	outputs, err := p.finalize(&oprf.Evaluation{Elements: elements, Proof: proof})
	if errors.Is(err, oprf.ErrInvalidProof) {
		return nil, ErrProof
	}
	if err != nil {
		return nil, fmt.Errorf("pseudonym: finalize: %w", err)
	}
	return outputs, nil
}

// String gives [redacted].
func (Pending) String() string { return redacted }

// GoString gives [redacted].
func (Pending) GoString() string { return redacted }

// Format writes [redacted] for every verb.
func (Pending) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue gives [redacted].
func (Pending) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText fails with [ErrRedacted].
func (Pending) MarshalText() ([]byte, error) { return nil, ErrRedacted }

// parseElements is DeserializeElement of RFC 9497 §2.1, strictly: exact length, one spelling, never the identity.
func parseElements(encoded [][]byte) ([]oprf.Blinded, error) {
	elements := make([]oprf.Blinded, len(encoded))
	for i, b := range encoded {
		if len(b) != elementBytes {
			return nil, ErrElement
		}
		element := suite().Group().NewElement()
		if err := element.UnmarshalBinary(b); err != nil || element.IsIdentity() {
			return nil, ErrElement
		}
		// The library's decoder is asked for a canonical encoding; we do not rely on it.
		again, err := element.MarshalBinaryCompress()
		if err != nil || !bytes.Equal(again, b) {
			return nil, ErrElement
		}
		elements[i] = element
	}
	return elements, nil
}

func encodeElements(elements []oprf.Evaluated) ([][]byte, error) {
	out := make([][]byte, len(elements))
	for i, element := range elements {
		b, err := element.MarshalBinaryCompress()
		if err != nil {
			return nil, fmt.Errorf("pseudonym: encode element: %w", err)
		}
		out[i] = b
	}
	return out, nil
}
