package ledger

import (
	"context"
	"iter"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// iterItems yields items in order of key; an error ends it.
type iterItems = iter.Seq2[Item, error]

// Store keeps the log: records, tiles, head and state in one transaction, and the last checkpoint. Engines pass the suite
// in package storetest. Slices that it returns are the caller's; it keeps none that it was given. Its iterators hold no
// transaction while they yield, so what they yield may have changed in between.
type Store interface {
	// Head returns the head of the last commit; the zero Head if there was none.
	Head(ctx context.Context) (Head, error)
	// Commit writes all of the batch or nothing and returns nil when it is durable. It refuses with ErrConflict if the
	// size of the head is not b.From, and with ErrFull, before it writes anything, for lack of space. After any other
	// error it is unknown whether the batch was written.
	Commit(ctx context.Context, b Batch) error
	// Record returns one record, or ErrNotFound.
	Record(ctx context.Context, index uint64) ([]byte, error)
	// Records yields the records from (included) to (excluded) that are there; a hole is ErrCorrupt.
	Records(ctx context.Context, from, to uint64) iter.Seq2[[]byte, error]
	// Tile returns a tile as last written, or ErrNotFound.
	Tile(ctx context.Context, id TileID) ([]byte, error)
	// Get returns an item of the state; its Version is 0 if there is none.
	Get(ctx context.Context, key string) (Item, error)
	// Scan yields the items of the state whose key begins with prefix and comes after the key after, in order of key.
	Scan(ctx context.Context, prefix, after string) iter.Seq2[Item, error]
	// Checkpoint returns the last checkpoint put, nil if none.
	Checkpoint(ctx context.Context) ([]byte, error)
	// PutCheckpoint replaces the checkpoint, durably when nil.
	PutCheckpoint(ctx context.Context, checkpoint []byte) error
	Close() error
}

// Batch is one commit. Without records, and with the head as it is, it only changes state.
type Batch struct {
	From    uint64            // the index of the first record
	Records [][]byte          // in order
	Tiles   map[TileID][]byte // new or changed
	Head    Head              // after the batch
	State   []StateChange     // in order of key, one per key
}

// Head describes a whole tree.
type Head struct {
	Size uint64
	Time time.Time   // of the last entry
	Root tlog.Hash   // RFC 6962 tree hash
	Edge []tlog.Hash // roots of the perfect subtrees that the tree consists of, largest first
}

// TileID names a tile as C2SP tlog-tiles does.
type TileID struct {
	Level uint8
	Index uint64
}

// Item is a key of the state with its value, and one more than the index of the entry that put it.
type Item struct {
	Key     string
	Value   []byte
	Version uint64
}

// StateChange puts an item, or deletes its key if its Version is 0.
type StateChange = Item

// Index finds entries by term. It is derived: it may be emptied at any time, and is filled again from the log. Engines
// pass the suite in package storetest.
type Index interface {
	// Mark returns how far the index goes.
	Mark(ctx context.Context) (Mark, error)
	// Add adds postings, sorted by term and entry, and moves the mark, in one transaction.
	Add(ctx context.Context, mark Mark, postings []Posting) error
	// Remove removes postings, if they are there.
	Remove(ctx context.Context, postings []Posting) error
	// Search returns, newest first, at most limit entries from (included) to before (excluded) that have every term.
	Search(ctx context.Context, terms []string, from, before uint64, limit int) ([]uint64, error)
	// Count returns the number of postings.
	Count(ctx context.Context) (uint64, error)
	// Reset empties the index.
	Reset(ctx context.Context) error
	Close() error
}

// Mark says that the entries before Size are in the index, and what the last of them was (its leaf, with its random
// commitment), so that an index of another log is known by it.
type Mark struct {
	Size uint64
	Leaf []byte
}

// Posting says that an entry has a term.
type Posting struct {
	Term  string
	Entry uint64
}
