// Package ledger appends entries to a Merkle log, proves them, signs checkpoints, searches and verifies.
//
// # Contract
//
// [Log.Append] returns without an error only when the entry is durable. Entries are never changed and never removed.
// The tree holds salted commitments only; what they commit to is sealed under a key that can be destroyed, after which
// the entry is unreadable and every proof still verifies. Beside the entries a [Folder] folds a small state in the same
// transaction, so that the preconditions of an entry ([Entry].Expect) are exact. Search terms go to an [Index] that
// follows the log and can always be built again.
//
// # Formats
//
// All integers are big-endian. A leaf is 41 bytes:
//
//	version     1 byte, 1
//	time        8 bytes, nanoseconds since 1970 UTC; never smaller than in the leaf before it
//	commitment  32 bytes, SHA-256(salt || payload), salt being 32 random bytes
//
// Its leaf hash is that of RFC 6962, SHA-256(0x00 || leaf). A record, which is what a [Store] keeps of an entry, is
//
//	leaf        41 bytes
//	key id      1 byte of length (1 to 64) and that many bytes
//	ciphertext  salt || payload as sealed by [Sealer], with the commitment as additional data
//	checksum    4 bytes, CRC-32C of key id (with its length) and ciphertext
//
// The tree protects the leaf, the AEAD the ciphertext. The checksum adds nothing against malice; it lets rot be told from
// erasure, since a key id that rots may look like a key that was destroyed.
//
// Tiles are those of C2SP tlog-tiles: 256 hashes wide, the last of each level partial. Checkpoints are C2SP
// tlog-checkpoint without extension lines, signed as C2SP signed-note; the origin is the name of the signing key.
//
// # Trust
//
// The store is not trusted to keep what it was given: records are checked against the tree when they are read, tiles
// against the root in memory when proofs are made, and [Verify] recomputes everything. A store that was put back or
// replaced as a whole is found by the [Guard], which keeps the last checkpoint elsewhere. Whoever holds the signing key,
// the store and the guard can still rewrite history; only witnesses, who remember checkpoints, notice that.
package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// What callers can tell apart with errors.Is.
var (
	// ErrInvalid means that the entry or query can never be accepted as it is.
	ErrInvalid = errors.New("ledger: invalid")
	// ErrConflict means that something is no longer as the caller saw it: read again and decide again.
	ErrConflict = errors.New("ledger: conflict")
	// ErrOverloaded means that the queue is full and nothing was written.
	ErrOverloaded = errors.New("ledger: overloaded")
	// ErrFull means that the store refused before writing, for lack of space; it may accept again later.
	ErrFull = errors.New("ledger: store is full")
	// ErrStopped means that the log is stopping or has stopped; nothing was written.
	ErrStopped = errors.New("ledger: stopped")
	// ErrPoisoned means that a commit failed, or the guard saw a fork: nothing is accepted until a restart, which reads
	// the disk again. Whether the entries of the failed commit are there is known only then.
	ErrPoisoned = errors.New("ledger: poisoned")
	// ErrNotFound means that there is no such entry or tile, or that the log is smaller than the size asked for.
	ErrNotFound = errors.New("ledger: not found")
	// ErrErased is what a Sealer's Open wraps when the key was destroyed.
	ErrErased = errors.New("ledger: erased")
	// ErrCorrupt means that stored bytes are not what was written; the text says which and where.
	ErrCorrupt = errors.New("ledger: corrupt")
	// ErrRollback means that the store is older than the checkpoint in the guard.
	ErrRollback = errors.New("ledger: rolled back")
	// ErrFork means that the store and the checkpoint in the guard are of different histories.
	ErrFork = errors.New("ledger: forked")
)

// Limits of the log.
const (
	// MaxPayload is the largest payload in bytes. With its envelope it stays below the 64 KiB of C2SP tlog-tiles.
	MaxPayload = 60_000
	// MaxKeyID is the longest key id in bytes.
	MaxKeyID = 64
	// MaxTerm is the longest search term in bytes.
	MaxTerm = 255

	maxRecord     = 1<<16 - 1
	maxQueue      = 4096
	maxGroup      = 1024
	maxGroupBytes = 1 << 20
)

// A Sealer seals payloads under keys that can be destroyed one by one. It is used from many goroutines at once.
type Sealer interface {
	// Seal encrypts plaintext with an AEAD under the key with this id.
	Seal(keyID string, plaintext, aad []byte) ([]byte, error)
	// Open is its inverse. Its error wraps ErrErased if, and only if, the key was destroyed.
	Open(keyID string, ciphertext, aad []byte) ([]byte, error)
}

// A Folder gives payloads their meaning. All it does must follow from its arguments alone, since the same calls made again
// over the log must give the same state and the same terms.
//
// When the state is folded again, entries whose key was destroyed are skipped. So what such entries put must by then have
// been deleted by an entry under another key (the one that records the erasure).
type Folder interface {
	// Prepare checks and decodes a payload; an error refuses it. It is called from many goroutines at once.
	Prepare(payload []byte) (prepared any, err error)
	// Fold applies the entry to the state, or refuses it, in which case its writes are discarded and the entry is not
	// appended. It is called for one entry at a time, in the order of the log, on the path of every commit: it must be
	// quick and must not keep st.
	Fold(st State, index uint64, t time.Time, prepared any) error
	// Terms returns what Search finds the entry by: each 1 to MaxTerm bytes, without NUL. It is called from many
	// goroutines at once.
	Terms(prepared any) []string
}

// State is the folded state as one entry sees it: after all entries before it. Values must not be modified.
type State interface {
	// Get returns a value and its version: one more than the index of the entry that put it. Absent: 0 and false.
	Get(key string) (value []byte, version uint64, ok bool, err error)
	// Put sets a value. Keys are 1 to 1,024 bytes.
	Put(key string, value []byte)
	// Delete removes a key, if it is there.
	Delete(key string)
	// Scan yields the items whose key begins with prefix, in order of key. The loop must not write.
	Scan(prefix string) iter.Seq2[Item, error]
}

// Entry is what is appended.
type Entry struct {
	KeyID   string    // the key to seal under, 1 to MaxKeyID bytes
	Payload []byte    // at most MaxPayload bytes
	Expect  []Version // preconditions, checked in the order of the log
	// Prepared is what Folder.Prepare makes of Payload, for a writer that has it already; nil: Prepare is called. A writer
	// that gives another value writes a state that Verify will not find in the log.
	Prepared any
}

// Version says what version a key of the state must have; 0 means that it must be absent.
type Version struct {
	Key     string
	Version uint64
}

// Appended is what its writer learns of a durable entry: all that is needed to check the entry against the tree.
type Appended struct {
	Index uint64
	Time  time.Time
	Leaf  []byte
	Salt  []byte
}

// Opened is an entry read back.
type Opened struct {
	Index   uint64
	Time    time.Time
	KeyID   string
	Leaf    []byte
	Salt    []byte
	Payload []byte
}

// Config is what a Log is made of. All of it but the last three fields is required.
type Config struct {
	Store    Store
	Index    Index
	Sealer   Sealer
	Folder   Folder
	Guard    Guard
	Signer   note.Signer   // signs checkpoints; its name is the origin of the log
	Verifier note.Verifier // of Signer's key

	CheckpointInterval time.Duration    // between checkpoints of a growing log; default 1 s
	Now                func() time.Time // default time.Now
	Logger             *slog.Logger     // default discards
}

func (c *Config) validate() error {
	if c.Store == nil || c.Index == nil || c.Sealer == nil || c.Folder == nil || c.Guard == nil ||
		c.Signer == nil || c.Verifier == nil {
		return fmt.Errorf("%w: incomplete configuration", ErrInvalid)
	}
	if c.Signer.Name() != c.Verifier.Name() || c.Signer.KeyHash() != c.Verifier.KeyHash() {
		return fmt.Errorf("%w: signer and verifier are of different keys", ErrInvalid)
	}
	if c.CheckpointInterval <= 0 {
		c.CheckpointInterval = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// A Log is an open ledger. Its methods are safe for concurrent use. The store must have no other writer.
type Log struct {
	cfg Config

	accepting sync.RWMutex // held for writing once, to close queue
	stopped   bool         // guarded by accepting
	running   atomic.Bool
	queue     chan *pending

	tree *tree // of the committer alone, once Run has started
	last time.Time

	head   atomic.Pointer[Head]   // as committed
	latest atomic.Pointer[signed] // last published checkpoint, nil before the first
	sign   chan struct{}          // holds one token; who takes it may sign
	signed time.Time              // when that was done last; of the holder of sign
	guard  []byte                 // what the guard was last seen to hold; of the holder of sign
	tail   tail                   // entries that the index may not have yet
	index  sync.Mutex             // held by who writes the index
	health struct {
		sync.Mutex
		poison, full, unsigned error
		unsignedSince          time.Time
	}
}

// Open reads and checks a log: that head and tiles agree, that the last thousand records are those of the tree, and that
// the checkpoints in store and guard are of this history (else ErrCorrupt, ErrRollback or ErrFork). It starts nothing and
// takes no ownership of what is in the Config. An index that is not of this log is emptied, to be filled again by Run.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	head, err := cfg.Store.Head(ctx)
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, queue: make(chan *pending, maxQueue), sign: make(chan struct{}, 1)}
	l.sign <- struct{}{}
	if l.tree, err = loadTree(ctx, cfg.Store, head); err != nil {
		return nil, err
	}
	head = l.tree.head(head.Time)
	l.head.Store(&head)
	l.last = head.Time
	if err := l.checkTail(ctx, head); err != nil {
		return nil, err
	}
	if err := l.loadCheckpoints(ctx); err != nil {
		return nil, err
	}
	if err := l.openIndex(ctx, head); err != nil {
		return nil, err
	}
	return l, nil
}

// checkTail compares the last records with the tree, which has been checked against the head.
func (l *Log) checkTail(ctx context.Context, head Head) error {
	const tailSize = 1000
	from := head.Size - min(head.Size, tailSize)
	var indexes []int64
	for i := from; i < head.Size; i++ {
		indexes = append(indexes, tlog.StoredHashIndex(0, int64(i)))
	}
	if len(indexes) == 0 {
		return nil
	}
	hashes, err := hashReader(ctx, l.cfg.Store, head).ReadHashes(indexes)
	if err != nil {
		return err
	}
	i, last := from, time.Time{}
	for raw, err := range l.cfg.Store.Records(ctx, from, head.Size) {
		if err != nil {
			return err
		}
		r, err := parseRecord(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if tlog.RecordHash(r.leaf) != hashes[i-from] {
			return fmt.Errorf("%w: entry %d is not the one in the tree", ErrCorrupt, i)
		}
		if r.time.Before(last) {
			return fmt.Errorf("%w: entry %d is older than the one before it", ErrCorrupt, i)
		}
		i, last = i+1, r.time
	}
	if i != head.Size || !last.Equal(head.Time) {
		return fmt.Errorf("%w: head does not match the last entry", ErrCorrupt)
	}
	return nil
}

// Size returns the number of durable entries.
func (l *Log) Size() uint64 { return l.head.Load().Size }

// Healthy returns nil, or why the log does not accept entries (poisoned, full) or has not been able to sign a
// checkpoint for a minute.
func (l *Log) Healthy() error {
	const maxUnsigned = time.Minute
	l.health.Lock()
	defer l.health.Unlock()
	switch {
	case l.health.poison != nil:
		return l.health.poison
	case l.health.full != nil:
		return l.health.full
	case l.health.unsigned != nil && l.cfg.Now().Sub(l.health.unsignedSince) >= maxUnsigned:
		return l.health.unsigned
	}
	return nil
}

func (l *Log) poison(ctx context.Context, cause error) error {
	l.health.Lock()
	defer l.health.Unlock()
	if l.health.poison == nil {
		l.health.poison = fmt.Errorf("%w: %w", ErrPoisoned, cause)
		l.cfg.Logger.ErrorContext(ctx, "ledger poisoned, nothing is accepted until a restart", slog.Any("error", cause))
	}
	return l.health.poison
}

func (l *Log) poisoned() error {
	l.health.Lock()
	defer l.health.Unlock()
	return l.health.poison
}

// Record returns the entry at index, checked against the tree and its commitment. If the key was destroyed, it returns
// what the leaf and the key id tell, and an error that wraps ErrErased.
func (l *Log) Record(ctx context.Context, index uint64) (Opened, error) {
	if index >= l.Size() {
		return Opened{}, fmt.Errorf("%w: entry %d", ErrNotFound, index)
	}
	raw, err := l.cfg.Store.Record(ctx, index)
	if err != nil {
		return Opened{}, err
	}
	r, err := parseRecord(raw)
	if err != nil {
		return Opened{}, fmt.Errorf("entry %d: %w", index, err)
	}
	tile, err := l.cfg.Store.Tile(ctx, TileID{Level: 0, Index: index / tileWidth})
	if err != nil {
		return Opened{}, err
	}
	hash := tlog.RecordHash(r.leaf)
	if at := int(index%tileWidth) * tlog.HashSize; len(tile) < at+tlog.HashSize ||
		!bytes.Equal(tile[at:at+tlog.HashSize], hash[:]) {
		return Opened{}, fmt.Errorf("%w: entry %d is not the one in the tree", ErrCorrupt, index)
	}
	o := Opened{Index: index, Time: r.time, KeyID: r.keyID, Leaf: r.leaf}
	if o.Salt, o.Payload, err = r.open(l.cfg.Sealer); err != nil {
		return o, fmt.Errorf("entry %d: %w", index, err)
	}
	return o, nil
}

// Get returns a value of the state as committed, like State's Get.
func (l *Log) Get(ctx context.Context, key string) (value []byte, version uint64, ok bool, err error) {
	item, err := l.cfg.Store.Get(ctx, key)
	return item.Value, item.Version, item.Version > 0, err
}

// Scan returns at most limit items of the state as committed, in order of key: those whose key begins with prefix and
// comes after the key given ("" for the first page).
func (l *Log) Scan(ctx context.Context, prefix, after string, limit int) ([]Item, error) {
	var items []Item
	if limit <= 0 {
		return nil, nil
	}
	for item, err := range l.cfg.Store.Scan(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		if items = append(items, item); len(items) == limit {
			break
		}
	}
	return items, nil
}

// InclusionProof proves, as in RFC 6962 2.1.1, that the entry at index is in the tree of the given size.
func (l *Log) InclusionProof(ctx context.Context, index, treeSize uint64) ([]tlog.Hash, error) {
	head := l.head.Load()
	if index >= treeSize || treeSize > head.Size {
		return nil, fmt.Errorf("%w: entry %d in a tree of %d of %d", ErrNotFound, index, treeSize, head.Size)
	}
	return tlog.ProveRecord(int64(treeSize), int64(index), hashReader(ctx, l.cfg.Store, *head))
}

// ConsistencyProof proves, as in RFC 6962 2.1.2, that the tree of size from is a prefix of the one of size to. From the
// empty tree the proof is empty.
func (l *Log) ConsistencyProof(ctx context.Context, from, to uint64) ([]tlog.Hash, error) {
	head := l.head.Load()
	if from > to || to > head.Size {
		return nil, fmt.Errorf("%w: trees of %d and %d of %d", ErrNotFound, from, to, head.Size)
	}
	if from == 0 {
		return nil, nil
	}
	return tlog.ProveTree(int64(to), int64(from), hashReader(ctx, l.cfg.Store, *head))
}

// Tile returns a tile: up to 256 hashes of 32 bytes. The last tile of a level grows; who wants a partial tile of some
// width takes that many hashes from its beginning.
func (l *Log) Tile(ctx context.Context, level, index uint64) ([]byte, error) {
	if level > maxLevel {
		return nil, fmt.Errorf("%w: tile level %d", ErrNotFound, level)
	}
	return l.cfg.Store.Tile(ctx, TileID{Level: uint8(level), Index: index})
}

// Commitment is what a leaf holds of a payload: SHA-256(salt || payload).
func Commitment(salt, payload []byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat(salt, payload))
}
