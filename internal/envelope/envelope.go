// Package envelope seals what the broker carries but may not read: identities and answers, end to end from one
// organisation to another with HPKE (RFC 9180, base mode), and the statements by which an organisation vouches
// for its keys.
//
// # Contract and trust
//
// Only the holder of the recipient's private key opens an envelope, and only when it names the very binding
// that the sealer named ([IdentityBinding], [AnswerBinding], [DirectBinding]): under any other case, pseudonym,
// participant or sealer opening fails with [ErrOpen] and says no more.
//
// HPKE's base mode does not say who sealed. An answer is vouched for by the signed manifest that belongs to it. An
// identity is vouched for here: [SealIdentity] signs it with the sealer's organisation key (that of its TLS
// certificate), and [OpenIdentity] accepts it only from the organisation that the binding names. So the broker can
// neither read, nor swap, nor invent an identity. It can withhold one, and give an older one of the same binding.
//
// Whose HPKE key it is follows from a statement signed by that organisation ([SignStatement], [VerifyStatement]), so
// the broker cannot put its own key in between. It can keep giving an older statement that is still valid; so
// statements are short-lived, and a caller that saw a newer NotBefore should refuse an older one. Whether a
// certificate was revoked is not looked up here; [Trust.OrganisationID] is the place to refuse it.
//
// # Suites
//
// The suite is the KEM; HKDF-SHA256 and AES-256-GCM go with format version 1. Ids are those of IANA's HPKE registry.
//
//	0x647a  MLKEM768-X25519 (X-Wing; draft-ietf-hpke-pq), the default: case data must stay secret for decades
//	0x0020  DHKEM(X25519, HKDF-SHA256)
//
// # Formats
//
// All integers are big-endian. The first byte tells kind and version, so that no private key passes for a public one.
//
//	sealed       0x01, suite (2 bytes), encapsulated key, AEAD ciphertext; the first 3 bytes are the AEAD's
//	             additional data
//	public key   0x11, suite (2 bytes), SerializePublicKey of the KEM
//	private key  0x21, suite (2 bytes), SerializePrivateKey of the KEM
//	signed       0x31, payload (length in 4 bytes), signature (length in 2 bytes), number of certificates (1 byte,
//	             1 to 5), each certificate in DER (length in 4 bytes), leaf first
//
// Nothing may follow. The plaintext under the AEAD is padded: length in 4 bytes, content, zeros up to the bucket.
// With n = 4 + length, and p the least power of two not below n, the bucket is the next multiple of max(256, p/16).
// That adds at most 255 bytes up to 4 KiB and at most an eighth above, and leaves eight sizes per doubling to tell
// apart. An identity always fills 2 KiB, so that the length does not tell whether a BSN is in it.
//
// The info of HPKE is a domain ("sluis/identity/v1", "sluis/direct/v1", "sluis/answer/v1") and the members of the
// binding in the order of its fields, each of them with its length in 4 bytes before it.
//
// An organisation's signature is over: label, zero byte, context (length in 4 bytes), payload (length in 4 bytes).
// The label is "Sluis v1, identity sealed by an organisation" with the info as context, or "Sluis v1, statement of an
// organisation's keys" with an empty context: longer than the 32 bytes that the other side can choose at the front of
// what a TLS 1.2 handshake signs with the same key, and unlike the 64 spaces with which TLS 1.3 begins. The
// algorithm follows from the certificate's key, never from the message: Ed25519; ECDSA on P-256 with SHA-256 or on
// P-384 with SHA-384 (ASN.1); RSA of 2048 to 8192 bits, PSS with SHA-256 and a salt of 32 bytes.
//
// A statement's payload (at most 8 KiB) and the content of a sealed identity are JSON, with these members in this
// order; those of an identity are left out when empty. There is one spelling, without spaces: what encodes differently
// after decoding is refused.
//
//	{"organisation":OIN,"envelope_key":base64,"signing_key":base64,"not_before":RFC 3339,"not_after":RFC 3339}
//	{"bsn":...,"family_name":...,"given_names":...,"birth_date":YYYY-MM-DD,"address":...}
//
// # Measured
//
// Microseconds on one core of a shared machine, median of three (go test -bench .), 2 KiB of content:
//
//	                 seal  open  parse public  parse private  sealed bytes
//	MLKEM768-X25519   143   114            20             99          3443
//	X25519             98    52           0.2             44          2355
//
// With the hybrid, sealing an identity takes 260 (signature with P-256 included) and opening one 350 (chain of two
// included). Verifying a statement takes 270, from the [StatementCache] 1.7.
package envelope

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
)

const (
	// MaxPlaintext is the longest content, in bytes, that can be sealed.
	MaxPlaintext = 1 << 20
	// MaxSealed is the longest sealed message, in bytes: the content in its bucket, the largest encapsulated key and
	// the tag.
	MaxSealed = MaxPlaintext + MaxPlaintext/8 + 4096
)

var (
	// ErrOpen says that a sealed message does not open: damaged, made for another key, made for another binding, or
	// not by the sealer that the binding names. Which of these it was, a caller must not tell the other side.
	ErrOpen = errors.New("envelope: does not open")
	// ErrBinding says that the binding given is incomplete. It depends on the caller's own arguments only.
	ErrBinding = errors.New("envelope: incomplete binding")
	// ErrTooLarge says that the content to seal is longer than [MaxPlaintext].
	ErrTooLarge = errors.New("envelope: content too large")
	// ErrKey says that bytes are no key of this package, or that a key is the zero value.
	ErrKey = errors.New("envelope: malformed key")
	// ErrSuite says that a suite is unknown.
	ErrSuite = errors.New("envelope: unknown suite")
	// ErrRedacted is what marshalling a private key or an identity gives: they must not be written in the clear.
	ErrRedacted = errors.New("envelope: refusing to marshal a secret")
)

const redacted = "[redacted]"

const (
	kindSealed  = 0x01
	kindPublic  = 0x11
	kindPrivate = 0x21

	headerBytes = 3
	lengthBytes = 4
	minBucket   = 256
)

// Suite is the KEM of a key, by its id in IANA's HPKE registry. The zero value is no suite.
type Suite uint16

const (
	// SuiteHybrid is MLKEM768-X25519: secret as long as either ML-KEM-768 or X25519 holds. The default of Sluis.
	SuiteHybrid Suite = 0x647a
	// SuiteX25519 is DHKEM(X25519, HKDF-SHA256): faster and 1.1 KiB smaller, but not safe against quantum computers.
	SuiteX25519 Suite = 0x0020
)

// ParseSuite reads the name that [Suite.String] gives, for configuration. It fails with [ErrSuite].
func ParseSuite(name string) (Suite, error) {
	for _, s := range []Suite{SuiteHybrid, SuiteX25519} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, ErrSuite
}

// String gives "mlkem768-x25519" or "x25519".
func (s Suite) String() string {
	switch s {
	case SuiteHybrid:
		return "mlkem768-x25519"
	case SuiteX25519:
		return "x25519"
	}
	return fmt.Sprintf("unknown suite 0x%04x", uint16(s))
}

func (s Suite) kem() (hpke.KEM, error) {
	switch s {
	case SuiteHybrid:
		return hpke.MLKEM768X25519(), nil
	case SuiteX25519:
		return hpke.DHKEM(ecdh.X25519()), nil
	}
	return nil, ErrSuite
}

// encapsulatedBytes is Nenc of the suite.
func (s Suite) encapsulatedBytes() int {
	if s == SuiteHybrid {
		return 1120
	}
	return 32
}

func (s Suite) header(kind byte) []byte {
	return binary.BigEndian.AppendUint16([]byte{kind}, uint16(s))
}

// splitHeader takes kind and suite off the front.
func splitHeader(kind byte, b []byte) (Suite, []byte, error) {
	if len(b) < headerBytes || b[0] != kind {
		return 0, nil, ErrKey
	}
	return Suite(binary.BigEndian.Uint16(b[1:])), b[headerBytes:], nil
}

// PublicKey is the key that messages are sealed to. It is parsed once; keep it and use it again. Compare with
// [PublicKey.Equal]. The zero value is no key. Safe for concurrent use.
type PublicKey struct {
	_       [0]func() // not comparable with ==, which would compare pointers
	key     hpke.PublicKey
	suite   Suite
	encoded string
}

// ParsePublicKey reads what [PublicKey.Bytes] gave. It fails with [ErrKey] or [ErrSuite].
func ParsePublicKey(encoded []byte) (PublicKey, error) {
	suite, raw, err := splitHeader(kindPublic, encoded)
	if err != nil {
		return PublicKey{}, err
	}
	kem, err := suite.kem()
	if err != nil {
		return PublicKey{}, err
	}
	key, err := kem.NewPublicKey(raw)
	if err != nil {
		return PublicKey{}, ErrKey
	}
	return newPublicKey(suite, key), nil
}

func newPublicKey(suite Suite, key hpke.PublicKey) PublicKey {
	return PublicKey{key: key, suite: suite, encoded: string(append(suite.header(kindPublic), key.Bytes()...))}
}

// Bytes gives the encoded key, or nil for the zero value.
func (k PublicKey) Bytes() []byte {
	if k.key == nil {
		return nil
	}
	return []byte(k.encoded)
}

// Suite is the key's suite.
func (k PublicKey) Suite() Suite { return k.suite }

// Equal reports whether both are the same key.
func (k PublicKey) Equal(other PublicKey) bool { return k.encoded == other.encoded }

// String gives the suite and the first 8 bytes of the key's SHA-256 in hex, to name the key in a log.
func (k PublicKey) String() string {
	sum := sha256.Sum256([]byte(k.encoded))
	return k.suite.String() + ":" + hex.EncodeToString(sum[:8])
}

// PrivateKey opens what was sealed to its public key. It prints as [redacted]. Safe for concurrent use.
type PrivateKey struct {
	// key is a function because that is what fmt never looks into: it follows a pointer in somebody else's
	// unexported field when the verb does not fit.
	key    func() hpke.PrivateKey
	public PublicKey
}

func newPrivateKey(suite Suite, key hpke.PrivateKey) *PrivateKey {
	return &PrivateKey{
		key:    func() hpke.PrivateKey { return key },
		public: newPublicKey(suite, key.PublicKey()),
	}
}

// GenerateKey makes a private key from the system's random source. It fails with [ErrSuite].
func GenerateKey(suite Suite) (*PrivateKey, error) {
	kem, err := suite.kem()
	if err != nil {
		return nil, err
	}
	key, err := kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("envelope: generate key: %w", err)
	}
	return newPrivateKey(suite, key), nil
}

// ParsePrivateKey reads what [PrivateKey.Encode] gave. It fails with [ErrKey] or [ErrSuite].
func ParsePrivateKey(encoded []byte) (*PrivateKey, error) {
	suite, raw, err := splitHeader(kindPrivate, encoded)
	if err != nil {
		return nil, err
	}
	kem, err := suite.kem()
	if err != nil {
		return nil, err
	}
	key, err := kem.NewPrivateKey(raw)
	if err != nil {
		return nil, ErrKey
	}
	return newPrivateKey(suite, key), nil
}

// Encode gives the bytes to keep in a file that only the agent can read, or in the organisation's Vault. It is not
// called MarshalBinary, so that no encoder finds the secret by reflection.
func (k PrivateKey) Encode() ([]byte, error) {
	if k.key == nil {
		return nil, ErrKey
	}
	raw, err := k.key().Bytes()
	if err != nil {
		return nil, fmt.Errorf("envelope: encode key: %w", err)
	}
	return append(k.public.suite.header(kindPrivate), raw...), nil
}

// PublicKey gives the key that others seal to.
func (k PrivateKey) PublicKey() PublicKey { return k.public }

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

// Seal encrypts at most [MaxPlaintext] bytes to the key, bound to info, which is the Info of a binding. The length that
// shows is that of the content's bucket (see the package comment). It fails with [ErrKey], [ErrBinding] or
// [ErrTooLarge].
func Seal(to PublicKey, info, plaintext []byte) ([]byte, error) {
	return seal(to, info, plaintext, minBucket)
}

// seal pads to at least the least bucket, a multiple of minBucket.
func seal(to PublicKey, info, plaintext []byte, least int) ([]byte, error) {
	if to.key == nil {
		return nil, ErrKey
	}
	if len(info) == 0 {
		return nil, ErrBinding
	}
	if len(plaintext) > MaxPlaintext {
		return nil, ErrTooLarge
	}
	padded := make([]byte, max(least, bucket(len(plaintext))))
	defer clear(padded)
	binary.BigEndian.PutUint32(padded, uint32(len(plaintext)))
	copy(padded[lengthBytes:], plaintext)

	enc, sender, err := hpke.NewSender(to.key, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, fmt.Errorf("envelope: seal: %w", err)
	}
	header := to.suite.header(kindSealed)
	ciphertext, err := sender.Seal(header, padded)
	if err != nil {
		return nil, fmt.Errorf("envelope: seal: %w", err)
	}
	return bytes.Join([][]byte{header, enc, ciphertext}, nil), nil
}

// Open decrypts what [Seal] made for this key and the same info. Every failure is [ErrOpen], except that a zero key is
// [ErrKey] and an empty info [ErrBinding].
func Open(key *PrivateKey, info, sealed []byte) ([]byte, error) {
	if key == nil || key.key == nil {
		return nil, ErrKey
	}
	if len(info) == 0 {
		return nil, ErrBinding
	}
	if len(sealed) > MaxSealed {
		return nil, ErrOpen
	}
	suite, rest, err := splitHeader(kindSealed, sealed)
	if err != nil || suite != key.public.suite || len(rest) < suite.encapsulatedBytes() {
		return nil, ErrOpen
	}
	enc, ciphertext := rest[:suite.encapsulatedBytes()], rest[suite.encapsulatedBytes():]
	recipient, err := hpke.NewRecipient(enc, key.key(), hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return nil, ErrOpen
	}
	padded, err := recipient.Open(sealed[:headerBytes], ciphertext)
	if err != nil {
		return nil, ErrOpen
	}
	return unpad(padded)
}

// bucket is the padded size of n bytes of content; see the package comment.
func bucket(n int) int {
	n += lengthBytes
	step := max(minBucket, 1<<bits.Len(uint(n-1))/16)
	return (n + step - 1) / step * step
}

// unpad is strict although only the sealer can have written the padding: a hidden tail is a hidden channel.
func unpad(padded []byte) ([]byte, error) {
	if len(padded) < minBucket || len(padded)%minBucket != 0 {
		return nil, ErrOpen
	}
	n := uint64(binary.BigEndian.Uint32(padded))
	content := padded[lengthBytes:]
	if n > uint64(len(content)) || n > MaxPlaintext {
		return nil, ErrOpen
	}
	for _, b := range content[n:] {
		if b != 0 {
			return nil, ErrOpen
		}
	}
	return content[:n:n], nil
}
