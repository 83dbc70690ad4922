package ledger_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// keyring is a Sealer in memory: one AES-256-GCM key per key id.
type keyring struct {
	mu   sync.Mutex
	keys map[string]cipher.AEAD // nil: destroyed
}

func (k *keyring) key(id string, create bool) (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	aead, ok := k.keys[id]
	switch {
	case ok && aead == nil:
		return nil, fmt.Errorf("key %q: %w", id, ledger.ErrErased)
	case ok:
		return aead, nil
	case !create:
		return nil, errors.New("no such key")
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	k.keys[id], err = cipher.NewGCMWithRandomNonce(block)
	return k.keys[id], err
}

func (k *keyring) Seal(id string, plaintext, aad []byte) ([]byte, error) {
	aead, err := k.key(id, true)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plaintext, aad), nil
}

func (k *keyring) Open(id string, ciphertext, aad []byte) ([]byte, error) {
	aead, err := k.key(id, false)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, ciphertext, aad)
}

func (k *keyring) destroy(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[id] = nil
}

var errRefused = errors.New("refused by the folder")

// script is a Folder whose payloads are small programs, one instruction a line:
//
//	put KEY VALUE | del KEY | count PREFIX KEY (puts how many) | need KEY (refuses without) | term TERM | refuse | pad TEXT
type script struct{}

func (script) Prepare(payload []byte) (any, error) {
	var out [][]string
	for line := range strings.Lines(string(payload)) {
		f := strings.Fields(line)
		args := map[string]int{"put": 3, "del": 2, "count": 3, "need": 2, "term": 2, "refuse": 1, "pad": 2}
		if len(f) == 0 || args[f[0]] != len(f) {
			return nil, errRefused
		}
		out = append(out, f)
	}
	return out, nil
}

func (script) Fold(st ledger.State, _ uint64, _ time.Time, prepared any) error {
	for _, f := range prepared.([][]string) {
		switch f[0] {
		case "put":
			st.Put(f[1], []byte(f[2]))
		case "del":
			st.Delete(f[1])
		case "count":
			n := 0
			for _, err := range st.Scan(f[1]) {
				if err != nil {
					return err
				}
				n++
			}
			st.Put(f[2], strconv.AppendInt(nil, int64(n), 10))
		case "need":
			if _, _, ok, err := st.Get(f[1]); err != nil || !ok {
				return errors.Join(errRefused, err)
			}
		case "refuse":
			return errRefused
		}
	}
	return nil
}

func (script) Terms(prepared any) []string {
	var terms []string
	for _, f := range prepared.([][]string) {
		if f[0] == "term" {
			terms = append(terms, f[1])
		}
	}
	return terms
}

// memoryGuard is a Guard in memory that can be made to fail.
type memoryGuard struct {
	mu    sync.Mutex
	value []byte
	err   error
	// deaf makes the next CompareAndSwap do its work and then fail, as when the answer is lost.
	deaf bool
}

func (g *memoryGuard) Load(context.Context) ([]byte, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bytes.Clone(g.value), nil
}

func (g *memoryGuard) CompareAndSwap(_ context.Context, old, next []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	if !bytes.Equal(g.value, old) {
		return ledger.ErrConflict
	}
	g.value = bytes.Clone(next)
	if g.deaf {
		g.deaf = false
		return errors.New("connection lost")
	}
	return nil
}

func (g *memoryGuard) set(value []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.value = value
}

func (g *memoryGuard) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

// world is a ledger with all it needs, which outlives the log: it can be closed, spoiled and opened again. When the test
// ends, all of it must verify.
type world struct {
	t         testing.TB
	dir       string
	keys      *keyring
	guard     ledger.Guard
	signer    note.Signer
	verifier  note.Verifier
	wrap      func(ledger.Store) ledger.Store // to inject faults; nil for none
	wrapIndex func(ledger.Index) ledger.Index
	now       func() time.Time
	folder    ledger.Folder
	interval  time.Duration // between checkpoints
	noIndex   bool          // do not verify the index
	spoiled   bool          // no need to verify at the end

	store ledger.Store
	index ledger.Index
	log   *ledger.Log
	stop  func() error // nil when closed
}

func newWorld(t testing.TB) *world {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "ledger.example/test")
	must(t, err)
	signer, err := note.NewSigner(secret)
	must(t, err)
	verifier, err := note.NewVerifier(public)
	must(t, err)
	w := &world{
		t: t, dir: t.TempDir(), keys: &keyring{keys: map[string]cipher.AEAD{}}, guard: &memoryGuard{},
		signer: signer, verifier: verifier, folder: script{},
	}
	t.Cleanup(func() {
		w.close()
		if !w.spoiled {
			w.verify()
		}
	})
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) openFiles() {
	w.t.Helper()
	store, err := boltstore.Open(w.path("ledger.db"), boltstore.Config{})
	must(w.t, err)
	index, err := boltstore.OpenIndex(w.path("index.db"), boltstore.Config{})
	must(w.t, err)
	w.store, w.index = store, index
	if w.wrap != nil {
		w.store = w.wrap(w.store)
	}
	if w.wrapIndex != nil {
		w.index = w.wrapIndex(w.index)
	}
}

func (w *world) closeFiles() {
	w.t.Helper()
	must(w.t, errors.Join(w.store.Close(), w.index.Close()))
}

func (w *world) config() ledger.Config {
	return ledger.Config{
		Store: w.store, Index: w.index, Sealer: w.keys, Folder: w.folder, Guard: w.guard,
		Signer: w.signer, Verifier: w.verifier, Now: w.now, CheckpointInterval: w.interval,
	}
}

// tryOpen opens the log without running it.
func (w *world) tryOpen() error {
	w.t.Helper()
	w.openFiles()
	var err error
	if w.log, err = ledger.Open(w.t.Context(), w.config()); err != nil {
		w.closeFiles()
		return err
	}
	w.stop = func() error { return nil }
	return nil
}

// open opens and runs the log.
func (w *world) open() *ledger.Log {
	w.t.Helper()
	must(w.t, w.tryOpen())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.log.Run(ctx) }()
	w.stop = func() error {
		cancel()
		return <-done
	}
	return w.log
}

// close stops the log, if it is open, and returns what Run did.
func (w *world) close() error {
	w.t.Helper()
	if w.stop == nil {
		return nil
	}
	err := w.stop()
	w.stop = nil
	w.closeFiles()
	return err
}

func (w *world) verifyConfig() ledger.VerifyConfig {
	return ledger.VerifyConfig{
		Store: w.store, Index: w.index, Verifier: w.verifier, Sealer: w.keys, Folder: w.folder, Guard: w.guard,
	}
}

// tryVerify verifies the closed log.
func (w *world) tryVerify() (ledger.Report, error) {
	w.t.Helper()
	w.openFiles()
	defer w.closeFiles()
	cfg := w.verifyConfig()
	if w.noIndex {
		cfg.Index = nil
	}
	return ledger.Verify(context.Background(), cfg)
}

func (w *world) verify() ledger.Report {
	w.t.Helper()
	report, err := w.tryVerify()
	if err != nil {
		w.t.Errorf("verify: %v", err)
	}
	return report
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func entry(format string, args ...any) ledger.Entry {
	return ledger.Entry{KeyID: "case-1", Payload: fmt.Appendf(nil, format, args...)}
}

func appendTo(t testing.TB, l *ledger.Log, e ledger.Entry) ledger.Appended {
	t.Helper()
	a, err := l.Append(t.Context(), e)
	must(t, err)
	return a
}

// fill appends n entries from several goroutines.
func fill(t testing.TB, l *ledger.Log, n int) {
	t.Helper()
	const writers = 64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				e := ledger.Entry{
					KeyID:   fmt.Sprintf("case-%d", i%7),
					Payload: fmt.Appendf(nil, "put k%d v%d\nterm all\nterm mod3-%d\nterm mod5-%d", i%50, i, i%3, i%5),
				}
				if _, err := l.Append(context.Background(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// until polls a condition that another goroutine brings about.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}
