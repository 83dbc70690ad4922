package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/ledger"
)

// model is what a ledger is, in the simplest terms.
type model struct {
	appended []ledger.Appended
	payloads []string
	state    map[string]ledger.Item
	signed   []ledger.Checkpoint
}

// apply does what script does, and reports whether the entry is accepted.
func (m *model) apply(payload string, expect []ledger.Version) error {
	for _, e := range expect {
		if m.state[e.Key].Version != e.Version {
			return ledger.ErrConflict
		}
	}
	next := maps.Clone(m.state)
	for line := range strings.Lines(payload) {
		f := strings.Fields(line)
		put := func(key, value string) {
			next[key] = ledger.Item{Key: key, Value: []byte(value), Version: uint64(len(m.appended)) + 1}
		}
		switch f[0] {
		case "put":
			put(f[1], f[2])
		case "del":
			delete(next, f[1])
		case "count":
			n := 0
			for key := range next {
				if strings.HasPrefix(key, f[1]) {
					n++
				}
			}
			put(f[2], fmt.Sprint(n))
		case "need":
			if _, ok := next[f[1]]; !ok {
				return errRefused
			}
		case "refuse":
			return errRefused
		}
	}
	m.state = next
	return nil
}

// TestModel does random things to a ledger and to a model of it, and compares all that can be seen.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t)
			l := w.open()
			m := &model{state: map[string]ledger.Item{}}
			key := func() string { return fmt.Sprintf("%c%c", 'a'+r.IntN(3), 'a'+r.IntN(6)) }
			for range 600 {
				switch r.IntN(20) {
				case 0:
					must(t, w.close())
					if r.IntN(3) == 0 {
						must(t, os.Remove(w.path("index.db")))
					}
					l = w.open()
				case 1:
					m.checkpoint(t, l, w, r)
				case 2:
					m.compare(t, l, r)
				default:
					m.append(t, l, r, key)
				}
			}
			m.compare(t, l, r)
			must(t, w.close())
			if report := w.verify(); report.Size != uint64(len(m.appended)) || report.StateKeys != uint64(len(m.state)) {
				t.Errorf("got %+v, want %d entries and %d items", report, len(m.appended), len(m.state))
			}
		})
	}
}

func (m *model) append(t *testing.T, l *ledger.Log, r *rand.Rand, key func() string) {
	t.Helper()
	var lines []string
	for range 1 + r.IntN(5) {
		lines = append(lines, []string{
			"put " + key() + fmt.Sprint(" v", r.IntN(100)), "put " + key() + " x", "del " + key(), "need " + key(),
			"count a " + key(), "count b n", "term " + key(), "refuse",
		}[r.IntN(7+r.IntN(2))])
	}
	e := ledger.Entry{KeyID: fmt.Sprint("k", r.IntN(4)), Payload: []byte(strings.Join(lines, "\n"))}
	for range r.IntN(2) {
		v := ledger.Version{Key: key()}
		if v.Version = m.state[v.Key].Version; r.IntN(4) == 0 {
			v.Version = r.Uint64N(uint64(len(m.appended)) + 2)
		}
		e.Expect = append(e.Expect, v)
	}
	want := m.apply(string(e.Payload), e.Expect)
	a, err := l.Append(t.Context(), e)
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Fatalf("%q: got error %v, want %v", e.Payload, err, want)
	}
	if err != nil {
		return
	}
	if a.Index != uint64(len(m.appended)) {
		t.Fatalf("got index %d, want %d", a.Index, len(m.appended))
	}
	m.appended, m.payloads = append(m.appended, a), append(m.payloads, string(e.Payload))
}

func (m *model) checkpoint(t *testing.T, l *ledger.Log, w *world, r *rand.Rand) {
	t.Helper()
	at := r.Uint64N(l.Size() + 1)
	raw, err := l.Checkpoint(t.Context(), at)
	must(t, err)
	c, err := ledger.ParseCheckpoint(raw, w.verifier)
	must(t, err)
	if c.Size < at || c.Size > l.Size() {
		t.Fatalf("got a checkpoint of %d, asked for %d of %d", c.Size, at, l.Size())
	}
	m.signed = append(m.signed, c)
	// It is consistent with every one before it.
	for _, old := range m.signed {
		if old.Size == 0 || old.Size > c.Size {
			continue
		}
		p, err := l.ConsistencyProof(t.Context(), old.Size, c.Size)
		must(t, err)
		must(t, tlog.CheckTree(p, int64(c.Size), c.Root, int64(old.Size), old.Root))
	}
	if c.Size > 0 {
		i := r.Uint64N(c.Size)
		p, err := l.InclusionProof(t.Context(), i, c.Size)
		must(t, err)
		must(t, tlog.CheckRecord(p, int64(c.Size), c.Root, int64(i), tlog.RecordHash(m.appended[i].Leaf)))
	}
}

func (m *model) compare(t *testing.T, l *ledger.Log, r *rand.Rand) {
	t.Helper()
	if l.Size() != uint64(len(m.appended)) {
		t.Fatalf("got %d entries, want %d", l.Size(), len(m.appended))
	}
	for range min(20, len(m.appended)) {
		i := r.IntN(len(m.appended))
		o, err := l.Record(t.Context(), uint64(i))
		must(t, err)
		if want := m.appended[i]; string(o.Payload) != m.payloads[i] || !bytes.Equal(o.Leaf, want.Leaf) ||
			!bytes.Equal(o.Salt, want.Salt) || !o.Time.Equal(want.Time) {
			t.Fatalf("entry %d: got %+v, want %+v of %q", i, o, want, m.payloads[i])
		}
	}
	items, err := l.Scan(t.Context(), "", "", 1000)
	must(t, err)
	keys := slices.Sorted(maps.Keys(m.state))
	if len(items) != len(keys) {
		t.Fatalf("got %d items, want %d", len(items), len(keys))
	}
	for i, key := range keys {
		want := m.state[key]
		value, version, ok, err := l.Get(t.Context(), key)
		must(t, err)
		if !ok || version != want.Version || !bytes.Equal(value, want.Value) ||
			items[i].Key != key || items[i].Version != version || !bytes.Equal(items[i].Value, value) {
			t.Fatalf("item %q: got %q of version %d, and %+v, want %+v", key, value, version, items[i], want)
		}
	}
}
