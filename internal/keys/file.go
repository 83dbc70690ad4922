package keys

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrInsecureFile is returned for a key file that others than its owner can reach.
var ErrInsecureFile = errors.New("key file is accessible to its group or to others")

// ErrMalformed is returned for a file that does not hold the expected key.
var ErrMalformed = errors.New("malformed key file")

const (
	fileMode    = 0o600
	maxFileSize = 64 << 10

	// MaxSecretSize is the largest secret, in bytes, that CreateSecret accepts.
	MaxSecretSize = 32 << 10
)

// CreateSecret writes secret (1 to MaxSecretSize bytes) to a new file as PEM of the given type. It never overwrites: if path exists, the
// error wraps fs.ErrExist.
func CreateSecret(path, pemType string, secret []byte) error {
	if len(secret) == 0 || len(secret) > MaxSecretSize {
		return fmt.Errorf("create secret %s: size %d is not between 1 and %d bytes", path, len(secret), MaxSecretSize)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: secret})
	defer clear(block)
	return createFile(path, block)
}

// LoadSecret reads a file made by CreateSecret. The caller owns the bytes and should clear them after use. Errors wrap ErrInsecureFile,
// ErrMalformed, or say why the file could not be read.
func LoadSecret(path, pemType string) ([]byte, error) {
	data, err := loadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	secret, err := parsePEM(data, pemType)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return secret, nil
}

// parsePEM returns the bytes of the only block in data. pem.Decode skips what it does not understand; a key file has nothing to skip.
func parsePEM(data []byte, pemType string) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		return nil, fmt.Errorf("%w: want PEM of type %q", ErrMalformed, pemType)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: want PEM of type %q", ErrMalformed, pemType)
	case block.Type != pemType:
		return nil, fmt.Errorf("%w: PEM is not of type %q", ErrMalformed, pemType)
	case len(block.Headers) != 0:
		return nil, fmt.Errorf("%w: PEM has headers", ErrMalformed)
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, fmt.Errorf("%w: data after the PEM block", ErrMalformed)
	case len(block.Bytes) == 0:
		return nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	return block.Bytes, nil
}

// createFile makes a new file that only its owner can reach, durable when it returns. After an error there is no file, unless there was one.
func createFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(path)))
	if err != nil {
		return fmt.Errorf("create key file: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// syncDir makes the directory entries in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadFile reads a small file that only its owner can reach. A symbolic link is followed, since that is how container platforms mount
// secrets; what counts is the file that was opened.
func loadFile(path string) (data []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load key file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := checkFile(f); err != nil {
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("load key file: %w", err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("load %s: %w: larger than %d bytes", path, ErrMalformed, maxFileSize)
	}
	return data, nil
}

// checkFile refuses an open file that is not regular or that others than its owner can reach.
func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("load key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("load %s: %w: not a regular file", f.Name(), ErrMalformed)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("load %s: %w: mode is %#o, want %#o (chmod 600)", f.Name(), ErrInsecureFile, perm, fileMode)
	}
	return nil
}
