package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

const (
	pemKEK  = "SLUIS KEY ENCRYPTION KEY"
	keySize = 32 // AES-256

	wrapVersion = 1
	wrapContext = "sluis/keyring"
)

// errUnwrap says that a wrapped key does not open: another KEK, another id, or damage.
var errUnwrap = errors.New("wrapped key does not open")

// KEK is a key-encryption key: it wraps the data keys of a Keyring. The zero KEK is not usable.
type KEK struct {
	aead cipher.AEAD
}

// CreateKEK makes a random key-encryption key in a new file.
func CreateKEK(path string) (KEK, error) {
	key := make([]byte, keySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return KEK{}, fmt.Errorf("create key-encryption key: %w", err)
	}
	if err := CreateSecret(path, pemKEK, key); err != nil {
		return KEK{}, err
	}
	return newKEK(key)
}

// LoadKEK reads a key-encryption key made by CreateKEK.
func LoadKEK(path string) (KEK, error) {
	key, err := LoadSecret(path, pemKEK)
	if err != nil {
		return KEK{}, err
	}
	defer clear(key)
	if len(key) != keySize {
		return KEK{}, fmt.Errorf("load %s: %w: want %d bytes", path, ErrMalformed, keySize)
	}
	return newKEK(key)
}

func newKEK(key []byte) (KEK, error) {
	aead, err := newAEAD(key)
	return KEK{aead: aead}, err
}

// String says what it is, not which.
func (KEK) String() string { return "key-encryption key" }

// GoString implements fmt.GoStringer.
func (k KEK) GoString() string { return k.String() }

// newAEAD returns AES-256-GCM that makes its own random nonce and puts it before the ciphertext. It keeps no reference to key.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func wrapAAD(id string) []byte {
	return append(append([]byte(wrapContext), wrapVersion), id...)
}

func (k KEK) wrap(id string, key []byte) []byte {
	return k.aead.Seal([]byte{wrapVersion}, nil, key, wrapAAD(id)) //nolint:gosec // the AEAD makes the nonce
}

// unwrap returns the data key; the caller clears it.
func (k KEK) unwrap(id string, wrapped []byte) ([]byte, error) {
	if len(wrapped) == 0 || wrapped[0] != wrapVersion {
		return nil, errUnwrap
	}
	key, err := k.aead.Open(nil, nil, wrapped[1:], wrapAAD(id))
	if err != nil || len(key) != keySize {
		return nil, errUnwrap
	}
	return key, nil
}
