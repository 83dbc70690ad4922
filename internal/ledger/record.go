package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

const (
	// LeafSize is the size of a leaf in bytes.
	LeafSize = 1 + 8 + sha256.Size
	// SaltSize is the size of a salt in bytes.
	SaltSize = 32

	leafVersion    = 1
	commitmentAt   = 1 + 8
	checksumSize   = 4
	minSealedBytes = 1 + 1 + checksumSize
)

// ParseLeaf returns the time and the commitment in a leaf.
func ParseLeaf(leaf []byte) (time.Time, [sha256.Size]byte, error) {
	if len(leaf) != LeafSize || leaf[0] != leafVersion {
		return time.Time{}, [sha256.Size]byte{}, fmt.Errorf("%w: not a leaf of version %d", ErrCorrupt, leafVersion)
	}
	nanos := int64(binary.BigEndian.Uint64(leaf[1:commitmentAt]))
	return time.Unix(0, nanos).UTC(), [sha256.Size]byte(leaf[commitmentAt:]), nil
}

// seal makes a record that lacks only its time, which is known when its place in the log is.
func seal(s Sealer, keyID string, payload []byte) (raw, salt []byte, err error) {
	if len(keyID) == 0 || len(keyID) > MaxKeyID || len(payload) > MaxPayload {
		return nil, nil, fmt.Errorf("%w: key id of %d bytes, payload of %d", ErrInvalid, len(keyID), len(payload))
	}
	plain := make([]byte, SaltSize+len(payload))
	_, _ = rand.Read(plain[:SaltSize]) // documented never to fail
	copy(plain[SaltSize:], payload)
	commitment := sha256.Sum256(plain)
	ciphertext, err := s.Seal(keyID, plain, commitment[:])
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: seal: %w", err)
	}
	raw = make([]byte, LeafSize, LeafSize+minSealedBytes+len(keyID)+len(ciphertext))
	raw[0] = leafVersion
	copy(raw[commitmentAt:], commitment[:])
	raw = append(raw, byte(len(keyID)))
	raw = append(raw, keyID...)
	raw = append(raw, ciphertext...)
	raw = binary.BigEndian.AppendUint32(raw, checksum(raw[LeafSize:]))
	if len(raw) > maxRecord {
		return nil, nil, fmt.Errorf("%w: record of %d bytes", ErrInvalid, len(raw))
	}
	return raw, slices.Clone(plain[:SaltSize]), nil
}

// stamp gives a sealed record its time.
func stamp(raw []byte, t time.Time) {
	binary.BigEndian.PutUint64(raw[1:commitmentAt], uint64(t.UnixNano()))
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// record is a parsed record; it shares the bytes it was parsed from.
type record struct {
	leaf       []byte
	time       time.Time
	commitment [sha256.Size]byte
	keyID      string
	ciphertext []byte
}

func parseRecord(raw []byte) (record, error) {
	if len(raw) < LeafSize+minSealedBytes {
		return record{}, fmt.Errorf("%w: record is too short", ErrCorrupt)
	}
	r := record{leaf: raw[:LeafSize:LeafSize]}
	var err error
	if r.time, r.commitment, err = ParseLeaf(r.leaf); err != nil {
		return record{}, err
	}
	sealed, sum := raw[LeafSize:len(raw)-checksumSize], raw[len(raw)-checksumSize:]
	if checksum(sealed) != binary.BigEndian.Uint32(sum) {
		return record{}, fmt.Errorf("%w: record does not match its checksum", ErrCorrupt)
	}
	n := int(sealed[0])
	if n == 0 || n > MaxKeyID || 1+n > len(sealed) {
		return record{}, fmt.Errorf("%w: record without a key id", ErrCorrupt)
	}
	r.keyID, r.ciphertext = string(sealed[1:1+n]), sealed[1+n:]
	return r, nil
}

// open returns what was sealed, checked against the commitment.
func (r record) open(s Sealer) (salt, payload []byte, err error) {
	plain, err := s.Open(r.keyID, r.ciphertext, r.commitment[:])
	if errors.Is(err, ErrErased) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ledger: open: %w", err)
	}
	if len(plain) < SaltSize || sha256.Sum256(plain) != r.commitment {
		return nil, nil, fmt.Errorf("%w: payload does not match its commitment", ErrCorrupt)
	}
	return plain[:SaltSize:SaltSize], plain[SaltSize:], nil
}
