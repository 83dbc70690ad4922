package ledger_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

func openStore(path string) (ledger.Store, error) {
	s, err := boltstore.Open(path, boltstore.Config{})
	if err != nil {
		return nil, err
	}
	return s, s.Close()
}

// countingSigner counts signatures.
type countingSigner struct {
	note.Signer
	n   atomic.Int64
	err atomic.Pointer[error]
}

func (s *countingSigner) Sign(msg []byte) ([]byte, error) {
	s.n.Add(1)
	if err := s.err.Load(); err != nil {
		return nil, *err
	}
	return s.Signer.Sign(msg)
}

func TestCheckpoint(t *testing.T) {
	w := newWorld(t)
	signer := &countingSigner{Signer: w.signer}
	w.signer, w.interval = signer, time.Hour
	must(t, w.tryOpen())
	c, err := w.log.Checkpoint(t.Context(), 0) // of the empty log
	must(t, err)
	if got, err := ledger.ParseCheckpoint(c, w.verifier); err != nil || got.Size != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	must(t, w.close())

	l := w.open()
	fill(t, l, 300)
	before := signer.n.Load()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			c, err := l.Checkpoint(t.Context(), 300)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := ledger.ParseCheckpoint(c, w.verifier)
			if err != nil || got.Size != 300 || got.Origin != "ledger.example/test" {
				t.Errorf("got %+v, %v", got, err)
			}
			head, err := w.store.Head(t.Context())
			if want := base64.StdEncoding.EncodeToString(head.Root[:]); err != nil || !strings.HasPrefix(string(c),
				"ledger.example/test\n300\n"+want+"\n\n\u2014 ledger.example/test ") {
				t.Errorf("got %q", c)
			}
		})
	}
	wg.Wait()
	if n := signer.n.Load() - before; n != 1 {
		t.Errorf("%d signatures for one size", n)
	}
	_, err = l.Checkpoint(t.Context(), 301)
	wantErr(t, err, ledger.ErrNotFound)
}

// TestCheckpointInterval waits for checkpoints that nobody asked for.
func TestCheckpointInterval(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	for n := range uint64(2) {
		appendTo(t, l, entry("put a 1"))
		until(t, "the log is signed", func() bool {
			c, err := w.store.Checkpoint(t.Context())
			must(t, err)
			if c == nil {
				return false
			}
			got, err := ledger.ParseCheckpoint(c, w.verifier)
			must(t, err)
			return got.Size == n+1
		})
	}
}

// TestGuardFails checks that no checkpoint is published that the guard does not have, and that the log recovers.
func TestGuardFails(t *testing.T) {
	w := newWorld(t)
	w.interval = time.Hour // only on demand
	guard := w.guard.(*memoryGuard)
	var clock atomic.Int64
	clock.Store(1_800_000_000)
	w.now = func() time.Time { return time.Unix(clock.Load(), 0) }
	l := w.open()
	ctx := t.Context()
	a := appendTo(t, l, entry("put a 1"))
	_, err := l.Checkpoint(ctx, a.Index+1)
	must(t, err)

	down := errors.New("guard is down")
	guard.fail(down)
	b := appendTo(t, l, entry("put a 2"))
	_, err = l.Checkpoint(ctx, b.Index+1)
	wantErr(t, err, down)
	must(t, l.Healthy())
	clock.Add(61)
	_, err = l.Checkpoint(ctx, b.Index+1)
	wantErr(t, err, down)
	wantErr(t, l.Healthy(), down)
	if c, err := l.Checkpoint(ctx, a.Index+1); err != nil || !strings.Contains(string(c), "\n1\n") {
		t.Errorf("got %q, %v", c, err)
	}

	// The guard takes the next one, but the answer is lost.
	guard.fail(nil)
	guard.mu.Lock()
	guard.deaf = true
	guard.mu.Unlock()
	_, err = l.Checkpoint(ctx, b.Index+1)
	if err == nil {
		t.Fatal("the guard was not deaf")
	}
	c, err := l.Checkpoint(ctx, b.Index+1)
	must(t, err)
	if got, err := ledger.ParseCheckpoint(c, w.verifier); err != nil || got.Size != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	must(t, l.Healthy())
}

func TestSignerFails(t *testing.T) {
	w := newWorld(t)
	w.interval = time.Hour
	signer := &countingSigner{Signer: w.signer}
	w.signer = signer
	l := w.open()
	a := appendTo(t, l, entry("put a 1"))
	down := errors.New("signer is down")
	signer.err.Store(&down)
	_, err := l.Checkpoint(t.Context(), a.Index+1)
	wantErr(t, err, down)
	appendTo(t, l, entry("put a 2")) // appending goes on
	signer.err.Store(nil)
	_, err = l.Checkpoint(t.Context(), a.Index+2)
	must(t, err)
}

// TestGuardLost checks that a log with a history does not open on an empty or foreign guard.
func TestGuardLost(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	good := w.guard
	for _, l := range []*ledger.Log{w.open(), other.open()} {
		appendTo(t, l, entry("put a 1"))
	}
	must(t, w.close())
	must(t, other.close())
	w.guard = &memoryGuard{}
	wantErr(t, w.tryOpen(), ledger.ErrRollback)
	w.guard = &memoryGuard{value: other.guard.(*memoryGuard).value}
	wantErr(t, w.tryOpen(), ledger.ErrCorrupt) // not signed by our key
	w.guard = &memoryGuard{value: []byte("rubbish")}
	wantErr(t, w.tryOpen(), ledger.ErrCorrupt)
	w.guard = good
	must(t, w.tryOpen())
}

func TestFileGuard(t *testing.T) {
	path := t.TempDir() + "/guard"
	ctx := t.Context()
	g := ledger.NewFileGuard(path)
	if v, err := g.Load(ctx); err != nil || len(v) != 0 {
		t.Errorf("got %q, %v", v, err)
	}
	wantErr(t, g.CompareAndSwap(ctx, []byte("x"), []byte("one")), ledger.ErrConflict)
	must(t, g.CompareAndSwap(ctx, nil, []byte("one")))
	wantErr(t, g.CompareAndSwap(ctx, nil, []byte("two")), ledger.ErrConflict)
	must(t, ledger.NewFileGuard(path).CompareAndSwap(ctx, []byte("one"), []byte("two")))
	if v, err := g.Load(ctx); err != nil || string(v) != "two" {
		t.Errorf("got %q, %v", v, err)
	}
	// Of many who want to count on, each number is won by one.
	must(t, g.CompareAndSwap(ctx, []byte("two"), []byte("0")))
	var won atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 {
				err := ledger.NewFileGuard(path).CompareAndSwap(ctx, fmt.Append(nil, i), fmt.Append(nil, i+1))
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, ledger.ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	v, err := g.Load(ctx)
	must(t, err)
	if string(v) != fmt.Sprint(won.Load()) || won.Load() == 0 {
		t.Errorf("got %q after %d changes", v, won.Load())
	}
	if err := ledger.NewFileGuard(t.TempDir()+"/none/guard").CompareAndSwap(ctx, nil, []byte("x")); err == nil {
		t.Error("wrote where there is no directory")
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	w := newWorld(f)
	w.spoiled = true
	sign := func(text string) []byte {
		raw, err := note.Sign(&note.Note{Text: text}, w.signer)
		if err != nil {
			return []byte(text)
		}
		return raw
	}
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	good := "ledger.example/test\n5\n" + root + "\n"
	for _, text := range []string{
		good, "", "\n", "other\n5\n" + root + "\n", "ledger.example/test\n05\n" + root + "\n",
		"ledger.example/test\n-5\n" + root + "\n", "ledger.example/test\n9223372036854775808\n" + root + "\n",
		"ledger.example/test\n5\n" + root[:42] + "B=\n", "ledger.example/test\n5\n" + root + root + "\n",
		good + "extension\n", "ledger.example/test\n5\n\n",
	} {
		f.Add([]byte(text), true)
		f.Add(sign(text), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, signIt bool) {
		if signIt {
			raw = sign(string(raw))
		}
		c, err := ledger.ParseCheckpoint(raw, w.verifier)
		if err != nil {
			wantErr(t, err, ledger.ErrCorrupt)
			return
		}
		// What is accepted is in the one form that we would write.
		want := fmt.Sprintf("%s\n%d\n%s\n\n", w.verifier.Name(), c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
		if !bytes.HasPrefix(raw, []byte(want)) {
			t.Errorf("%q was read as %+v", raw, c)
		}
	})
}
