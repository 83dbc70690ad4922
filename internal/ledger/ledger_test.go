package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/ledger"
)

func TestAppendAndRecord(t *testing.T) {
	w := newWorld(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	w.now = func() time.Time { return at }
	l := w.open()
	e := entry("put a 1\nterm x")
	a := appendTo(t, l, e)
	if a.Index != 0 || !a.Time.Equal(at) || len(a.Salt) != ledger.SaltSize {
		t.Errorf("got %+v", a)
	}
	// The leaf, byte by byte, as the package documentation has it.
	commitment := sha256.Sum256(slices.Concat(a.Salt, e.Payload))
	nanos := uint64(at.UnixNano())
	want := []byte{1}
	for shift := 56; shift >= 0; shift -= 8 {
		want = append(want, byte(nanos>>shift))
	}
	if want = append(want, commitment[:]...); !bytes.Equal(a.Leaf, want) {
		t.Errorf("got leaf %x, want %x", a.Leaf, want)
	}
	if when, c, err := ledger.ParseLeaf(a.Leaf); err != nil || !when.Equal(at) ||
		c != ledger.Commitment(a.Salt, e.Payload) {
		t.Errorf("ParseLeaf: got %v %x %v", when, c, err)
	}
	o, err := l.Record(t.Context(), 0)
	must(t, err)
	wantOpened := ledger.Opened{Time: at, KeyID: "case-1", Leaf: a.Leaf, Salt: a.Salt, Payload: e.Payload}
	if d := cmp.Diff(wantOpened, o); d != "" {
		t.Error(d)
	}
	_, err = l.Record(t.Context(), 1)
	wantErr(t, err, ledger.ErrNotFound)

	// What is on disk shows neither payload nor salt.
	must(t, w.close())
	raw, err := os.ReadFile(w.path("ledger.db"))
	must(t, err)
	if bytes.Contains(raw, e.Payload) || bytes.Contains(raw, a.Salt) || !bytes.Contains(raw, a.Leaf) {
		t.Error("payload or salt is on disk in the clear, or the leaf is not there")
	}
	// Opened again, it goes on where it was.
	l = w.open()
	if a := appendTo(t, l, entry("put b 2")); a.Index != 1 {
		t.Errorf("got index %d, want 1", a.Index)
	}
}

func TestAppendRefuses(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		entry ledger.Entry
		want  error
	}{
		"by Prepare":     {entry("nonsense"), errRefused},
		"by Fold":        {entry("put a 1\nrefuse"), errRefused},
		"no key id":      {ledger.Entry{Payload: []byte("put a 1")}, ledger.ErrInvalid},
		"long key id":    {ledger.Entry{KeyID: long(65), Payload: []byte("put a 1")}, ledger.ErrInvalid},
		"long payload":   {entry("pad %s", long(ledger.MaxPayload-3)), ledger.ErrInvalid},
		"long term":      {entry("term %s", long(256)), ledger.ErrInvalid},
		"term with NUL":  {entry("term a\x00b"), ledger.ErrInvalid},
		"long state key": {entry("put %s 1", long(1025)), ledger.ErrInvalid},
		"present, wanted": {ledger.Entry{
			KeyID: "k", Payload: []byte("put a 1"), Expect: []ledger.Version{{Key: "a", Version: 1}},
		}, ledger.ErrConflict},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := l.Append(t.Context(), c.entry)
			wantErr(t, err, c.want)
		})
	}
	if l.Size() != 0 {
		t.Errorf("got %d entries, want none", l.Size())
	}
	// The largest that fits, and the smallest.
	appendTo(t, l, ledger.Entry{KeyID: long(64), Payload: fmt.Appendf(nil, "pad %s", long(ledger.MaxPayload-4))})
	appendTo(t, l, ledger.Entry{KeyID: "k"})
	for i := range l.Size() {
		_, err := l.Record(t.Context(), i)
		must(t, err)
	}
}

func TestPreconditions(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	ctx := t.Context()
	expect := func(key string, version uint64) ledger.Entry {
		e := entry("put seen yes")
		e.Expect = []ledger.Version{{Key: "other", Version: 0}, {Key: key, Version: version}}
		return e
	}
	appendTo(t, l, expect("a", 0))
	a := appendTo(t, l, entry("put a 1"))
	if _, version, ok, err := l.Get(ctx, "a"); err != nil || !ok || version != a.Index+1 {
		t.Errorf("got version %d, %v, %v, want %d", version, ok, err, a.Index+1)
	}
	_, err := l.Append(ctx, expect("a", 0))
	wantErr(t, err, ledger.ErrConflict)
	appendTo(t, l, expect("a", a.Index+1))
	b := appendTo(t, l, entry("put a 1")) // the same value is another version
	_, err = l.Append(ctx, expect("a", a.Index+1))
	wantErr(t, err, ledger.ErrConflict)
	appendTo(t, l, expect("a", b.Index+1))
	appendTo(t, l, entry("del a"))
	_, err = l.Append(ctx, expect("a", b.Index+1))
	wantErr(t, err, ledger.ErrConflict)
	appendTo(t, l, expect("a", 0))
}

// TestConflictIsVisible checks that who is told of a conflict can read what it was with, also if both were in one group.
func TestConflictIsVisible(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range 50 {
				key := fmt.Sprint("once-", i)
				_, err := l.Append(t.Context(), ledger.Entry{
					KeyID: "k", Payload: []byte("put " + key + " x"), Expect: []ledger.Version{{Key: key}},
				})
				if err != nil && !errors.Is(err, ledger.ErrConflict) {
					t.Error(err)
				}
				if _, _, ok, err := l.Get(t.Context(), key); !ok || err != nil {
					t.Errorf("%s: not there after Append: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	if l.Size() != 50 {
		t.Errorf("got %d entries, want 50", l.Size())
	}
}

// TestRevocation races many uses of a grant with its revocation: none may be ordered after it.
func TestRevocation(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	const rounds, users = 20, 16
	for round := range rounds {
		grant := fmt.Sprint("grant-", round)
		g := appendTo(t, l, entry("put %s open", grant))
		var last, revoked atomic.Uint64
		var started, wg sync.WaitGroup
		started.Add(users)
		for range users {
			wg.Go(func() {
				for i := 0; ; i++ {
					e := entry("term use-%s", grant)
					e.Expect = []ledger.Version{{Key: grant, Version: g.Index + 1}}
					a, err := l.Append(t.Context(), e)
					if i == 0 {
						started.Done()
					}
					if errors.Is(err, ledger.ErrConflict) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					for old := last.Load(); a.Index > old; old = last.Load() {
						if last.CompareAndSwap(old, a.Index) {
							break
						}
					}
				}
			})
		}
		started.Wait()
		revoked.Store(appendTo(t, l, entry("del %s", grant)).Index)
		wg.Wait()
		if last.Load() > revoked.Load() {
			t.Fatalf("a use is entry %d, after the revocation, %d", last.Load(), revoked.Load())
		}
	}
}

// TestFoldSeesEarlierEntries checks that an entry sees those before it in its group, and not those that were refused.
func TestFoldSeesEarlierEntries(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			_, err := l.Append(t.Context(), entry("put item/%03d x\ncount item/ n/%03d", i, i))
			if err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			_, err := l.Append(t.Context(), entry("put item/refused-%d x\nneed nothing", i))
			if !errors.Is(err, errRefused) {
				t.Errorf("got error %v, want %v", err, errRefused)
			}
		})
	}
	wg.Wait()
	counts, err := l.Scan(t.Context(), "n/", "", 1000)
	must(t, err)
	sort.Slice(counts, func(i, j int) bool { return counts[i].Version < counts[j].Version })
	for i, c := range counts {
		if got, want := string(c.Value), fmt.Sprint(i+1); got != want {
			t.Errorf("entry %d counted %s items, want %s", c.Version-1, got, want)
		}
	}
	if len(counts) != 100 {
		t.Errorf("got %d counts, want 100", len(counts))
	}
}

func TestProofs(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	ctx := t.Context()
	const size = 1100 // several tiles, and a level above them
	fill(t, l, size)
	var leaves []tlog.Hash
	reference := map[int64]tlog.Hash{} // all hashes, by stored index
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = reference[x]
		}
		return out, nil
	})
	for i := range uint64(size) {
		o, err := l.Record(ctx, i)
		must(t, err)
		leaves = append(leaves, tlog.RecordHash(o.Leaf))
		hashes, err := tlog.StoredHashesForRecordHash(int64(i), leaves[i], reader)
		must(t, err)
		for j, h := range hashes {
			reference[tlog.StoredHashIndex(0, int64(i))+int64(j)] = h
		}
	}
	root := func(n uint64) tlog.Hash {
		h, err := tlog.TreeHash(int64(n), reader)
		must(t, err)
		return h
	}
	sizes := []uint64{1, 2, 3, 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, size}
	for range 40 {
		sizes = append(sizes, 1+rand.Uint64N(size))
	}
	for _, n := range sizes {
		i := rand.Uint64N(n)
		p, err := l.InclusionProof(ctx, i, n)
		must(t, err)
		if err := tlog.CheckRecord(p, int64(n), root(n), int64(i), leaves[i]); err != nil {
			t.Errorf("entry %d in %d: %v", i, n, err)
		}
		if len(p) > 0 {
			p[rand.IntN(len(p))][rand.IntN(32)] ^= 1
			if err := tlog.CheckRecord(p, int64(n), root(n), int64(i), leaves[i]); err == nil {
				t.Errorf("entry %d in %d: spoiled proof holds", i, n)
			}
		}
		old := 1 + rand.Uint64N(n)
		c, err := l.ConsistencyProof(ctx, old, n)
		must(t, err)
		if err := tlog.CheckTree(c, int64(n), root(n), int64(old), root(old)); err != nil {
			t.Errorf("%d in %d: %v", old, n, err)
		}
	}
	for _, tile := range tlog.NewTiles(8, 0, size) {
		got, err := l.Tile(ctx, uint64(tile.L), uint64(tile.N))
		must(t, err)
		want, err := tlog.ReadTileData(tile, reader)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what it must be", tile.Path())
		}
	}
	if p, err := l.ConsistencyProof(ctx, 0, size); err != nil || len(p) != 0 {
		t.Errorf("from the empty tree: got %v, %v", p, err)
	}
	for _, c := range [][2]uint64{{5, 5}, {6, 5}, {0, size + 1}, {1 << 63, 1<<63 + 1}} {
		_, err := l.InclusionProof(ctx, c[0], c[1])
		wantErr(t, err, ledger.ErrNotFound)
	}
	for _, c := range [][2]uint64{{6, 5}, {0, size + 1}} {
		_, err := l.ConsistencyProof(ctx, c[0], c[1])
		wantErr(t, err, ledger.ErrNotFound)
	}
	for _, c := range [][2]uint64{{0, 5}, {2, 0}, {300, 0}} {
		_, err := l.Tile(ctx, c[0], c[1])
		wantErr(t, err, ledger.ErrNotFound)
	}
}

// TestTime lets the clock jump: along the log, time never goes back.
func TestTime(t *testing.T) {
	w := newWorld(t)
	base := time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	w.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return base.Add(time.Duration(rand.IntN(7200)-3600) * time.Second)
	}
	var last time.Time
	for range 3 {
		l := w.open()
		for range 50 {
			a := appendTo(t, l, entry("put a 1"))
			if a.Time.Before(last) {
				t.Fatalf("entry %d is of %v, the one before it of %v", a.Index, a.Time, last)
			}
			last = a.Time
		}
		must(t, w.close())
	}
	base = time.Time{} // a clock that was reset
	l := w.open()
	if a := appendTo(t, l, entry("put a 1")); !a.Time.Equal(last) {
		t.Errorf("got %v, want %v", a.Time, last)
	}
}

func TestOverload(t *testing.T) {
	w := newWorld(t)
	must(t, w.tryOpen()) // nobody commits
	l := w.log
	const queue = 4096
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var overloaded, cancelled atomic.Int64
	var wg sync.WaitGroup
	for range queue + 100 {
		wg.Go(func() {
			_, err := l.Append(ctx, entry("put a 1"))
			switch {
			case errors.Is(err, ledger.ErrOverloaded):
				if overloaded.Add(1) == 100 {
					cancel() // all others wait by now, or will find ctx done
				}
			case errors.Is(err, context.Canceled):
				cancelled.Add(1)
			default:
				t.Errorf("got error %v", err)
			}
		})
	}
	wg.Wait()
	if overloaded.Load() != 100 || cancelled.Load() != queue {
		t.Errorf("%d overloaded, %d cancelled", overloaded.Load(), cancelled.Load())
	}
	// Entries that nobody waits for any more are not written once the log runs.
	run, stop := context.WithCancel(t.Context())
	stop()
	must(t, l.Run(run))
	if l.Size() != 0 {
		t.Errorf("got %d entries, want none", l.Size())
	}
}

// TestStop stops the log under load. Everyone gets an answer, and who was told of success finds his entry.
func TestStop(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	var mu sync.Mutex
	var acked []ledger.Appended
	var wg sync.WaitGroup
	running := make(chan struct{}, 1)
	for range 64 {
		wg.Go(func() {
			for {
				a, err := l.Append(context.Background(), entry("put a 1"))
				if errors.Is(err, ledger.ErrStopped) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked = append(acked, a)
				mu.Unlock()
				select {
				case running <- struct{}{}:
				default:
				}
			}
		})
	}
	<-running
	must(t, w.close())
	wg.Wait()
	if err := l.Run(t.Context()); !errors.Is(err, ledger.ErrStopped) {
		t.Errorf("second Run: got %v", err)
	}
	l = w.open()
	for _, a := range acked {
		o, err := l.Record(t.Context(), a.Index)
		must(t, err)
		if !bytes.Equal(o.Leaf, a.Leaf) {
			t.Errorf("entry %d is another", a.Index)
		}
	}
	if uint64(len(acked)) != l.Size() {
		t.Errorf("%d acknowledged, %d in the log", len(acked), l.Size())
	}
	// The last act of Run was a checkpoint of it all.
	c, err := l.Checkpoint(t.Context(), 0)
	must(t, err)
	if got, err := ledger.ParseCheckpoint(c, w.verifier); err != nil || got.Size != l.Size() {
		t.Errorf("got checkpoint of %d, %v, want %d", got.Size, err, l.Size())
	}
}

func TestErasure(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	ctx := t.Context()
	var indexes []uint64
	for i := range 10 {
		e := entry("put c%d/%d x\nterm case-%d\nterm all", i%2, i, i%2)
		e.KeyID = fmt.Sprint("case-", i%2)
		if a := appendTo(t, l, e); i%2 == 1 {
			indexes = append(indexes, a.Index)
		}
	}
	before, err := l.InclusionProof(ctx, indexes[0], 10)
	must(t, err)
	// Erasing: an entry that undoes what the case put, the index, the key.
	erase := "term erasure"
	for i := 1; i < 10; i += 2 {
		erase += fmt.Sprintf("\ndel c1/%d", i)
	}
	appendTo(t, l, ledger.Entry{KeyID: "2026-03", Payload: []byte(erase)})
	must(t, l.Forget(ctx, indexes...))
	w.keys.destroy("case-1")

	o, err := l.Record(ctx, indexes[0])
	wantErr(t, err, ledger.ErrErased)
	if o.KeyID != "case-1" || o.Payload != nil || len(o.Leaf) != ledger.LeafSize {
		t.Errorf("got %+v", o)
	}
	after, err := l.InclusionProof(ctx, indexes[0], 10)
	must(t, err)
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("the proof has changed: %s", d)
	}
	check := func() {
		t.Helper()
		for term, want := range map[string][]uint64{
			"case-1": nil, "case-0": {8, 6, 4, 2, 0}, "all": {8, 6, 4, 2, 0}, "erasure": {10},
		} {
			got, _, err := l.Search(ctx, ledger.Query{Terms: []string{term}})
			must(t, err)
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", term, got, want)
			}
		}
	}
	check()
	must(t, w.close())
	if r := w.verify(); r.Erased["case-1"] != 5 || len(r.Erased) != 1 || r.Size != 11 || r.StateKeys != 5 {
		t.Errorf("got %+v", r)
	}
	// An index that is built again does not bring them back.
	must(t, os.Remove(w.path("index.db")))
	l = w.open()
	check()
}

// TestErasureOfStateIsChecked destroys a key without undoing what its entries put.
func TestErasureOfStateIsChecked(t *testing.T) {
	w := newWorld(t)
	w.spoiled = true
	l := w.open()
	appendTo(t, l, entry("put a 1"))
	must(t, w.close())
	w.keys.destroy("case-1")
	_, err := w.tryVerify()
	wantErr(t, err, ledger.ErrCorrupt)
}

func TestScan(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	for i := range 25 {
		appendTo(t, l, entry("put p/%02d x", i))
	}
	appendTo(t, l, entry("put q x"))
	var got []string
	for after := ""; ; {
		page, err := l.Scan(t.Context(), "p/", after, 10)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, item := range page {
			got = append(got, item.Key)
		}
		after = page[len(page)-1].Key
	}
	if len(got) != 25 || got[0] != "p/00" || got[24] != "p/24" || !slices.IsSorted(got) {
		t.Errorf("got %v", got)
	}
	if page, err := l.Scan(t.Context(), "", "", 0); err != nil || len(page) != 0 {
		t.Errorf("limit 0: got %v, %v", page, err)
	}
}

func TestConfig(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	w.openFiles()
	other.openFiles()
	for name, spoil := range map[string]func(c *ledger.Config){
		"no store":    func(c *ledger.Config) { c.Store = nil },
		"no guard":    func(c *ledger.Config) { c.Guard = nil },
		"no signer":   func(c *ledger.Config) { c.Signer = nil },
		"other key":   func(c *ledger.Config) { c.Verifier = other.verifier },
		"no folder":   func(c *ledger.Config) { c.Folder = nil },
		"no index":    func(c *ledger.Config) { c.Index = nil },
		"no sealer":   func(c *ledger.Config) { c.Sealer = nil },
		"no verifier": func(c *ledger.Config) { c.Verifier = nil },
	} {
		c := w.config()
		spoil(&c)
		if _, err := ledger.Open(t.Context(), c); !errors.Is(err, ledger.ErrInvalid) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	w.closeFiles()
	other.closeFiles()
}
