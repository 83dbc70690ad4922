package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// faulty is a Store that fails on demand.
type faulty struct {
	ledger.Store
	commit atomic.Pointer[func(ledger.Batch) error] // instead of Commit
	get    atomic.Pointer[error]
}

func (f *faulty) Commit(ctx context.Context, b ledger.Batch) error {
	if fn := f.commit.Load(); fn != nil {
		return (*fn)(b)
	}
	return f.Store.Commit(ctx, b)
}

func (f *faulty) Get(ctx context.Context, key string) (ledger.Item, error) {
	if err := f.get.Load(); err != nil {
		return ledger.Item{}, *err
	}
	return f.Store.Get(ctx, key)
}

func newFaulty(t *testing.T) (*world, *faulty) {
	w := newWorld(t)
	f := &faulty{}
	w.wrap = func(s ledger.Store) ledger.Store {
		f = &faulty{Store: s}
		return f
	}
	w.open()
	return w, f
}

var errDisk = errors.New("input/output error")

func TestCommitFailurePoisons(t *testing.T) {
	for name, written := range map[string]bool{"nothing written": false, "written after all": true} {
		t.Run(name, func(t *testing.T) {
			w, f := newFaulty(t)
			l := w.log
			ctx := t.Context()
			appendTo(t, l, entry("put a 1\nterm x"))
			must(t, l.Healthy())
			fail := func(b ledger.Batch) error {
				if written {
					must(t, f.Store.Commit(context.Background(), b))
				}
				return errDisk
			}
			f.commit.Store(&fail)
			_, err := l.Append(ctx, entry("put a 2\nterm x"))
			wantErr(t, err, ledger.ErrPoisoned)
			f.commit.Store(nil) // the disk is well again, but the log does not know what is on it
			for range 3 {
				_, err = l.Append(ctx, entry("put a 3\nterm x"))
				wantErr(t, err, ledger.ErrPoisoned)
			}
			wantErr(t, l.Healthy(), ledger.ErrPoisoned)
			_, err = l.Checkpoint(ctx, 1)
			if err != nil {
				wantErr(t, err, ledger.ErrPoisoned)
			}
			if l.Size() != 1 {
				t.Errorf("got %d entries, want 1", l.Size())
			}
			if _, err := l.Record(ctx, 0); err != nil {
				t.Errorf("reading from a poisoned log: %v", err)
			}
			wantErr(t, w.close(), ledger.ErrPoisoned)

			l = w.open()
			want := uint64(1)
			if written {
				want = 2
			}
			if l.Size() != want {
				t.Errorf("after a restart: got %d entries, want %d", l.Size(), want)
			}
			appendTo(t, l, entry("put a 4"))
		})
	}
}

// TestPoisonAnswersAll fails the commit of a group while others wait.
func TestPoisonAnswersAll(t *testing.T) {
	w, f := newFaulty(t)
	fail := func(ledger.Batch) error { return ledger.ErrConflict } // another writer of the store
	f.commit.Store(&fail)
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			_, err := w.log.Append(context.Background(), entry("put a 1"))
			if !errors.Is(err, ledger.ErrPoisoned) || errors.Is(err, ledger.ErrConflict) {
				t.Errorf("got error %v, want %v alone", err, ledger.ErrPoisoned)
			}
		})
	}
	wg.Wait()
	wantErr(t, w.close(), ledger.ErrPoisoned)
}

func TestFullPasses(t *testing.T) {
	w, f := newFaulty(t)
	l := w.log
	fail := func(ledger.Batch) error { return fmt.Errorf("%w: 1 byte left", ledger.ErrFull) }
	f.commit.Store(&fail)
	_, err := l.Append(t.Context(), entry("put a 1"))
	wantErr(t, err, ledger.ErrFull)
	wantErr(t, l.Healthy(), ledger.ErrFull)
	f.commit.Store(nil)
	if a := appendTo(t, l, entry("put a 1")); a.Index != 0 {
		t.Errorf("got index %d, want 0", a.Index)
	}
	must(t, l.Healthy())
}

// TestUnreadableState checks that an entry is refused when its fold could not read, even if the fold does not care.
func TestUnreadableState(t *testing.T) {
	w := newWorld(t)
	w.folder = careless{}
	f := &faulty{}
	w.wrap = func(s ledger.Store) ledger.Store {
		f = &faulty{Store: s}
		return f
	}
	l := w.open()
	disk := errDisk
	f.get.Store(&disk)
	_, err := l.Append(t.Context(), entry("put a 1"))
	wantErr(t, err, errDisk)
	e := entry("put a 1")
	e.Expect = []ledger.Version{{Key: "b"}}
	_, err = l.Append(t.Context(), e)
	wantErr(t, err, errDisk)
	f.get.Store(nil)
	if a := appendTo(t, l, entry("put a 1")); a.Index != 0 {
		t.Errorf("got index %d, want 0", a.Index)
	}
}

// careless is a Folder that reads and ignores the error.
type careless struct{ script }

func (c careless) Fold(st ledger.State, i uint64, at time.Time, prepared any) error {
	_, _, _, _ = st.Get("something")
	return c.script.Fold(st, i, at, prepared)
}

// childEnv makes the test binary be the process that dies. Its value is the directory of the ledger.
const childEnv, limitEnv, panicEnv = "LEDGER_TEST_CHILD", "LEDGER_TEST_FILE_LIMIT", "LEDGER_TEST_PANIC"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("end", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// childKey returns the key in dir that all lives of the child share, and makes it if need be.
func childKey(dir string) (secret, public string, err error) {
	path := filepath.Join(dir, "key")
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if secret, public, err = note.GenerateKey(rand.Reader, "ledger.example/child"); err != nil {
			return "", "", err
		}
		return secret, public, os.WriteFile(path, []byte(secret+" "+public), 0o600)
	}
	secret, public, _ = strings.Cut(string(raw), " ")
	return secret, public, err
}

// plain is a Sealer that seals nothing: what the child wrote must be readable after its death.
type plain struct{}

func (plain) Seal(_ string, p, _ []byte) ([]byte, error) { return bytes.Clone(p), nil }
func (plain) Open(_ string, c, _ []byte) ([]byte, error) { return bytes.Clone(c), nil }

func childConfig(dir string) (ledger.Config, func() error, error) {
	store, err := boltstore.Open(filepath.Join(dir, "ledger.db"), boltstore.Config{})
	if err != nil {
		return ledger.Config{}, nil, err
	}
	index, err := boltstore.OpenIndex(filepath.Join(dir, "index.db"), boltstore.Config{})
	if err != nil {
		return ledger.Config{}, nil, err
	}
	secret, public, err := childKey(dir)
	if err != nil {
		return ledger.Config{}, nil, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return ledger.Config{}, nil, err
	}
	verifier, err := note.NewVerifier(public)
	if err != nil {
		return ledger.Config{}, nil, err
	}
	return ledger.Config{
		Store: store, Index: index, Sealer: plain{}, Folder: script{}, Signer: signer, Verifier: verifier,
		Guard: ledger.NewFileGuard(filepath.Join(dir, "guard")), CheckpointInterval: 5 * time.Millisecond,
	}, func() error { return errors.Join(store.Close(), index.Close()) }, nil
}

// child appends from many goroutines until it is killed or fails, and prints every entry that it was told is durable.
func child(dir string) error {
	if limit := os.Getenv(limitEnv); limit != "" {
		var n uint64
		if _, err := fmt.Sscan(limit, &n); err != nil {
			return err
		}
		signal.Ignore(syscall.SIGXFSZ) // so that writing fails, as it does on a full disk
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	cfg, closeFiles, err := childConfig(dir)
	if err != nil {
		return err
	}
	if os.Getenv(panicEnv) != "" {
		cfg.Folder = panicky{}
	}
	l, err := ledger.Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	fmt.Println("open", l.Size())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	const writers = 32
	failed := make(chan error, writers)
	for w := range writers {
		go func() {
			for i := 0; ; i++ {
				a, err := l.Append(ctx, entry("put k%d v%d\nterm w%d\npad %s", i%10, w, w, strings.Repeat("x", 300)))
				if err != nil {
					failed <- err
					return
				}
				// One write, so that lines stay whole whenever the end comes.
				_, _ = fmt.Fprintf(os.Stdout, "ack %d %x\n", a.Index, a.Leaf)
			}
		}()
	}
	err = <-failed
	cancel()
	return errors.Join(err, <-done, closeFiles())
}

// live runs one life of the child, ended by kill if not nil, and returns what it acknowledged and its last words.
func live(t *testing.T, dir string, acked map[uint64]string, kill func(acks int) bool, env ...string) (last string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childEnv+"="+dir), env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); {
		line := lines.Text()
		var index uint64
		var leaf string
		if !strings.HasPrefix(line, "ack ") {
			last = line
			continue
		}
		if _, err := fmt.Sscanf(line, "ack %d %s", &index, &leaf); err != nil || len(leaf) != 2*ledger.LeafSize {
			t.Fatalf("acknowledged what is no entry: %q", line)
		}
		if was, ok := acked[index]; ok && was != leaf {
			t.Fatalf("entry %d was acknowledged twice, as %s and %s", index, was, leaf)
		}
		acked[index] = leaf
		if n++; kill != nil && kill(n) {
			must(t, cmd.Process.Kill())
			kill = nil
		}
	}
	_ = cmd.Wait()
	return last
}

// checkSurvivors verifies the whole log and that it holds all that was acknowledged.
func checkSurvivors(t *testing.T, dir string, acked map[uint64]string) uint64 {
	t.Helper()
	cfg, closeFiles, err := childConfig(dir)
	must(t, err)
	defer func() { must(t, closeFiles()) }()
	l, err := ledger.Open(t.Context(), cfg)
	must(t, err)
	report, err := ledger.Verify(t.Context(), ledger.VerifyConfig{
		Store: cfg.Store, Index: cfg.Index, Verifier: cfg.Verifier, Sealer: cfg.Sealer, Folder: cfg.Folder, Guard: cfg.Guard,
	})
	must(t, err)
	for index, leaf := range acked {
		o, err := l.Record(t.Context(), index)
		if err != nil || hex.EncodeToString(o.Leaf) != leaf {
			t.Fatalf("entry %d was acknowledged as %s, is %x, %v", index, leaf, o.Leaf, err)
		}
	}
	return report.Size
}

// TestKill kills the process again and again, with SIGKILL, at random moments under load. SLUIS_SOAK says for how long.
func TestKill(t *testing.T) {
	lives, deadline := 5, time.Time{}
	if soak := os.Getenv("SLUIS_SOAK"); soak != "" {
		d, err := time.ParseDuration(soak)
		must(t, err)
		deadline = time.Now().Add(d)
	}
	dir := t.TempDir()
	acked := map[uint64]string{}
	for n := 0; n < lives || time.Now().Before(deadline); n++ {
		at := 1 + mathrand.IntN(3000)
		live(t, dir, acked, func(acks int) bool { return acks == at })
		size := checkSurvivors(t, dir, acked)
		t.Logf("life %d: %d acknowledged in all, %d in the log", n, len(acked), size)
		const enough = 300_000
		if size > enough { // begin a new log: all of it is verified in each life
			dir, acked = t.TempDir(), map[uint64]string{}
		}
	}
}

// TestDiskFull lets a write in the middle of a commit fail, as on a full disk: the process poisons itself, and after that
// all that was acknowledged is there.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	acked := map[uint64]string{}
	last := live(t, dir, acked, nil, limitEnv+"=400000")
	if !strings.Contains(last, ledger.ErrPoisoned.Error()) && !strings.Contains(last, syscall.EFBIG.Error()) {
		t.Errorf("got last words %q, want that the log was poisoned", last)
	}
	checkSurvivors(t, dir, acked)
	live(t, dir, acked, func(acks int) bool { return acks == 200 }) // with room again
	if size := checkSurvivors(t, dir, acked); size == 0 {
		t.Error("nothing was appended")
	}
}

// panicky is a Folder with a bug.
type panicky struct{ script }

func (p panicky) Fold(st ledger.State, i uint64, at time.Time, prepared any) error {
	if i == 500 {
		panic("a bug")
	}
	return p.script.Fold(st, i, at, prepared)
}

// TestFoldPanics checks that those who wait for a group are not told of success when the process ends in the middle of it.
func TestFoldPanics(t *testing.T) {
	for range 3 {
		dir := t.TempDir()
		acked := map[uint64]string{}
		live(t, dir, acked, nil, panicEnv+"=yes")
		if size := checkSurvivors(t, dir, acked); size > 500 {
			t.Errorf("got %d entries, want at most 500", size)
		}
	}
}

// stuckIndex is an Index whose first Add fails, and which then waits for release.
type stuckIndex struct {
	ledger.Index
	release chan struct{}
	failed  atomic.Bool
}

func (x *stuckIndex) Add(ctx context.Context, m ledger.Mark, p []ledger.Posting) error {
	<-x.release
	if x.failed.CompareAndSwap(false, true) {
		return errDisk
	}
	return x.Index.Add(ctx, m, p)
}
