package keys

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const pemPrivateKey = "PRIVATE KEY"

// CreateNoteKey makes an Ed25519 key for signed notes (c2sp.org/signed-note) in a new file and returns its verifier key, which is public.
// The name is the log's origin: not empty, without spaces and plus signs.
func CreateNoteKey(path, name string) (string, error) {
	signerKey, verifierKey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", fmt.Errorf("create note key: %w", err)
	}
	// GenerateKey takes any name, NewSigner does not: better no key than one that cannot be loaded.
	if _, err := note.NewSigner(signerKey); err != nil {
		return "", fmt.Errorf("create note key: the name must not be empty and hold no space and no plus sign")
	}
	if err := createFile(path, []byte(signerKey+"\n")); err != nil {
		return "", err
	}
	return verifierKey, nil
}

// LoadNoteSigner reads a key made by CreateNoteKey and returns its signer and its verifier key.
func LoadNoteSigner(path string) (note.Signer, string, error) {
	data, err := loadFile(path)
	if err != nil {
		return nil, "", err
	}
	signer, verifierKey, err := parseNoteKey(data)
	if err != nil {
		return nil, "", fmt.Errorf("load %s: %w", path, err)
	}
	return signer, verifierKey, nil
}

// parseNoteKey derives the verifier key from the seed in the signer key; note.NewSigner has checked that the two belong together.
func parseNoteKey(data []byte) (note.Signer, string, error) {
	malformed := fmt.Errorf("%w: want a signer key of a signed note, which starts with PRIVATE+KEY+", ErrMalformed)
	line, ok := bytes.CutSuffix(data, []byte("\n"))
	if !ok {
		return nil, "", malformed
	}
	signer, err := note.NewSigner(string(line))
	if err != nil {
		return nil, "", malformed
	}
	parts := strings.SplitN(string(line), "+", 5) // PRIVATE, KEY, name, hash, algorithm and seed
	if len(parts) != 5 {
		return nil, "", malformed
	}
	key, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return nil, "", malformed
	}
	private := ed25519.NewKeyFromSeed(key[1:])
	verifierKey, err := note.NewEd25519VerifierKey(signer.Name(), ed25519.PublicKey(private[ed25519.SeedSize:]))
	if err != nil {
		return nil, "", malformed
	}
	return signer, verifierKey, nil
}

// SigningKey is an Ed25519 private key with its key id. It implements crypto.Signer, and its formatted form shows the id only.
type SigningKey struct {
	id      string
	private ed25519.PrivateKey
}

// KeyID names an Ed25519 public key: the first 8 bytes of its SHA-256, in hexadecimal.
func KeyID(public ed25519.PublicKey) string {
	digest := sha256.Sum256(public)
	return hex.EncodeToString(digest[:8])
}

// CreateSigningKey makes an Ed25519 key in a new file.
func CreateSigningKey(path string) (SigningKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return SigningKey{}, fmt.Errorf("create signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return SigningKey{}, fmt.Errorf("create signing key: %w", err)
	}
	defer clear(der)
	if err := CreateSecret(path, pemPrivateKey, der); err != nil {
		return SigningKey{}, err
	}
	return newSigningKey(private), nil
}

// LoadSigningKey reads a key made by CreateSigningKey, or any other Ed25519 key in PKCS #8.
func LoadSigningKey(path string) (SigningKey, error) {
	der, err := LoadSecret(path, pemPrivateKey)
	if err != nil {
		return SigningKey{}, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return SigningKey{}, fmt.Errorf("load %s: %w: want an Ed25519 key in PKCS #8", path, ErrMalformed)
	}
	return newSigningKey(private), nil
}

func newSigningKey(private ed25519.PrivateKey) SigningKey {
	return SigningKey{id: KeyID(ed25519.PublicKey(private[ed25519.SeedSize:])), private: private}
}

// ID returns the key id: see KeyID.
func (k SigningKey) ID() string { return k.id }

// PublicKey returns the public half.
func (k SigningKey) PublicKey() ed25519.PublicKey {
	return ed25519.PublicKey(bytes.Clone(k.private[ed25519.SeedSize:]))
}

// PrivateKey returns the key itself, for code that takes nothing less.
func (k SigningKey) PrivateKey() ed25519.PrivateKey { return k.private }

// Public implements crypto.Signer; the result is an ed25519.PublicKey.
func (k SigningKey) Public() crypto.PublicKey { return k.PublicKey() }

// Sign implements crypto.Signer as ed25519.PrivateKey does: the message itself, not a digest, with crypto.Hash(0).
func (k SigningKey) Sign(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.private.Sign(random, message, opts)
}

// String names the key without showing it; GoString does the same for %#v.
func (k SigningKey) String() string { return "signing key " + k.id }

// GoString implements fmt.GoStringer.
func (k SigningKey) GoString() string { return k.String() }
