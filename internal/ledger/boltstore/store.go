package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math/bits"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/ledger"
)

const (
	storeFormat   = "sluis ledger 1"
	recordsBucket = "records"
	tilesBucket   = "tiles"
	stateBucket   = "state"
	headKey       = "head"
	checkpointKey = "checkpoint"
)

// Store is a ledger.Store in one file. Only one process at a time can have it open.
type Store struct{ *file }

var _ ledger.Store = (*Store)(nil)

// Open opens the store at path and makes it, with mode 0600, if it is not there. It waits a second for another process to
// close it, then returns ErrInUse.
func Open(path string, cfg Config) (*Store, error) {
	f, err := open(path, storeFormat, []string{recordsBucket, tilesBucket, stateBucket}, cfg)
	if err != nil {
		return nil, err
	}
	return &Store{f}, nil
}

// Head implements ledger.Store.
func (s *Store) Head(ctx context.Context) (ledger.Head, error) {
	raw, err := s.get(ctx, metaBucket, []byte(headKey))
	if err != nil || raw == nil {
		return ledger.Head{}, err
	}
	return parseHead(raw)
}

func appendHead(b []byte, h ledger.Head) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Size)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Time.UnixNano()))
	b = append(b, h.Root[:]...)
	for _, e := range h.Edge {
		b = append(b, e[:]...)
	}
	return b
}

func parseHead(raw []byte) (ledger.Head, error) {
	const rootAt, edgeAt = 16, 16 + tlog.HashSize
	if len(raw) < edgeAt {
		return ledger.Head{}, fmt.Errorf("%w: head of %d bytes", ledger.ErrCorrupt, len(raw))
	}
	h := ledger.Head{
		Size: binary.BigEndian.Uint64(raw),
		Time: time.Unix(0, int64(binary.BigEndian.Uint64(raw[8:]))).UTC(),
		Root: tlog.Hash(raw[rootAt:edgeAt]),
	}
	if edge := raw[edgeAt:]; h.Size == 0 || len(edge) != bits.OnesCount64(h.Size)*tlog.HashSize {
		return ledger.Head{}, fmt.Errorf("%w: head of %d entries with an edge of %d bytes",
			ledger.ErrCorrupt, h.Size, len(edge))
	}
	for edge := range slices.Chunk(raw[edgeAt:], tlog.HashSize) {
		h.Edge = append(h.Edge, tlog.Hash(edge))
	}
	return h, nil
}

// Commit implements ledger.Store.
func (s *Store) Commit(ctx context.Context, b ledger.Batch) error {
	return s.update(ctx, func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		var size uint64
		if raw := meta.Get([]byte(headKey)); raw != nil {
			head, err := parseHead(raw)
			if err != nil {
				return err
			}
			size = head.Size
		}
		if size != b.From || b.Head.Size != b.From+uint64(len(b.Records)) {
			return fmt.Errorf("%w: commit of %d to %d on a head of %d", ledger.ErrConflict, b.From, b.Head.Size, size)
		}
		records := tx.Bucket([]byte(recordsBucket))
		records.FillPercent = 1 // keys only ever come after the others; not stored, so set each time
		for i, r := range b.Records {
			if err := records.Put(recordKey(b.From+uint64(i)), r); err != nil {
				return err
			}
		}
		tiles := tx.Bucket([]byte(tilesBucket))
		tiles.FillPercent = 1
		for _, id := range slices.SortedFunc(maps.Keys(b.Tiles), compareTiles) {
			if err := tiles.Put(tileKey(id), b.Tiles[id]); err != nil {
				return err
			}
		}
		if err := putState(tx.Bucket([]byte(stateBucket)), b.State); err != nil {
			return err
		}
		if b.Head.Size == 0 {
			return nil // still the zero head
		}
		return meta.Put([]byte(headKey), appendHead(nil, b.Head))
	})
}

func putState(state *bolt.Bucket, changes []ledger.StateChange) error {
	for _, c := range changes {
		var err error
		if c.Version == 0 {
			err = state.Delete([]byte(c.Key))
		} else {
			err = state.Put([]byte(c.Key), append(binary.BigEndian.AppendUint64(nil, c.Version), c.Value...))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func recordKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func tileKey(id ledger.TileID) []byte {
	return binary.BigEndian.AppendUint64([]byte{id.Level}, id.Index)
}

func compareTiles(a, b ledger.TileID) int {
	return cmp.Or(cmp.Compare(a.Level, b.Level), cmp.Compare(a.Index, b.Index))
}

// Record implements ledger.Store.
func (s *Store) Record(ctx context.Context, index uint64) ([]byte, error) {
	raw, err := s.get(ctx, recordsBucket, recordKey(index))
	if err == nil && raw == nil {
		err = fmt.Errorf("%w: record %d", ledger.ErrNotFound, index)
	}
	return raw, err
}

// Records implements ledger.Store.
func (s *Store) Records(ctx context.Context, from, to uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		next := from
		for p, err := range s.each(ctx, recordsBucket, recordKey(from)) {
			if next >= to {
				return
			}
			if err == nil && !bytes.Equal(p.key, recordKey(next)) {
				err = fmt.Errorf("%w: record %d is missing", ledger.ErrCorrupt, next)
			}
			if !yield(p.value, err) || err != nil {
				return
			}
			next++
		}
	}
}

// Tile implements ledger.Store.
func (s *Store) Tile(ctx context.Context, id ledger.TileID) ([]byte, error) {
	raw, err := s.get(ctx, tilesBucket, tileKey(id))
	if err == nil && raw == nil {
		err = fmt.Errorf("%w: tile %d/%d", ledger.ErrNotFound, id.Level, id.Index)
	}
	return raw, err
}

// Get implements ledger.Store.
func (s *Store) Get(ctx context.Context, key string) (ledger.Item, error) {
	raw, err := s.get(ctx, stateBucket, []byte(key))
	if err != nil || raw == nil {
		return ledger.Item{}, err
	}
	return parseItem([]byte(key), raw)
}

func parseItem(key, raw []byte) (ledger.Item, error) {
	const versionSize = 8
	item := ledger.Item{Key: string(key)}
	if len(raw) >= versionSize {
		item.Version, item.Value = binary.BigEndian.Uint64(raw), raw[versionSize:]
	}
	if item.Version == 0 {
		return ledger.Item{}, fmt.Errorf("%w: item of the state without a version", ledger.ErrCorrupt)
	}
	return item, nil
}

// Scan implements ledger.Store.
func (s *Store) Scan(ctx context.Context, prefix, after string) iter.Seq2[ledger.Item, error] {
	return func(yield func(ledger.Item, error) bool) {
		from := prefix
		if after != "" {
			from = max(prefix, after+"\x00") // the smallest key that comes after it
		}
		for p, err := range s.each(ctx, stateBucket, []byte(from)) {
			var item ledger.Item
			if err == nil {
				if !strings.HasPrefix(string(p.key), prefix) {
					return
				}
				item, err = parseItem(p.key, p.value)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// Checkpoint implements ledger.Store.
func (s *Store) Checkpoint(ctx context.Context) ([]byte, error) {
	return s.get(ctx, metaBucket, []byte(checkpointKey))
}

// PutCheckpoint implements ledger.Store.
func (s *Store) PutCheckpoint(ctx context.Context, checkpoint []byte) error {
	return s.update(ctx, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(metaBucket)).Put([]byte(checkpointKey), checkpoint)
	})
}
