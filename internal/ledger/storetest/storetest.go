// Package storetest holds what every engine of package ledger must do. An engine's tests call [Store] and [Index] with a
// function that opens it; engines that cannot keep these promises must not be used.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/ledger"
)

// Store tests a ledger.Store. Each call of the function that create returns opens the same store, which is new and empty
// when create returns; the suite closes what it opens, and opens only one at a time.
func Store(t *testing.T, create func(t *testing.T) (open func(t *testing.T) ledger.Store)) {
	for name, test := range map[string]func(*testing.T, func(*testing.T) ledger.Store){
		"Empty":      testEmpty,
		"Commit":     testCommit,
		"Atomic":     testAtomic,
		"Order":      testOrder,
		"State":      testState,
		"Scan":       testScan,
		"Checkpoint": testCheckpoint,
		"Cancelled":  testCancelled,
		"Iterators":  testIterators,
	} {
		t.Run(name, func(t *testing.T) { test(t, create(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("got other than wanted (-want +got):\n%s", d)
	}
}

// batch makes a batch of n records on top of size, with the form of a real one.
func batch(from uint64, n int, state ...ledger.StateChange) ledger.Batch {
	b := ledger.Batch{From: from, Tiles: map[ledger.TileID][]byte{}, State: state}
	for i := range n {
		b.Records = append(b.Records, fmt.Appendf(nil, "record %d", from+uint64(i)))
	}
	size := from + uint64(n)
	b.Head = ledger.Head{
		Size: size, Time: time.Unix(1_700_000_000, int64(size)).UTC(), Root: tlog.RecordHash(fmt.Append(nil, size)),
	}
	for rest := size; rest > 0; rest &= rest - 1 {
		b.Head.Edge = append(b.Head.Edge, tlog.RecordHash(fmt.Append(nil, rest)))
	}
	b.Tiles[ledger.TileID{Level: 0, Index: size >> 8}] = bytes.Repeat([]byte{byte(size)}, 32)
	b.Tiles[ledger.TileID{Level: 1, Index: 0}] = bytes.Repeat([]byte{byte(size)}, 64)
	return b
}

func collect[T any](t *testing.T, seq func(func(T, error) bool)) []T {
	t.Helper()
	var out []T
	for v, err := range seq {
		must(t, err)
		out = append(out, v)
	}
	return out
}

func testEmpty(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	for range 2 { // also after opening again
		s := open(t)
		head, err := s.Head(ctx)
		must(t, err)
		equal(t, head, ledger.Head{})
		_, err = s.Record(ctx, 0)
		wantErr(t, err, ledger.ErrNotFound)
		_, err = s.Tile(ctx, ledger.TileID{})
		wantErr(t, err, ledger.ErrNotFound)
		item, err := s.Get(ctx, "k")
		must(t, err)
		equal(t, item, ledger.Item{})
		c, err := s.Checkpoint(ctx)
		must(t, err)
		equal(t, len(c), 0)
		equal(t, len(collect(t, s.Records(ctx, 0, math.MaxUint64))), 0)
		equal(t, len(collect(t, s.Scan(ctx, "", ""))), 0)
		must(t, s.Close())
	}
}

func testCommit(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	var want []string
	tiles := map[ledger.TileID][]byte{}
	var last ledger.Batch
	for size := uint64(0); size < 1500; {
		last = batch(size, int(size%300)+1)
		must(t, s.Commit(ctx, last))
		size = last.Head.Size
		for _, r := range last.Records {
			want = append(want, string(r))
		}
		maps.Copy(tiles, last.Tiles)
	}
	for range 2 {
		head, err := s.Head(ctx)
		must(t, err)
		equal(t, head, last.Head)
		for id, tile := range tiles {
			got, err := s.Tile(ctx, id)
			must(t, err)
			equal(t, got, tile)
		}
		n := uint64(len(want))
		for _, bounds := range [][2]uint64{
			{0, n}, {0, math.MaxUint64}, {1, 2}, {n - 1, n}, {n, n + 1}, {17, 1017}, {5, 5}, {5, 4},
		} {
			var got []string
			for _, r := range collect(t, s.Records(ctx, bounds[0], bounds[1])) {
				got = append(got, string(r))
			}
			from, to := min(bounds[0], n), min(bounds[1], n)
			equal(t, got, want[from:max(from, to)])
		}
		for _, i := range []uint64{0, 255, 256, n - 1} {
			got, err := s.Record(ctx, i)
			must(t, err)
			equal(t, string(got), want[i])
			got[0] ^= 1 // what is returned is the caller's
			again, err := s.Record(ctx, i)
			must(t, err)
			equal(t, string(again), want[i])
		}
		_, err = s.Record(ctx, n)
		wantErr(t, err, ledger.ErrNotFound)
		must(t, s.Close())
		s = open(t)
	}
	must(t, s.Close())
}

// testAtomic checks that a refused batch leaves nothing behind.
func testAtomic(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	must(t, s.Commit(ctx, batch(0, 3, ledger.StateChange{Key: "k", Value: []byte("v"), Version: 1})))
	for _, from := range []uint64{0, 2, 4} {
		bad := batch(from, 2, ledger.StateChange{Key: "k"}, ledger.StateChange{Key: "l", Version: 9})
		wantErr(t, s.Commit(ctx, bad), ledger.ErrConflict)
	}
	bad := batch(3, 2)
	bad.Head.Size = 4 // not what the records come to
	wantErr(t, s.Commit(ctx, bad), ledger.ErrConflict)
	// A batch whose last part cannot be written.
	if err := s.Commit(ctx, batch(3, 2, ledger.StateChange{Key: "", Version: 4})); err == nil {
		t.Fatal("a state item without a key was written")
	}
	must(t, s.Close())
	s = open(t)
	head, err := s.Head(ctx)
	must(t, err)
	equal(t, head, batch(0, 3).Head)
	equal(t, len(collect(t, s.Records(ctx, 0, math.MaxUint64))), 3)
	equal(t, collect(t, s.Scan(ctx, "", "")), []ledger.Item{{Key: "k", Value: []byte("v"), Version: 1}})
	tile, err := s.Tile(ctx, ledger.TileID{Level: 1})
	must(t, err)
	equal(t, tile[0], byte(3))
	must(t, s.Close())
}

// testOrder checks that of many writers with the same view exactly one wins.
func testOrder(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	const writers = 8
	for round := range uint64(5) {
		results := make(chan error, writers)
		for range writers {
			go func() { results <- s.Commit(ctx, batch(round, 1)) }()
		}
		won := 0
		for range writers {
			if err := <-results; err == nil {
				won++
			} else {
				wantErr(t, err, ledger.ErrConflict)
			}
		}
		equal(t, won, 1)
	}
	must(t, s.Close())
}

func testState(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	long := strings.Repeat("k", 1024)
	must(t, s.Commit(ctx, batch(0, 1,
		ledger.Item{Key: "a", Value: []byte{0, 255}, Version: 1},
		ledger.Item{Key: "empty", Value: nil, Version: math.MaxUint64},
		ledger.Item{Key: long, Value: bytes.Repeat([]byte("v"), 100_000), Version: 1},
	)))
	must(t, s.Commit(ctx, batch(1, 0, ledger.Item{Key: "b", Value: []byte("state only"), Version: 1})))
	must(t, s.Commit(ctx, batch(1, 1,
		ledger.Item{Key: "a", Value: []byte("new"), Version: 2},
		ledger.Item{Key: "absent"}, ledger.Item{Key: "b"},
	)))
	must(t, s.Close())
	s = open(t)
	for key, want := range map[string]ledger.Item{
		"a":      {Key: "a", Value: []byte("new"), Version: 2},
		"empty":  {Key: "empty", Version: math.MaxUint64},
		long:     {Key: long, Value: bytes.Repeat([]byte("v"), 100_000), Version: 1},
		"absent": {}, "b": {}, "c": {},
	} {
		got, err := s.Get(ctx, key)
		must(t, err)
		equal(t, got, want)
	}
	must(t, s.Close())
}

func testScan(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	var keys []string
	for i := range 1000 {
		keys = append(keys, fmt.Sprintf("p/%03d", i))
	}
	keys = append(keys, "a", "p", "p\x00", "p.", "p0", "q", "p/", "p/\xff", "p/\xff\xff", "\xff")
	slices.Sort(keys)
	var state []ledger.StateChange
	for i, key := range keys {
		state = append(state, ledger.StateChange{Key: key, Value: []byte(key), Version: uint64(i + 1)})
	}
	must(t, s.Commit(ctx, batch(0, 1, state...)))
	for _, prefix := range []string{"", "a", "b", "p", "p/", "p/1", "p/\xff", "\xff", "zz"} {
		for _, after := range []string{"", "a", "p", "p/", "p/500", "p/500\x00", "p/\xff", "z", "\xff"} {
			var want []ledger.Item
			for _, item := range state {
				if strings.HasPrefix(item.Key, prefix) && item.Key > after {
					want = append(want, item)
				}
			}
			equal(t, collect(t, s.Scan(ctx, prefix, after)), want)
		}
	}
	must(t, s.Close())
}

func testCheckpoint(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	for _, c := range []string{"one", "another", "third"} {
		must(t, s.PutCheckpoint(ctx, []byte(c)))
		must(t, s.Close())
		s = open(t)
		got, err := s.Checkpoint(ctx)
		must(t, err)
		equal(t, string(got), c)
	}
	must(t, s.Close())
}

func testCancelled(t *testing.T, open func(*testing.T) ledger.Store) {
	s := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	must(t, s.Commit(ctx, batch(0, 1)))
	cancel()
	wantErr(t, s.Commit(ctx, batch(1, 1)), context.Canceled)
	_, err := s.Head(ctx)
	wantErr(t, err, context.Canceled)
	for _, err := range s.Records(ctx, 0, 1) {
		wantErr(t, err, context.Canceled)
	}
	head, err := s.Head(t.Context())
	must(t, err)
	equal(t, head.Size, uint64(1))
	must(t, s.Close())
}

// testIterators checks that a loop may read, write and stop.
func testIterators(t *testing.T, open func(*testing.T) ledger.Store) {
	ctx := t.Context()
	s := open(t)
	var state []ledger.StateChange
	for i := range 700 {
		state = append(state, ledger.StateChange{Key: fmt.Sprintf("%04d", i), Version: 1})
	}
	must(t, s.Commit(ctx, batch(0, 700, state...)))
	size := uint64(700)
	grow := func() {
		must(t, s.Commit(ctx, batch(size, 1, ledger.StateChange{Key: "x", Value: make([]byte, 1<<20), Version: size})))
		size++
	}
	n := 0
	for _, err := range s.Records(ctx, 0, 700) {
		must(t, err)
		if n++; n%100 == 0 {
			grow()
		}
	}
	equal(t, n, 700)
	for item, err := range s.Scan(ctx, "", "") {
		must(t, err)
		if _, err := s.Get(ctx, item.Key); err != nil {
			t.Fatal(err)
		}
		if grow(); size > 720 {
			break
		}
	}
	must(t, s.Close())
}

// Index tests a ledger.Index; see Store.
func Index(t *testing.T, create func(t *testing.T) (open func(t *testing.T) ledger.Index)) {
	for name, test := range map[string]func(*testing.T, func(*testing.T) ledger.Index){
		"Mark":   testMark,
		"Search": testSearch,
		"Remove": testRemove,
	} {
		t.Run(name, func(t *testing.T) { test(t, create(t)) })
	}
}

func testMark(t *testing.T, open func(*testing.T) ledger.Index) {
	ctx := t.Context()
	x := open(t)
	mark, err := x.Mark(ctx)
	must(t, err)
	equal(t, mark, ledger.Mark{})
	want := ledger.Mark{Size: 7, Leaf: []byte("leaf")}
	must(t, x.Add(ctx, want, []ledger.Posting{{Term: "a", Entry: 6}}))
	must(t, x.Close())
	x = open(t)
	mark, err = x.Mark(ctx)
	must(t, err)
	equal(t, mark, want)
	must(t, x.Reset(ctx))
	mark, err = x.Mark(ctx)
	must(t, err)
	equal(t, mark, ledger.Mark{})
	n, err := x.Count(ctx)
	must(t, err)
	equal(t, n, uint64(0))
	must(t, x.Close())
}

func testSearch(t *testing.T, open func(*testing.T) ledger.Index) {
	ctx := t.Context()
	x := open(t)
	// Terms that are prefixes of each other, and one that nothing has.
	const entries = 300
	divisors := map[string]uint64{"a": 1, "a\x01": 2, "aa": 3, "b": 5, "\xff": 7, "aab": 97}
	var postings []ledger.Posting
	for term, d := range divisors {
		for i := uint64(0); i < entries; i += d {
			postings = append(postings, ledger.Posting{Term: term, Entry: i})
		}
	}
	slices.SortFunc(postings, func(a, b ledger.Posting) int {
		if c := strings.Compare(a.Term, b.Term); c != 0 {
			return c
		}
		return int(a.Entry) - int(b.Entry)
	})
	for half := range slices.Chunk(postings, len(postings)/2+1) {
		must(t, x.Add(ctx, ledger.Mark{Size: entries}, half))
	}
	must(t, x.Add(ctx, ledger.Mark{Size: entries}, postings[:10])) // again, which changes nothing
	n, err := x.Count(ctx)
	must(t, err)
	equal(t, n, uint64(len(postings)))

	for _, terms := range [][]string{
		{"a"},
		{"aa"},
		{"\xff"},
		{"none"},
		{"aa", "b"},
		{"b", "aa", "\xff"},
		{"a", "none"},
		{"a\x01", "aa", "b", "\xff"},
		{"aab", "a"},
		{"aab", "b"},
	} {
		for _, c := range []struct {
			from, before uint64
			limit        int
		}{{0, entries, 1000}, {0, math.MaxUint64, 5}, {100, 200, 1000}, {0, 1, 3}, {0, 0, 3}, {30, 31, 1}, {299, 300, 9}} {
			var want []uint64
			for i := min(c.before, entries); i > c.from && len(want) < c.limit; i-- {
				has := true
				for _, term := range terms {
					d, ok := divisors[term]
					has = has && ok && (i-1)%d == 0
				}
				if has {
					want = append(want, i-1)
				}
			}
			got, err := x.Search(ctx, terms, c.from, c.before, c.limit)
			must(t, err)
			equal(t, got, want)
		}
	}
	must(t, x.Close())
}

func testRemove(t *testing.T, open func(*testing.T) ledger.Index) {
	ctx := t.Context()
	x := open(t)
	mark := ledger.Mark{Size: 3, Leaf: []byte("l")}
	must(t, x.Add(ctx, mark, []ledger.Posting{{Term: "a", Entry: 0}, {Term: "a", Entry: 1}, {Term: "b", Entry: 1}}))
	must(t, x.Remove(ctx, []ledger.Posting{{Term: "a", Entry: 1}, {Term: "c", Entry: 9}}))
	for term, want := range map[string][]uint64{"a": {0}, "b": {1}, "c": nil} {
		got, err := x.Search(ctx, []string{term}, 0, 10, 10)
		must(t, err)
		equal(t, got, want)
	}
	got, err := x.Mark(ctx)
	must(t, err)
	equal(t, got, mark)
	must(t, x.Close())
}
