package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"sluis/internal/ledger"
)

// value is where a value is in the store's file.
type value struct{ bucket, key string }

func (w *world) edit(name string, fn func(tx *bolt.Tx) error) {
	w.t.Helper()
	db, err := bolt.Open(w.path(name), 0o600, &bolt.Options{NoSync: true})
	must(w.t, err)
	must(w.t, db.Update(fn))
	must(w.t, db.Close())
}

// values returns all values in the store's file.
func (w *world) values() map[value][]byte {
	w.t.Helper()
	out := map[value][]byte{}
	w.edit("ledger.db", func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				out[value{string(name), string(k)}] = bytes.Clone(v)
				return nil
			})
		})
	})
	return out
}

func (w *world) set(v value, content []byte) {
	w.t.Helper()
	w.edit("ledger.db", func(tx *bolt.Tx) error { return tx.Bucket([]byte(v.bucket)).Put([]byte(v.key), content) })
}

// TestFlippedBits flips bits in every value that is stored: all of them in head and checkpoint, some in the others. None
// may go unnoticed.
func TestFlippedBits(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 270) // a full tile, a partial one, and a level above
	appendTo(t, l, ledger.Entry{KeyID: "erased", Payload: []byte("term x")})
	must(t, l.Forget(t.Context(), 270))
	w.keys.destroy("erased")
	must(t, w.close())
	w.verify()
	w.noIndex = true // faster; TestSpoiledIndex has it

	seen := map[string]int{}
	for v, good := range w.values() {
		bits := []int{rand.IntN(8 * len(good))}
		if v.key == "head" || v.key == "checkpoint" {
			bits = bits[:0]
			for i := range 8 * len(good) {
				bits = append(bits, i)
			}
		} else if v.bucket == "records" && rand.IntN(20) == 0 {
			const keyID = ledger.LeafSize + 2
			bits = append(bits, 0, 8*keyID+rand.IntN(8), 8*len(good)-1) // the version, the key id, the checksum
		}
		seen[v.bucket] += len(bits)
		for _, bit := range bits {
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			w.set(v, bad)
			if v.key == "format" {
				if err := w.tryOpenFiles(); err == nil {
					t.Errorf("bit %d of the format flipped: not noticed", bit)
				}
			} else if _, err := w.tryVerify(); !errors.Is(err, ledger.ErrCorrupt) {
				t.Errorf("%s %q: bit %d flipped: got %v", v.bucket, v.key, bit, err)
			} else if !namedIn(err, v) {
				t.Errorf("%s %q: bit %d flipped: not named in %q", v.bucket, v.key, bit, err)
			}
		}
		w.set(v, good)
	}
	for _, bucket := range []string{"meta", "records", "tiles", "state"} {
		if seen[bucket] == 0 {
			t.Errorf("no bit flipped in %s", bucket)
		}
	}
	t.Log("bits flipped:", seen)
}

// tryOpenFiles is openFiles that may fail.
func (w *world) tryOpenFiles() (err error) {
	_, err = openStore(w.path("ledger.db"))
	return err
}

// namedIn reports whether an error names a value.
func namedIn(err error, v value) bool {
	number := func(b string) (n uint64) {
		for i := range len(b) {
			n = n<<8 | uint64(b[i])
		}
		return n
	}
	what := map[string]string{
		"head": "head", "checkpoint": "checkpoint in the store",
	}[v.key]
	switch v.bucket {
	case "records":
		what = fmt.Sprintf("entry %d:", number(v.key))
		if !strings.Contains(err.Error(), what) { // if only its leaf is damaged, the tile tells
			i := number(v.key)
			what = fmt.Sprintf("tile 0/%d: hashes [%d]", i/256, i%256)
		}
	case "tiles":
		what = fmt.Sprintf("tile %d/%d:", v.key[0], number(v.key[1:]))
	case "state":
		what = "state:"
		if strings.Contains(err.Error(), "item of the state without a version") {
			return true
		}
	}
	return strings.Contains(err.Error(), what)
}

// TestCheckpointSpelling spells the signature of the stored checkpoint in another way that decodes to the same bytes, and
// adds a line that is not ours.
func TestCheckpointSpelling(t *testing.T) {
	w := newWorld(t)
	appendTo(t, w.open(), entry("put a 1"))
	must(t, w.close())
	v := value{"meta", "checkpoint"}
	good := w.values()[v]
	last := len(good) - len("=\n") - 1
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	bad := bytes.Clone(good)
	bad[last] = alphabet[strings.IndexByte(alphabet, bad[last])|1]
	for _, bad := range [][]byte{bad, append(bytes.Clone(good), "\u2014 witness.example AAAAAAAA\n"...)} {
		if _, err := ledger.ParseCheckpoint(bad, w.verifier); err != nil {
			t.Errorf("%q: for others it is a good checkpoint: %v", bad, err)
		}
		w.set(v, bad)
		_, err := w.tryVerify()
		wantErr(t, err, ledger.ErrCorrupt)
		wantErr(t, w.tryOpen(), ledger.ErrCorrupt)
	}
	w.set(v, good)
}

// TestMissingValues removes every value in turn.
func TestMissingValues(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 300)
	must(t, w.close())
	for v, good := range w.values() {
		if v.key == "format" || v.key == "checkpoint" {
			continue // the one makes the file another, the other may be missing: the guard has it first
		}
		w.edit("ledger.db", func(tx *bolt.Tx) error { return tx.Bucket([]byte(v.bucket)).Delete([]byte(v.key)) })
		if _, err := w.tryVerify(); !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("%s %q removed: got %v", v.bucket, v.key, err)
		}
		w.set(v, good)
	}
}

// TestForeignValues adds what should not be there.
func TestForeignValues(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 10)
	must(t, w.close())
	all := w.values()
	record := all[value{"records", "\x00\x00\x00\x00\x00\x00\x00\x05"}]
	for name, v := range map[string]value{
		"a record after the last":  {"records", "\x00\x00\x00\x00\x00\x00\x00\x0a"},
		"a record much further on": {"records", "\x00\x00\x00\x00\x00\x01\x00\x0a"},
		"an item of state":         {"state", "k"},
	} {
		w.set(v, record)
		if _, err := w.tryVerify(); !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
		w.edit("ledger.db", func(tx *bolt.Tx) error { return tx.Bucket([]byte(v.bucket)).Delete([]byte(v.key)) })
	}
	t.Run("records exchanged", func(t *testing.T) {
		a, b := value{"records", "\x00\x00\x00\x00\x00\x00\x00\x05"}, value{"records", "\x00\x00\x00\x00\x00\x00\x00\x06"}
		w.set(a, all[b])
		w.set(b, all[a])
		_, err := w.tryVerify()
		wantErr(t, err, ledger.ErrCorrupt)
		wantErr(t, w.tryOpen(), ledger.ErrCorrupt)
		w.set(a, all[a])
		w.set(b, all[b])
	})
}

// TestSpoiledIndex changes postings.
func TestSpoiledIndex(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 100)
	until(t, "all is indexed", func() bool { m, err := w.index.Mark(t.Context()); return err == nil && m.Size == 100 })
	must(t, w.close())
	posting := []byte("all\x00\x00\x00\x00\x00\x00\x00\x00\x07")
	mark := []byte("mark")
	for name, spoil := range map[string]func(postings, meta *bolt.Bucket) error{
		"posting removed": func(p, _ *bolt.Bucket) error { return p.Delete(posting) },
		"key damaged":     func(p, _ *bolt.Bucket) error { return p.Put(append(posting, 0), nil) },
		"posting added":   func(p, _ *bolt.Bucket) error { return p.Put(append([]byte("sm"), posting...), nil) },
		"posting moved": func(p, _ *bolt.Bucket) error {
			return errors.Join(p.Delete(posting), p.Put(bytes.ToUpper(posting), nil))
		},
		"mark too far": func(_, m *bolt.Bucket) error {
			return m.Put(mark, append([]byte{0, 0, 0, 0, 0, 0, 0, 101}, m.Get(mark)[8:]...))
		},
		"mark of another log": func(_, m *bolt.Bucket) error {
			return m.Put(mark, append(m.Get(mark)[:8:8], make([]byte, ledger.LeafSize)...))
		},
	} {
		good, err := os.ReadFile(w.path("index.db"))
		must(t, err)
		w.edit("index.db", func(tx *bolt.Tx) error { return spoil(tx.Bucket([]byte("postings")), tx.Bucket([]byte("meta"))) })
		if _, err := w.tryVerify(); !errors.Is(err, ledger.ErrCorrupt) || !strings.Contains(err.Error(), "index:") {
			t.Errorf("%s: got %v", name, err)
		}
		must(t, os.WriteFile(w.path("index.db"), good, 0o600))
	}
}

func (w *world) copyTo(name string) {
	w.t.Helper()
	raw, err := os.ReadFile(w.path("ledger.db"))
	must(w.t, err)
	must(w.t, os.WriteFile(w.path(name), raw, 0o600))
}

func (w *world) restore(name string) {
	w.t.Helper()
	must(w.t, os.Rename(w.path(name), w.path("ledger.db")))
}

// TestRollback puts an older copy of the store back.
func TestRollback(t *testing.T) {
	for name, guard := range map[string]func(w *world) ledger.Guard{
		"memory": func(*world) ledger.Guard { return &memoryGuard{} },
		"file":   func(w *world) ledger.Guard { return ledger.NewFileGuard(w.path("guard")) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.spoiled = true
			w.guard = guard(w)
			l := w.open()
			fill(t, l, 300)
			must(t, w.close())
			w.copyTo("old")
			l = w.open()
			appendTo(t, l, entry("put a 1"))
			must(t, w.close())
			w.restore("old")
			wantErr(t, w.tryOpen(), ledger.ErrRollback)
			_, err := w.tryVerify()
			wantErr(t, err, ledger.ErrRollback)
		})
	}
}

// TestFork gives the same start two different ends.
func TestFork(t *testing.T) {
	w := newWorld(t)
	w.spoiled = true
	l := w.open()
	fill(t, l, 300)
	must(t, w.close())
	w.copyTo("start")
	l = w.open()
	appendTo(t, l, entry("put a 1"))
	must(t, w.close())
	guarded := w.guard
	w.restore("start")
	w.guard = &memoryGuard{}
	c, err := guarded.Load(t.Context())
	must(t, err)
	// A guard that is wound back with the store sees nothing wrong...
	for v, raw := range w.values() {
		if v.key == "checkpoint" {
			w.guard.(*memoryGuard).set(raw)
		}
	}
	for n := range 3 { // ...so the other end can be of the same size, or larger
		l = w.open()
		appendTo(t, l, entry("put a 2"))
		must(t, w.close())
		w.verify()
		forked := w.guard
		w.guard = &memoryGuard{value: c}
		wantErr(t, w.tryOpen(), ledger.ErrFork)
		_, err := w.tryVerify()
		wantErr(t, err, ledger.ErrFork)
		w.guard = forked
		_ = n
	}
}

// TestTwoLogsOneGuard runs two copies of a log at once: the guard lets one of them go on.
func TestTwoLogsOneGuard(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 20)
	must(t, w.close())
	other := newWorld(t)
	other.spoiled = true
	other.keys, other.guard, other.signer, other.verifier = w.keys, w.guard, w.signer, w.verifier
	w.copyTo("copy")
	must(t, os.Rename(w.path("copy"), filepath.Join(other.dir, "ledger.db")))
	l, o := w.open(), other.open()
	for range 2 {
		appendTo(t, o, entry("put a 2"))
	}
	a := appendTo(t, l, entry("put a 1"))
	if _, err := l.Checkpoint(t.Context(), a.Index+1); err != nil {
		t.Fatal(err)
	}
	_, err := o.Checkpoint(t.Context(), o.Size())
	wantErr(t, err, ledger.ErrFork)
	wantErr(t, err, ledger.ErrPoisoned)
	_, err = o.Append(t.Context(), entry("put a 3"))
	wantErr(t, err, ledger.ErrPoisoned)
	wantErr(t, other.close(), ledger.ErrPoisoned)
}

// TestDamageAtOpen checks that damage at the end of the log keeps it from opening.
func TestDamageAtOpen(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 300)
	must(t, w.close())
	for v, good := range w.values() {
		if v.bucket == "state" || v.key == "format" || v.bucket == "records" && rand.IntN(10) > 0 {
			continue // the state is checked by Verify only
		}
		for at := range good {
			if v.key != "head" && rand.IntN(len(good)) > 0 {
				continue // of the head each byte, of others about one
			}
			bad := bytes.Clone(good)
			bad[at] ^= 1 << rand.IntN(8)
			w.set(v, bad)
			if err := w.tryOpen(); !errors.Is(err, ledger.ErrCorrupt) {
				t.Errorf("%s %q, byte %d: got %v", v.bucket, v.key, at, err)
			}
		}
		w.set(v, good)
	}
}

// TestDamageOnRead checks that a running log does not serve damaged entries and proofs.
func TestDamageOnRead(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 1600) // more than is checked at Open
	must(t, w.close())
	record := value{"records", "\x00\x00\x00\x00\x00\x00\x00\x05"}
	tile := value{"tiles", "\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	good := w.values()
	for _, at := range []int{3, 20, len(good[record]) - 20} {
		bad := bytes.Clone(good[record])
		bad[at] ^= 1
		w.set(record, bad)
		l = w.open()
		_, err := l.Record(t.Context(), 5)
		wantErr(t, err, ledger.ErrCorrupt)
		must(t, w.close())
	}
	w.set(record, good[record])
	bad := bytes.Clone(good[tile])
	bad[5*32] ^= 1
	w.set(tile, bad)
	l = w.open()
	_, err := l.Record(t.Context(), 5)
	wantErr(t, err, ledger.ErrCorrupt)
	_, err = l.InclusionProof(t.Context(), 9, 1600)
	wantErr(t, err, ledger.ErrCorrupt)
	must(t, w.close())
	w.set(tile, good[tile])
}

// TestTimeBack makes a log that is right in all but the order of time.
func TestTimeBack(t *testing.T) {
	w := newWorld(t)
	w.spoiled = true
	appendTo(t, w.open(), entry("put a 1"))
	must(t, w.close())
	w.now = func() time.Time { return time.Unix(1, 0) }
	must(t, w.tryOpen())
	ledger.ForgetTime(w.log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.log.Run(ctx) }()
	appendTo(t, w.log, entry("put a 2"))
	cancel()
	must(t, <-done)
	must(t, w.close())
	wantErr(t, w.tryOpen(), ledger.ErrCorrupt)
	if _, err := w.tryVerify(); !errors.Is(err, ledger.ErrCorrupt) || !strings.Contains(err.Error(), "entry 1 is older") {
		t.Errorf("got error %v", err)
	}
}

func TestRefold(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	fill(t, l, 200)
	must(t, w.close())
	w.edit("ledger.db", func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("state"))
		return errors.Join(b.Delete([]byte("k1")), b.Put([]byte("k2"), []byte("12345678wrong")),
			b.Put([]byte("zz"), []byte("12345678x")))
	})
	_, err := w.tryVerify()
	wantErr(t, err, ledger.ErrCorrupt)
	w.openFiles()
	n, err := ledger.Refold(t.Context(), w.verifyConfig())
	must(t, err)
	if n != 3 {
		t.Errorf("got %d items put right, want 3", n)
	}
	if n, err = ledger.Refold(t.Context(), w.verifyConfig()); n != 0 || err != nil {
		t.Errorf("the second time: got %d, %v", n, err)
	}
	w.closeFiles()
	w.verify()
	// A damaged log is not folded.
	record := value{"records", "\x00\x00\x00\x00\x00\x00\x00\x05"}
	good := w.values()[record]
	bad := bytes.Clone(good)
	bad[3] ^= 1
	w.set(record, bad)
	w.openFiles()
	_, err = ledger.Refold(t.Context(), w.verifyConfig())
	wantErr(t, err, ledger.ErrCorrupt)
	w.closeFiles()
	w.set(record, good)
}
