package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// VerifyConfig says what to verify. Index and Progress may be nil.
type VerifyConfig struct {
	Store    Store
	Index    Index
	Verifier note.Verifier
	Sealer   Sealer
	Folder   Folder
	Guard    Guard
	Progress func(done, total uint64) // called now and then, and at the end
}

// Report says what was verified.
type Report struct {
	Size       uint64            // entries
	Root       tlog.Hash         // of the tree, as recomputed
	Tiles      uint64            // tiles compared
	StateKeys  uint64            // items of the state compared
	Indexed    uint64            // entries that the index covers
	Postings   uint64            // postings compared
	Checkpoint uint64            // size that the checkpoint in the store vouches for
	Guarded    uint64            // size that the checkpoint in the guard vouches for
	Erased     map[string]uint64 // by key id, the entries that could not be opened because the key was destroyed
}

// maxFindings is how many findings Verify names; one fault early in the log can lead to as many as there are entries.
const maxFindings = 20

// Verify recomputes all that is stored from the records alone and compares: leaf hashes and tiles of every level, the head,
// the order of time, the commitments of the payloads (of those whose key is there), the checkpoints in store and guard, the
// state and the index. What differs is named in the error, which wraps ErrCorrupt, ErrRollback or ErrFork. Nobody may
// append meanwhile.
//
// Erased entries are counted, not refused: compare Report.Erased with what the log says was erased. While entries are
// being erased (between Forget and the destruction of the key) the index is found to lack them.
func Verify(ctx context.Context, cfg VerifyConfig) (Report, error) {
	v := newVerifier(cfg)
	err := v.run(ctx)
	return v.report, errors.Join(append(v.findings, err)...)
}

type verifier struct {
	cfg      VerifyConfig
	report   Report
	findings []error

	tree  *tree
	tiles map[TileID][]byte // recomputed, not yet compared
	time  time.Time
	state *folded
	roots map[uint64]tlog.Hash // at the sizes that a checkpoint speaks of
}

func newVerifier(cfg VerifyConfig) *verifier {
	return &verifier{
		cfg: cfg, report: Report{Erased: map[string]uint64{}}, tree: &tree{}, tiles: map[TileID][]byte{},
		state: &folded{items: map[string]Item{}}, roots: map[uint64]tlog.Hash{0: (&tree{}).root()},
	}
}

func (v *verifier) find(kind error, format string, args ...any) {
	if len(v.findings) < maxFindings {
		v.findings = append(v.findings, fmt.Errorf("%w: %w", kind, fmt.Errorf(format, args...)))
	}
}

func (v *verifier) run(ctx context.Context) error {
	head, err := v.cfg.Store.Head(ctx)
	if err != nil {
		return err
	}
	stored, err := v.cfg.Store.Checkpoint(ctx)
	if err != nil {
		return err
	}
	guarded, err := v.cfg.Guard.Load(ctx)
	if err != nil {
		return err
	}
	var mark Mark
	if v.cfg.Index != nil {
		if mark, err = v.cfg.Index.Mark(ctx); err != nil {
			return err
		}
	}
	// Signatures first: the sizes in them say which roots to remember on the way.
	checkpoint := v.checkpoint("checkpoint in the store", stored, parseOwn)
	guard := v.checkpoint("checkpoint in the guard", guarded, ParseCheckpoint)
	if err := v.entries(ctx, head, mark); err != nil {
		return err
	}
	v.report.Checkpoint = v.compareRoot("checkpoint in the store", checkpoint, ErrCorrupt, ErrCorrupt)
	v.report.Guarded = v.compareRoot("checkpoint in the guard", guard, ErrRollback, ErrFork)
	if err := v.compareState(ctx); err != nil {
		return err
	}
	if err := v.compareIndex(ctx, mark); err != nil {
		return err
	}
	again, err := v.cfg.Store.Head(ctx)
	if err == nil && again.Size != head.Size {
		err = errors.New("ledger: log has grown while it was verified")
	}
	return err
}

// checkpoint returns what a checkpoint says, nil if there is none to go by.
func (v *verifier) checkpoint(where string, raw []byte, parse func([]byte, note.Verifier) (Checkpoint, error)) *Checkpoint {
	if len(raw) == 0 {
		return nil
	}
	c, err := parse(raw, v.cfg.Verifier)
	if err != nil {
		v.find(ErrCorrupt, "%s: %w", where, err)
		return nil
	}
	if _, ok := v.roots[c.Size]; !ok {
		v.roots[c.Size] = tlog.Hash{}
	}
	return &c
}

// entries checks records, tiles and head, and folds the state.
func (v *verifier) entries(ctx context.Context, head Head, mark Mark) error {
	if err := v.records(ctx, head.Size, mark); err != nil {
		return err
	}
	v.compareHead(head)
	return v.compareTiles(ctx, true)
}

// records goes through all records, also those that the head does not know of.
func (v *verifier) records(ctx context.Context, total uint64, mark Mark) error {
	const progressEvery = 4096
	for raw, err := range v.cfg.Store.Records(ctx, 0, math.MaxUint64) {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, ErrCorrupt) {
			v.find(ErrCorrupt, "entry %d: %w", v.tree.size, err)
			break
		}
		if err != nil {
			return err
		}
		if err := v.record(ctx, raw, mark); err != nil {
			return err
		}
		if v.cfg.Progress != nil && v.tree.size%progressEvery == 0 {
			v.cfg.Progress(v.tree.size, total)
		}
	}
	v.report.Size, v.report.Root = v.tree.size, v.tree.root()
	if v.cfg.Progress != nil {
		v.cfg.Progress(v.tree.size, total)
	}
	return nil
}

func (v *verifier) record(ctx context.Context, raw []byte, mark Mark) error {
	index := v.tree.size
	v.tree.add(tlog.RecordHash(raw[:min(LeafSize, len(raw))]), v.tiles)
	if _, ok := v.roots[v.tree.size]; ok {
		v.roots[v.tree.size] = v.tree.root()
	}
	if v.tree.size%tileWidth == 0 {
		if err := v.compareTiles(ctx, false); err != nil {
			return err
		}
	}
	r, err := parseRecord(raw)
	if err != nil {
		v.find(ErrCorrupt, "entry %d: %w", index, err)
		return nil
	}
	if r.time.Before(v.time) {
		v.find(ErrCorrupt, "entry %d is older than the one before it", index)
	}
	v.time = r.time
	if mark.Size == index+1 && !bytes.Equal(mark.Leaf, r.leaf) {
		v.find(ErrCorrupt, "index: its mark is not entry %d", index)
	}
	_, payload, err := r.open(v.cfg.Sealer)
	if errors.Is(err, ErrErased) {
		v.report.Erased[r.keyID]++
		return nil
	}
	if err != nil {
		v.find(ErrCorrupt, "entry %d: %w", index, err)
		return nil
	}
	terms, err := v.fold(index, r.time, payload)
	if err != nil {
		v.find(ErrCorrupt, "entry %d is refused when folded again: %w", index, err)
		return nil
	}
	if index >= mark.Size {
		return nil
	}
	for _, term := range terms {
		found, err := v.cfg.Index.Search(ctx, []string{term}, index, index+1, 1)
		if err != nil {
			return err
		}
		if len(found) != 1 || found[0] != index {
			v.find(ErrCorrupt, "index: entry %d is not found by one of its terms", index)
		}
		v.report.Postings++
	}
	return nil
}

func (v *verifier) fold(index uint64, t time.Time, payload []byte) ([]string, error) {
	prepared, err := v.cfg.Folder.Prepare(payload)
	if err != nil {
		return nil, err
	}
	own := &layer{base: v.state, version: index + 1}
	if err := errors.Join(v.cfg.Folder.Fold(own, index, t, prepared), own.err); err != nil {
		return nil, err
	}
	v.state.apply(own.changes)
	return termsOf(v.cfg.Folder, prepared)
}

// compareTiles compares the tiles that are whole, or all, and lets go of them.
func (v *verifier) compareTiles(ctx context.Context, all bool) error {
	for id, want := range v.tiles {
		if len(want) < tileBytes && !all {
			continue
		}
		v.report.Tiles++
		got, err := v.cfg.Store.Tile(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
			return err
		}
		if at := differs(got, want); len(at) > 0 {
			v.find(ErrCorrupt, "tile %d/%d: hashes %v of %d are not those of the entries",
				id.Level, id.Index, at, len(want)/tlog.HashSize)
		}
		delete(v.tiles, id)
	}
	return nil
}

func (v *verifier) compareHead(head Head) {
	want := v.tree.head(v.time)
	if want.Size == 0 {
		want = Head{}
	}
	if head.Size != want.Size {
		v.find(ErrCorrupt, "head: size is %d, there are %d entries", head.Size, want.Size)
	}
	if head.Root != want.Root {
		v.find(ErrCorrupt, "head: root is not that of the entries")
	}
	if !slices.Equal(head.Edge, want.Edge) {
		v.find(ErrCorrupt, "head: right edge is not that of the entries")
	}
	if !head.Time.Equal(want.Time) {
		v.find(ErrCorrupt, "head: time is not that of the last entry")
	}
}

// compareRoot returns the size that a checkpoint speaks of.
func (v *verifier) compareRoot(where string, c *Checkpoint, small, other error) uint64 {
	switch {
	case c == nil:
		return 0
	case c.Size > v.tree.size:
		v.find(small, "%s: is of %d entries, there are %d", where, c.Size, v.tree.size)
	case c.Root != v.roots[c.Size]:
		v.find(other, "%s: root is not that of the first %d entries", where, c.Size)
	}
	return c.Size
}

func (v *verifier) compareState(ctx context.Context) error {
	changes, err := v.repairs(ctx)
	if err != nil {
		return err
	}
	for _, c := range changes {
		what := "is missing or not what was put"
		if c.Version == 0 {
			what = "should not be there"
		}
		// Keys of the state may hold pseudonyms; the entry tells enough.
		v.find(ErrCorrupt, "state: an item of entry %d %s", c.entry, what)
	}
	return nil
}

// repair is a change to the stored state, and the entry that the item is or claims to be of.
type repair struct {
	StateChange
	entry uint64
}

// repairs returns the changes that make the stored state what it is when folded again, in order of key. It uses up the
// folded state.
func (v *verifier) repairs(ctx context.Context) ([]repair, error) {
	var out []repair
	for got, err := range v.cfg.Store.Scan(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		v.report.StateKeys++
		want, ok := v.state.items[got.Key]
		delete(v.state.items, got.Key)
		switch {
		case !ok:
			out = append(out, repair{Item{Key: got.Key}, got.Version - 1})
		case got.Version != want.Version || !bytes.Equal(got.Value, want.Value):
			out = append(out, repair{want, want.Version - 1})
		}
	}
	for _, want := range v.state.items {
		out = append(out, repair{want, want.Version - 1})
	}
	slices.SortFunc(out, func(a, b repair) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// Refold folds the state again from the entries and puts right what differs, in one commit, after checking the entries
// against the tree. It returns the number of items changed. It is for a Folder that has learned something new; Index,
// Verifier and Guard are not used. Nobody may append meanwhile.
func Refold(ctx context.Context, cfg VerifyConfig) (int, error) {
	cfg.Index = nil
	v := newVerifier(cfg)
	head, err := cfg.Store.Head(ctx)
	if err != nil {
		return 0, err
	}
	if err := v.entries(ctx, head, Mark{}); err != nil || len(v.findings) > 0 {
		return 0, errors.Join(append(v.findings, err)...)
	}
	repairs, err := v.repairs(ctx)
	if err != nil || len(repairs) == 0 {
		return 0, err
	}
	b := Batch{From: head.Size, Head: head}
	for _, r := range repairs {
		b.State = append(b.State, r.StateChange)
	}
	return len(repairs), cfg.Store.Commit(ctx, b)
}

func (v *verifier) compareIndex(ctx context.Context, mark Mark) error {
	if v.cfg.Index == nil {
		return nil
	}
	v.report.Indexed = mark.Size
	if mark.Size > v.tree.size {
		v.find(ErrCorrupt, "index: goes to entry %d of %d", mark.Size, v.tree.size)
	}
	n, err := v.cfg.Index.Count(ctx)
	if err == nil && n != v.report.Postings {
		v.find(ErrCorrupt, "index: has %d postings, the entries have %d", n, v.report.Postings)
	}
	return err
}
