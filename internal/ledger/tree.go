package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	tileBytes  = tileWidth * tlog.HashSize
	maxLevel   = 63 / tileHeight
)

// tree is the right edge of the Merkle tree: all that is needed to let it grow.
type tree struct {
	size  uint64
	edge  []tlog.Hash // roots of its perfect subtrees, largest first
	tails [][]byte    // of each level, the hashes in its unfinished tile
}

// clone returns a tree that can grow while t stays what it is.
func (t *tree) clone() *tree {
	c := &tree{size: t.size, edge: slices.Clone(t.edge), tails: make([][]byte, len(t.tails))}
	for i, tail := range t.tails {
		c.tails[i] = slices.Clip(tail) // so that put copies before it appends
	}
	return c
}

// add appends a leaf hash and leaves the tiles that it changed in tiles.
func (t *tree) add(h tlog.Hash, tiles map[TileID][]byte) {
	t.put(0, h, tiles)
	for height := 1; t.size>>(height-1)&1 == 1; height++ {
		last := len(t.edge) - 1
		h = tlog.NodeHash(t.edge[last], h)
		t.edge = t.edge[:last]
		if height%tileHeight == 0 {
			t.put(height/tileHeight, h, tiles)
		}
	}
	t.edge = append(t.edge, h)
	t.size++
}

func (t *tree) put(level int, h tlog.Hash, tiles map[TileID][]byte) {
	if level == len(t.tails) {
		t.tails = append(t.tails, nil)
	}
	tail := t.tails[level]
	if len(tail) == cap(tail) {
		tail = append(make([]byte, 0, tileBytes), tail...)
	}
	tail = append(tail, h[:]...)
	tiles[TileID{Level: uint8(level), Index: t.size >> (tileHeight * (level + 1))}] = tail
	if len(tail) == tileBytes {
		tail = nil
	}
	t.tails[level] = tail
}

func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	root := t.edge[len(t.edge)-1]
	for _, h := range slices.Backward(t.edge[:len(t.edge)-1]) {
		root = tlog.NodeHash(h, root)
	}
	return root
}

func (t *tree) head(last time.Time) Head {
	return Head{Size: t.size, Time: last, Root: t.root(), Edge: slices.Clone(t.edge)}
}

// loadTree reads the right edge out of the tiles and checks that it is what the head says.
func loadTree(ctx context.Context, s Store, head Head) (*tree, error) {
	t := &tree{size: head.Size}
	if head.Size == 0 {
		return t, nil
	}
	if head.Size > 1<<62 {
		return nil, fmt.Errorf("%w: head says %d entries", ErrCorrupt, head.Size)
	}
	for level := range maxLevel + 1 {
		n := head.Size >> (tileHeight * level)
		if n == 0 {
			break
		}
		var tail []byte
		if width := int(n % tileWidth); width > 0 {
			id := TileID{Level: uint8(level), Index: n / tileWidth}
			var err error
			if tail, err = s.Tile(ctx, id); err != nil {
				return nil, fmt.Errorf("%w: tile %d/%d: %w", ErrCorrupt, id.Level, id.Index, err)
			}
			if len(tail) != width*tlog.HashSize {
				return nil, fmt.Errorf("%w: tile %d/%d has %d bytes, want %d hashes",
					ErrCorrupt, id.Level, id.Index, len(tail), width)
			}
		}
		t.tails = append(t.tails, tail)
	}
	var indexes []int64
	for height := bits.Len64(head.Size) - 1; height >= 0; height-- {
		if head.Size>>height&1 == 1 {
			indexes = append(indexes, tlog.StoredHashIndex(height, int64(head.Size>>height-1)))
		}
	}
	var err error
	if t.edge, err = hashReader(ctx, s, head).ReadHashes(indexes); err != nil {
		return nil, err
	}
	if !slices.Equal(t.edge, head.Edge) {
		return nil, fmt.Errorf("%w: right edge of the head is not that of the tiles", ErrCorrupt)
	}
	return t, nil
}

// hashReader reads hashes of complete subtrees from the tiles; all are checked against the root of the head.
func hashReader(ctx context.Context, s Store, head Head) tlog.HashReader {
	r := tlog.TileHashReader(tlog.Tree{N: int64(head.Size), Hash: head.Root}, tileReader{ctx, s})
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes, err := r.ReadHashes(indexes)
		if err != nil && ctx.Err() == nil {
			return nil, fmt.Errorf("%w: tiles and head of %d entries: %w", ErrCorrupt, head.Size, err)
		}
		return hashes, err
	})
}

// tileReader lets package tlog read the store. It lives for one proof, hence the context inside: tlog passes none.
type tileReader struct {
	ctx   context.Context //nolint:containedctx // a view bound to one call
	store Store
}

func (tileReader) Height() int { return tileHeight }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := r.store.Tile(r.ctx, TileID{Level: uint8(t.L), Index: uint64(t.N)})
		if err != nil {
			return nil, err
		}
		if len(data) < t.W*tlog.HashSize {
			return nil, fmt.Errorf("tile %d/%d has %d bytes, want %d hashes", t.L, t.N, len(data), t.W)
		}
		out[i] = data[:t.W*tlog.HashSize] // the tile may have grown since
	}
	return out, nil
}

// SaveTiles has nothing to do: tiles come from where they would be saved to.
func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// rootAt returns the root that the log had at an earlier size.
func rootAt(ctx context.Context, s Store, head Head, size uint64) (tlog.Hash, error) {
	return tlog.TreeHash(int64(size), hashReader(ctx, s, head))
}

// differs returns which hashes of a tile are not those wanted, the first where one ends early.
func differs(got, want []byte) []int {
	var at []int
	for i := 0; i < max(len(got), len(want)); i += tlog.HashSize {
		if !bytes.Equal(got[min(i, len(got)):min(i+tlog.HashSize, len(got))],
			want[min(i, len(want)):min(i+tlog.HashSize, len(want))]) {
			at = append(at, i/tlog.HashSize)
		}
	}
	return at
}
