package ledger

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

const maxStateKey = 1024

// reader is state to build on: that of the store, of the entries before, or of a fold from the beginning.
type reader interface {
	get(key string) (Item, error)
	scan(prefix string) iterItems
}

// layer is changes over state that it leaves alone. It is what Fold sees.
type layer struct {
	base    reader
	version uint64          // of what is put
	changes map[string]Item // a Version of 0 deletes
	err     error           // the first misuse or failed read; refuses the entry whatever Fold says
}

// merge takes over the changes of a layer on top of l.
func (l *layer) merge(top *layer) {
	if l.changes == nil {
		l.changes = make(map[string]Item, len(top.changes))
	}
	maps.Copy(l.changes, top.changes)
}

// sorted returns the changes to keys with a prefix, in order of key.
func (l *layer) sorted(prefix string) []Item {
	var out []Item
	for key, item := range l.changes {
		if strings.HasPrefix(key, prefix) {
			out = append(out, item)
		}
	}
	slices.SortFunc(out, func(a, b Item) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func (l *layer) get(key string) (Item, error) {
	if item, ok := l.changes[key]; ok {
		return item, nil
	}
	item, err := l.base.get(key)
	return item, l.note(err)
}

func (l *layer) note(err error) error {
	if l.err == nil {
		l.err = err
	}
	return err
}

func (l *layer) scan(prefix string) iterItems {
	return func(yield func(Item, error) bool) {
		changes := l.sorted(prefix)
		// emit yields the changes before key; with all, those that are left.
		emit := func(key string, all bool) bool {
			for len(changes) > 0 && (all || changes[0].Key < key) {
				c := changes[0]
				changes = changes[1:]
				if c.Version > 0 && !yield(c, nil) {
					return false
				}
			}
			return true
		}
		for item, err := range l.base.scan(prefix) {
			if err != nil {
				yield(Item{}, l.note(err))
				return
			}
			if !emit(item.Key, false) {
				return
			}
			if len(changes) > 0 && changes[0].Key == item.Key {
				continue
			}
			if !yield(item, nil) {
				return
			}
		}
		emit("", true)
	}
}

func (l *layer) Get(key string) ([]byte, uint64, bool, error) {
	item, err := l.get(key)
	return item.Value, item.Version, item.Version > 0, err
}

func (l *layer) Scan(prefix string) iter.Seq2[Item, error] { return l.scan(prefix) }

func (l *layer) Put(key string, value []byte) {
	l.set(Item{Key: key, Value: slices.Clone(value), Version: l.version})
}

func (l *layer) Delete(key string) { l.set(Item{Key: key}) }

func (l *layer) set(item Item) {
	if len(item.Key) == 0 || len(item.Key) > maxStateKey {
		_ = l.note(fmt.Errorf("%w: state key of %d bytes", ErrInvalid, len(item.Key)))
		return
	}
	if l.changes == nil {
		l.changes = make(map[string]Item)
	}
	l.changes[item.Key] = item
}

// stored is the state in the store. It lives for one group, hence the context inside: State's methods take none.
type stored struct {
	ctx   context.Context //nolint:containedctx // a view bound to one call
	store Store
}

func (s stored) get(key string) (Item, error) { return s.store.Get(s.ctx, key) }
func (s stored) scan(prefix string) iterItems { return s.store.Scan(s.ctx, prefix, "") }

// folded is state in memory, as folded from the beginning. Keys are kept in sorted chunks, so that a million of them are
// inserted and scanned without moving or sorting them all.
type folded struct {
	items  map[string]Item
	chunks [][]string // none is empty
}

const maxChunk = 512

func (f *folded) get(key string) (Item, error) { return f.items[key], nil }

// chunk returns which chunk holds key, or would.
func (f *folded) chunk(key string) int {
	i, found := slices.BinarySearchFunc(f.chunks, key, func(c []string, k string) int { return strings.Compare(c[0], k) })
	if !found && i > 0 {
		i--
	}
	return i
}

func (f *folded) apply(changes map[string]Item) {
	for key, item := range changes {
		_, had := f.items[key]
		switch {
		case item.Version > 0:
			f.items[key] = item
			if !had {
				f.insert(key)
			}
		case had:
			delete(f.items, key)
			i := f.chunk(key)
			at, _ := slices.BinarySearch(f.chunks[i], key)
			if f.chunks[i] = slices.Delete(f.chunks[i], at, at+1); len(f.chunks[i]) == 0 {
				f.chunks = slices.Delete(f.chunks, i, i+1)
			}
		}
	}
}

func (f *folded) insert(key string) {
	if len(f.chunks) == 0 {
		f.chunks = [][]string{{key}}
		return
	}
	i := f.chunk(key)
	at, _ := slices.BinarySearch(f.chunks[i], key)
	c := slices.Insert(f.chunks[i], at, key)
	f.chunks[i] = c
	if len(c) > maxChunk {
		f.chunks[i] = slices.Clip(c[:maxChunk/2])
		f.chunks = slices.Insert(f.chunks, i+1, slices.Clone(c[maxChunk/2:]))
	}
}

func (f *folded) scan(prefix string) iterItems {
	return func(yield func(Item, error) bool) {
		for i := f.chunk(prefix); i < len(f.chunks); i++ {
			for _, key := range f.chunks[i] {
				if strings.HasPrefix(key, prefix) {
					if !yield(f.items[key], nil) {
						return
					}
				} else if key > prefix {
					return
				}
			}
		}
	}
}
