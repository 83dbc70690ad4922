package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// ErrInvalidJWKS is returned for a key set that cannot be used.
var ErrInvalidJWKS = errors.New("invalid JWK set")

const (
	maxJWKSSize = 64 << 10
	maxJWKSKeys = 64
	maxKIDSize  = 128

	minRSABits, maxRSABits = 2048, 4096
)

// JWKS holds the public keys of an issuer by key id. The zero JWKS holds none.
type JWKS struct {
	keys map[string]verificationKey
}

// verificationKey is a public key and the only algorithm it may verify.
type verificationKey struct {
	algorithm string
	public    crypto.PublicKey
}

func (k verificationKey) equal(other verificationKey) bool {
	public, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.algorithm == other.algorithm && public.Equal(other.public)
}

// Len returns the number of keys.
func (s JWKS) Len() int { return len(s.keys) }

// jwk is one key of a set: RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2.
type jwk struct {
	KeyType   string          `json:"kty"`
	Use       string          `json:"use"`
	KeyOps    []string        `json:"key_ops"`
	Algorithm string          `json:"alg"`
	ID        string          `json:"kid"`
	Curve     string          `json:"crv"`
	X         string          `json:"x"`
	Y         string          `json:"y"`
	N         string          `json:"n"`
	E         string          `json:"e"`
	D         json.RawMessage `json:"d"`
	K         json.RawMessage `json:"k"`
}

// ParseJWKS reads a JWK Set of at most 64 KiB and 64 keys. Every key that can verify a token needs a kid of its own. Errors wrap
// ErrInvalidJWKS; a set without a usable key is one.
func ParseJWKS(data []byte) (JWKS, error) {
	if len(data) > maxJWKSSize {
		return JWKS{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalidJWKS, maxJWKSSize)
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return JWKS{}, fmt.Errorf("%w: not JSON of the right shape", ErrInvalidJWKS)
	}
	if len(set.Keys) > maxJWKSKeys {
		return JWKS{}, fmt.Errorf("%w: more than %d keys", ErrInvalidJWKS, maxJWKSKeys)
	}
	keys := make(map[string]verificationKey)
	for i, entry := range set.Keys {
		key, ok, err := entry.parse()
		if err != nil {
			return JWKS{}, fmt.Errorf("%w: key %d: %w", ErrInvalidJWKS, i, err)
		}
		if !ok {
			continue
		}
		if _, taken := keys[entry.ID]; taken {
			return JWKS{}, fmt.Errorf("%w: key %d: kid is used twice", ErrInvalidJWKS, i)
		}
		keys[entry.ID] = key
	}
	if len(keys) == 0 {
		return JWKS{}, fmt.Errorf("%w: no key that can verify a token", ErrInvalidJWKS)
	}
	return JWKS{keys: keys}, nil
}

// parse returns false for a key that is not for verifying tokens, or not in a way that is accepted here.
func (k jwk) parse() (verificationKey, bool, error) {
	if k.D != nil || k.K != nil {
		return verificationKey{}, false, errors.New("it is a private or symmetric key")
	}
	var algorithm string
	var parse func() (crypto.PublicKey, error)
	switch {
	case k.KeyType == "OKP" && k.Curve == "Ed25519":
		algorithm, parse = algorithmEdDSA, k.parseEd25519
	case k.KeyType == "EC" && k.Curve == "P-256":
		algorithm, parse = algorithmES256, k.parseP256
	case k.KeyType == "RSA":
		algorithm, parse = algorithmPS256, k.parseRSA
	default:
		return verificationKey{}, false, nil
	}
	if k.Use != "" && k.Use != "sig" || k.Algorithm != "" && k.Algorithm != algorithm || !k.canVerify() {
		return verificationKey{}, false, nil
	}
	if !isToken(k.ID, maxKIDSize) {
		return verificationKey{}, false, fmt.Errorf("kid must be 1 to %d printable characters", maxKIDSize)
	}
	public, err := parse()
	if err != nil {
		return verificationKey{}, false, err
	}
	return verificationKey{algorithm: algorithm, public: public}, true, nil
}

func (k jwk) canVerify() bool {
	return k.KeyOps == nil || slices.Contains(k.KeyOps, "verify")
}

func (k jwk) parseEd25519() (crypto.PublicKey, error) {
	x, err := decodeSegment(k.X)
	if err != nil || len(x) != ed25519.PublicKeySize {
		return nil, errors.New("x is not an Ed25519 key")
	}
	return ed25519.PublicKey(x), nil
}

func (k jwk) parseP256() (crypto.PublicKey, error) {
	const size = 32
	x, errX := decodeSegment(k.X)
	y, errY := decodeSegment(k.Y)
	if errX != nil || errY != nil || len(x) != size || len(y) != size {
		return nil, errors.New("x and y are not coordinates on P-256")
	}
	point := append(append([]byte{4}, x...), y...) // uncompressed, SEC 1 section 2.3.3
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, errors.New("x and y are not a point on P-256")
	}
	return public, nil
}

func (k jwk) parseRSA() (crypto.PublicKey, error) {
	n, errN := decodeSegment(k.N)
	e, errE := decodeSegment(k.E)
	if errN != nil || errE != nil {
		return nil, errors.New("n or e is not base64url")
	}
	modulus, exponent := new(big.Int).SetBytes(n), new(big.Int).SetBytes(e)
	if bits := modulus.BitLen(); bits < minRSABits || bits > maxRSABits || modulus.Bit(0) == 0 {
		return nil, fmt.Errorf("n must be odd and of %d to %d bits", minRSABits, maxRSABits)
	}
	if exponent.BitLen() > 31 || exponent.Bit(0) == 0 || exponent.Int64() < 3 {
		return nil, errors.New("e must be odd and between 3 and 2^31")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// isBase64URL reports whether s has characters of base64url only (RFC 4648 section 5). The decoder of encoding/base64 lets line ends pass,
// even a strict one.
func isBase64URL(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// decodeSegment decodes base64url without padding, of which every byte string has one form only (RFC 7515 section 2).
func decodeSegment(s string) ([]byte, error) {
	if !isBase64URL(s) {
		return nil, errors.New("not base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// isToken reports whether s is 1 to limit printable ASCII characters without spaces.
func isToken(s string, limit int) bool { //nolint:unparam // each use has a limit of its own; today they are equal
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
