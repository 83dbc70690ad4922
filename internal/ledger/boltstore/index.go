package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"

	"sluis/internal/ledger"
)

const (
	indexFormat    = "sluis index 1"
	postingsBucket = "postings"
	markKey        = "mark"
	entrySize      = 8
)

// Index is a ledger.Index in one file.
type Index struct{ *file }

var _ ledger.Index = (*Index)(nil)

// OpenIndex opens the index at path, or makes it, as Open does.
func OpenIndex(path string, cfg Config) (*Index, error) {
	f, err := open(path, indexFormat, []string{postingsBucket}, cfg)
	if err != nil {
		return nil, err
	}
	return &Index{f}, nil
}

// Mark implements ledger.Index. A mark that cannot be read counts as none, so that the index is built again.
func (x *Index) Mark(ctx context.Context) (ledger.Mark, error) {
	raw, err := x.get(ctx, metaBucket, []byte(markKey))
	if err != nil || len(raw) < entrySize {
		return ledger.Mark{}, err
	}
	return ledger.Mark{Size: binary.BigEndian.Uint64(raw), Leaf: raw[entrySize:]}, nil
}

// Add implements ledger.Index.
func (x *Index) Add(ctx context.Context, mark ledger.Mark, postings []ledger.Posting) error {
	return x.update(ctx, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(postingsBucket))
		for _, p := range postings {
			if err := b.Put(postingKey(p.Term, p.Entry), nil); err != nil {
				return err
			}
		}
		raw := append(binary.BigEndian.AppendUint64(nil, mark.Size), mark.Leaf...)
		return tx.Bucket([]byte(metaBucket)).Put([]byte(markKey), raw)
	})
}

// Remove implements ledger.Index.
func (x *Index) Remove(ctx context.Context, postings []ledger.Posting) error {
	return x.update(ctx, func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(postingsBucket))
		for _, p := range postings {
			if err := b.Delete(postingKey(p.Term, p.Entry)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Search implements ledger.Index. It leaps from term to term: an entry that one of them lacks takes the search down to the
// next that it has.
func (x *Index) Search(ctx context.Context, terms []string, from, before uint64, limit int) ([]uint64, error) {
	var found []uint64
	err := x.view(ctx, func(tx *bolt.Tx) error {
		cursors := make([]*bolt.Cursor, len(terms))
		for i := range terms {
			cursors[i] = tx.Bucket([]byte(postingsBucket)).Cursor()
		}
		agree := 0 // how many terms in a row have the entry before-1
		for i := 0; len(found) < limit && len(terms) > 0; i = (i + 1) % len(terms) {
			if err := ctx.Err(); err != nil {
				return err
			}
			entry, ok := below(cursors[i], terms[i], before)
			if !ok || entry < from {
				return nil
			}
			if entry+1 != before {
				agree, before = 1, entry+1
			} else {
				agree++
			}
			if agree == len(terms) {
				found = append(found, entry)
				agree, before = 0, entry
			}
		}
		return nil
	})
	return found, err
}

// below returns the last entry before another that has a term.
func below(c *bolt.Cursor, term string, before uint64) (uint64, bool) {
	key := postingKey(term, before)
	k, _ := c.Seek(key)
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	prefix := key[:len(key)-entrySize]
	if len(k) != len(key) || !bytes.HasPrefix(k, prefix) {
		return 0, false
	}
	return binary.BigEndian.Uint64(k[len(prefix):]), true
}

// Count implements ledger.Index.
func (x *Index) Count(ctx context.Context) (uint64, error) {
	var n uint64
	err := x.view(ctx, func(tx *bolt.Tx) error {
		n = uint64(tx.Bucket([]byte(postingsBucket)).Stats().KeyN)
		return nil
	})
	return n, err
}

// Reset implements ledger.Index.
func (x *Index) Reset(ctx context.Context) error {
	return x.update(ctx, func(tx *bolt.Tx) error {
		if err := tx.DeleteBucket([]byte(postingsBucket)); err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte(postingsBucket)); err != nil {
			return err
		}
		return tx.Bucket([]byte(metaBucket)).Delete([]byte(markKey))
	})
}

func postingKey(term string, entry uint64) []byte {
	key := make([]byte, 0, len(term)+1+entrySize)
	key = append(append(key, term...), 0)
	return binary.BigEndian.AppendUint64(key, entry)
}
