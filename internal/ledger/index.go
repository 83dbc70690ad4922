package ledger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	maxTail       = 1 << 15 // entries that wait in memory for the index
	maxIndexBatch = 1 << 15
	searchChunk   = 256
	// indexPause lets entries gather: one large sorted write to the index costs a fraction of many small ones.
	indexPause = 500 * time.Millisecond
)

// unindexed is an entry that the index may not have yet.
type unindexed struct {
	leaf  []byte
	terms []string
}

// tail is the end of the log, kept in memory until the index has it. When it grows too long it is dropped and read back
// from the log.
type tail struct {
	mu      sync.Mutex
	indexed uint64      // the entries before are in the index
	from    uint64      // of the first item
	items   []unindexed // up to the end of the log
	grown   chan struct{}
}

func (t *tail) add(items []unindexed) {
	t.mu.Lock()
	if len(t.items)+len(items) > maxTail {
		t.from += uint64(len(t.items))
		t.items = nil
	}
	t.items = append(t.items, items...)
	t.mu.Unlock()
	select {
	case t.grown <- struct{}{}:
	default:
	}
}

// view returns the tail as it is now. What it returns is never written again.
func (t *tail) view() (indexed, from uint64, items []unindexed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.indexed, t.from, t.items
}

func (t *tail) setIndexed(size uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.indexed = size
	if size > t.from {
		t.items = t.items[size-t.from:]
		t.from = size
	}
}

// openIndex finds out how far the index goes, and empties one that is not of this log.
func (l *Log) openIndex(ctx context.Context, head Head) error {
	mark, err := l.cfg.Index.Mark(ctx)
	if err != nil {
		return err
	}
	if mark.Size > 0 {
		var leaf []byte
		if mark.Size <= head.Size {
			raw, err := l.cfg.Store.Record(ctx, mark.Size-1)
			if err != nil {
				return err
			}
			leaf = raw[:min(LeafSize, len(raw))]
		}
		if !bytes.Equal(leaf, mark.Leaf) {
			l.cfg.Logger.WarnContext(ctx, "index is of another log, building it again", slog.Uint64("marked", mark.Size))
			if err := l.cfg.Index.Reset(ctx); err != nil {
				return err
			}
			mark = Mark{}
		}
	}
	l.tail.indexed, l.tail.from, l.tail.grown = mark.Size, head.Size, make(chan struct{}, 1)
	l.tail.grown <- struct{}{} // to catch up at once
	return nil
}

// indexAll keeps the index up with the log.
func (l *Log) indexAll(ctx context.Context) {
	const retry = time.Second
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.tail.grown:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = indexPause
		if err := l.catchUp(ctx); err != nil && ctx.Err() == nil {
			l.cfg.Logger.WarnContext(ctx, "index not updated", slog.Any("error", err))
			pause = retry
			select {
			case l.tail.grown <- struct{}{}:
			default:
			}
		}
	}
}

// catchUp indexes the log as it is now.
func (l *Log) catchUp(ctx context.Context) error {
	l.index.Lock()
	defer l.index.Unlock()
	return l.catchUpLocked(ctx)
}

func (l *Log) catchUpLocked(ctx context.Context) error {
	for ctx.Err() == nil {
		at, from, items := l.tail.view()
		if at >= from {
			items = items[at-from:]
			items = items[:min(len(items), maxIndexBatch)]
		} else {
			var err error
			if items, err = l.readTail(ctx, at, min(from, at+maxIndexBatch)); err != nil {
				return err
			}
		}
		if len(items) == 0 {
			return nil
		}
		mark := Mark{Size: at + uint64(len(items)), Leaf: items[len(items)-1].leaf}
		if err := l.cfg.Index.Add(ctx, mark, postings(at, items)); err != nil {
			return err
		}
		l.tail.setIndexed(mark.Size)
	}
	return ctx.Err()
}

// postings returns the postings of consecutive entries, sorted.
func postings(from uint64, items []unindexed) []Posting {
	var out []Posting
	for i, item := range items {
		for _, term := range item.terms {
			out = append(out, Posting{Term: term, Entry: from + uint64(i)})
		}
	}
	slices.SortFunc(out, func(a, b Posting) int {
		return cmp.Or(strings.Compare(a.Term, b.Term), cmp.Compare(a.Entry, b.Entry))
	})
	return out
}

// readTail reads entries back from the log. Those that were erased have no terms.
func (l *Log) readTail(ctx context.Context, from, to uint64) ([]unindexed, error) {
	items := make([]unindexed, 0, to-from)
	for raw, err := range l.cfg.Store.Records(ctx, from, to) {
		if err != nil {
			return nil, err
		}
		item, err := l.readTerms(raw)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", from+uint64(len(items)), err)
		}
		items = append(items, item)
	}
	if uint64(len(items)) != to-from {
		return nil, fmt.Errorf("%w: entry %d is missing", ErrCorrupt, from+uint64(len(items)))
	}
	return items, nil
}

func (l *Log) readTerms(raw []byte) (unindexed, error) {
	r, err := parseRecord(raw)
	if err != nil {
		return unindexed{}, err
	}
	item := unindexed{leaf: r.leaf}
	_, payload, err := r.open(l.cfg.Sealer)
	if errors.Is(err, ErrErased) {
		return item, nil
	}
	if err != nil {
		return item, err
	}
	prepared, err := l.cfg.Folder.Prepare(payload)
	if err != nil {
		return item, err
	}
	item.terms, err = termsOf(l.cfg.Folder, prepared)
	return item, err
}

// Query says what to search for.
type Query struct {
	Terms  []string  // all of which the entry must have; none: every entry
	Before uint64    // only entries with a smaller index; 0: from the newest
	From   time.Time // only entries of this time or later; zero: no bound
	Until  time.Time // only entries of before this time; zero: no bound
	Limit  int       // at most this many; default 100, at most 1,000
}

// Search returns the entries that a query asks for, newest first, and the Before for the next page, 0 if this is the last.
// It finds every entry whose Append has returned. While an index is being built again, what it lacks is read from the log.
func (l *Log) Search(ctx context.Context, q Query) (indexes []uint64, next uint64, err error) {
	const defaultLimit, maxLimit = 100, 1000
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	q.Limit = min(q.Limit, maxLimit)
	terms := slices.Compact(slices.Sorted(slices.Values(q.Terms)))

	indexed, from, items := l.tail.view()
	low, high := uint64(0), from+uint64(len(items))
	if q.Before > 0 {
		high = min(high, q.Before)
	}
	if !q.Until.IsZero() {
		if high, err = l.firstAt(ctx, q.Until, high); err != nil {
			return nil, 0, err
		}
	}
	if !q.From.IsZero() {
		if low, err = l.firstAt(ctx, q.From, high); err != nil {
			return nil, 0, err
		}
	}
	// One entry more than asked for tells whether there is a next page.
	want := q.Limit + 1
	found, err := l.searchTail(ctx, terms, max(low, indexed), high, want, from, items)
	if err != nil {
		return nil, 0, err
	}
	if high = min(high, indexed); len(found) < want && low < high {
		older, err := l.searchIndex(ctx, terms, low, high, want-len(found))
		if err != nil {
			return nil, 0, err
		}
		found = append(found, older...)
	}
	if len(found) == want {
		found = found[:q.Limit]
		next = found[q.Limit-1]
	}
	return found, next, nil
}

func (l *Log) searchIndex(ctx context.Context, terms []string, low, high uint64, limit int) ([]uint64, error) {
	if len(terms) > 0 {
		return l.cfg.Index.Search(ctx, terms, low, high, limit)
	}
	var found []uint64
	for ; high > low && len(found) < limit; high-- {
		found = append(found, high-1)
	}
	return found, nil
}

// searchTail goes through the entries that are not in the index, newest first: those in memory, then those that are only
// in the log.
func (l *Log) searchTail(ctx context.Context, terms []string, low, high uint64, limit int,
	from uint64, items []unindexed,
) ([]uint64, error) {
	var found []uint64
	match := func(i uint64, item unindexed) {
		for _, term := range terms {
			if _, ok := slices.BinarySearch(item.terms, term); !ok {
				return
			}
		}
		found = append(found, i)
	}
	for ; high > max(low, from) && len(found) < limit; high-- {
		match(high-1, items[high-1-from])
	}
	for high > low && len(found) < limit {
		start := max(low, high-min(high, searchChunk))
		chunk, err := l.readTail(ctx, start, high)
		if err != nil {
			return nil, err
		}
		for ; high > start && len(found) < limit; high-- {
			match(high-1, chunk[high-1-start])
		}
	}
	return found, nil
}

// firstAt returns the first entry before size that is of time t or later, or size: times never go back along the log.
func (l *Log) firstAt(ctx context.Context, t time.Time, size uint64) (uint64, error) {
	var failed error
	i := sort.Search(int(size), func(i int) bool {
		raw, err := l.cfg.Store.Record(ctx, uint64(i))
		if err != nil {
			failed = err
			return false
		}
		r, err := parseRecord(raw)
		if err != nil {
			failed = fmt.Errorf("entry %d: %w", i, err)
		}
		return !r.time.Before(t)
	})
	return uint64(i), failed
}

// Forget removes entries from the index, which is part of erasing them. Their key must still be there, since their terms
// are read from their payloads: forget, then destroy the key. An index that is built again after that lacks them too.
func (l *Log) Forget(ctx context.Context, indexes ...uint64) error {
	l.index.Lock()
	defer l.index.Unlock()
	if err := l.catchUpLocked(ctx); err != nil { // so that none of them is indexed afterwards
		return err
	}
	var gone []Posting
	for _, i := range indexes {
		raw, err := l.cfg.Store.Record(ctx, i)
		if err != nil {
			return err
		}
		item, err := l.readTerms(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		gone = append(gone, postings(i, []unindexed{item})...)
	}
	return l.cfg.Index.Remove(ctx, gone)
}
