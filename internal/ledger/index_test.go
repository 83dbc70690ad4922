package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"sluis/internal/ledger"
)

// searchModel is what Search must find, by brute force.
type searchModel struct {
	times []time.Time
	terms []map[string]bool
}

func (m *searchModel) search(q ledger.Query) (found []uint64, next uint64) {
	limit := min(max(q.Limit, 0), 1000)
	if limit == 0 {
		limit = 100
	}
	for i, has := range slices.Backward(m.terms) {
		ok := (q.Before == 0 || uint64(i) < q.Before) && (q.From.IsZero() || !m.times[i].Before(q.From)) &&
			(q.Until.IsZero() || m.times[i].Before(q.Until))
		for _, term := range q.Terms {
			ok = ok && has[term]
		}
		if !ok {
			continue
		}
		if len(found) == limit {
			return found, found[limit-1]
		}
		found = append(found, uint64(i))
	}
	return found, 0
}

// TestSearch compares with brute force, while the index is anywhere between empty and complete: it is lost, fails, and
// follows a log that grows.
func TestSearch(t *testing.T) {
	w := newWorld(t)
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	at := base
	w.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return at
	}
	m := &searchModel{}
	l := w.open()
	check := func() {
		t.Helper()
		q := ledger.Query{Limit: []int{0, 1, 3, 50, 5000}[rand.IntN(5)]}
		for range rand.IntN(4) {
			q.Terms = append(q.Terms, fmt.Sprint("t", rand.IntN(6)))
		}
		n := len(m.terms)
		if rand.IntN(2) == 0 {
			q.Before = rand.Uint64N(uint64(n) + 5)
		}
		if rand.IntN(3) == 0 {
			q.From = base.Add(time.Duration(rand.IntN(n+2)) * time.Second / 2)
		}
		if rand.IntN(3) == 0 {
			q.Until = base.Add(time.Duration(rand.IntN(n+2)) * time.Second / 2)
		}
		asked := slices.Clone(q.Terms)
		got, next, err := l.Search(t.Context(), q)
		must(t, err)
		want, wantNext := m.search(q)
		if !slices.Equal(got, want) || next != wantNext {
			t.Fatalf("%+v of %d entries: got %v, %d, want %v, %d", q, n, got, next, want, wantNext)
		}
		if !slices.Equal(asked, q.Terms) {
			t.Fatal("Search has changed the query")
		}
	}
	for round := range 12 {
		for range 120 {
			terms := map[string]bool{}
			payload := "pad x"
			for i := range 6 {
				if rand.IntN(i+1) == 0 {
					term := fmt.Sprint("t", i)
					payload += "\nterm " + term + "\nterm " + term // a term twice is a term
					terms[term] = true
				}
			}
			a := appendTo(t, l, entry("%s", payload))
			m.times, m.terms = append(m.times, a.Time), append(m.terms, terms)
			if rand.IntN(2) == 0 {
				mu.Lock()
				at = at.Add(time.Second)
				mu.Unlock()
			}
			check()
		}
		if round%4 == 3 {
			must(t, w.close())
			if round%8 == 7 {
				must(t, os.Remove(w.path("index.db")))
			}
			must(t, w.tryOpen()) // not running: what is not indexed stays so
			l = w.log
			for range 50 {
				check()
			}
			must(t, w.close())
			l = w.open()
		}
	}
	// Page by page, to the end.
	var all []uint64
	for q := (ledger.Query{Terms: []string{"t1"}, Limit: 7}); ; {
		page, next, err := l.Search(t.Context(), q)
		must(t, err)
		all = append(all, page...)
		if q.Before = next; next == 0 {
			break
		}
	}
	if want, _ := m.search(ledger.Query{Terms: []string{"t1"}, Limit: 1000}); !slices.Equal(all, want) {
		t.Errorf("page by page: got %v, want %v", all, want)
	}
}

// TestIndexOfAnotherLog checks that an index that does not belong to the log is built again.
func TestIndexOfAnotherLog(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	for i, l := range []*ledger.Log{w.open(), other.open()} {
		for range 3 {
			appendTo(t, l, entry("term of-log-%d", i))
		}
	}
	for _, x := range []*world{w, other} {
		until(t, "all is indexed", func() bool { m, err := x.index.Mark(t.Context()); return err == nil && m.Size == 3 })
		must(t, x.close())
	}
	raw, err := os.ReadFile(other.path("index.db"))
	must(t, err)
	must(t, os.WriteFile(w.path("index.db"), raw, 0o600))
	l := w.open()
	for term, want := range map[string]int{"of-log-0": 3, "of-log-1": 0} {
		got, _, err := l.Search(t.Context(), ledger.Query{Terms: []string{term}})
		must(t, err)
		if len(got) != want {
			t.Errorf("%s: got %v, want %d entries", term, got, want)
		}
	}
}

// TestReadsOwnWrites searches for what was just appended, from many goroutines, while the index is written.
func TestReadsOwnWrites(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	var wg sync.WaitGroup
	for writer := range 16 {
		wg.Go(func() {
			for i := range 100 {
				a, err := l.Append(t.Context(), entry("term both\nterm w%d-%d", writer, i))
				if err != nil {
					t.Error(err)
					return
				}
				got, _, err := l.Search(t.Context(), ledger.Query{Terms: []string{fmt.Sprintf("w%d-%d", writer, i), "both"}})
				if err != nil || !slices.Equal(got, []uint64{a.Index}) {
					t.Errorf("got %v, %v, want %d", got, err, a.Index)
				}
			}
		})
	}
	wg.Wait()
}

// TestLongTail lets far more entries wait for the index than are kept in memory.
func TestLongTail(t *testing.T) {
	w := newWorld(t)
	var held *stuckIndex
	w.wrapIndex = func(x ledger.Index) ledger.Index {
		held = &stuckIndex{Index: x, release: make(chan struct{})}
		return held
	}
	l := w.open()
	const entries = 40_000
	fill(t, l, entries)
	got, _, err := l.Search(t.Context(), ledger.Query{Terms: []string{"mod5-0", "mod3-0"}, Before: 10_000, Limit: 5})
	must(t, err)
	if len(got) != 5 {
		t.Errorf("got %v", got)
	}
	close(held.release)
	until(t, "all is indexed", func() bool { m, err := w.index.Mark(t.Context()); return err == nil && m.Size == entries })
	n, err := w.index.Count(t.Context())
	must(t, err)
	if n != 3*entries {
		t.Errorf("got %d postings, want %d", n, 3*entries)
	}
}
