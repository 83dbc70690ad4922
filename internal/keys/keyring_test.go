package keys

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"sluis/internal/ledger"
)

func newKEKFile(t *testing.T) KEK {
	t.Helper()
	kek, err := CreateKEK(filepath.Join(t.TempDir(), "kek.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func open(t *testing.T, cfg KeyringConfig) *Keyring {
	t.Helper()
	k, err := OpenKeyring(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return k
}

func newConfig(t *testing.T) KeyringConfig {
	t.Helper()
	return KeyringConfig{Path: filepath.Join(t.TempDir(), "keyring.db"), KEK: newKEKFile(t), LockTimeout: 10 * time.Millisecond}
}

func create(t *testing.T, k *Keyring, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := k.Create(id); err != nil {
			t.Fatalf("Create(%q): %v", id, err)
		}
	}
}

func seal(t *testing.T, k *Keyring, id, plaintext, aad string) []byte {
	t.Helper()
	sealed, err := k.Seal(id, []byte(plaintext), []byte(aad))
	if err != nil {
		t.Fatalf("Seal(%q): %v", id, err)
	}
	return sealed
}

func TestSealOpen(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	create(t, k, "case-1", "case-2")
	sealed := seal(t, k, "case-1", "payload", "leaf")
	if bytes.Contains(sealed, []byte("payload")) {
		t.Error("ciphertext holds the plaintext")
	}
	if again := seal(t, k, "case-1", "payload", "leaf"); bytes.Equal(sealed, again) {
		t.Error("sealing twice gives the same ciphertext")
	}
	got, err := k.Open("case-1", sealed, []byte("leaf"))
	if err != nil || string(got) != "payload" {
		t.Errorf("Open = %q, %v, want payload", got, err)
	}

	broken := bytes.Clone(sealed)
	broken[len(broken)-1] ^= 1
	for name, try := range map[string]struct {
		id  string
		ct  []byte
		aad string
	}{
		"other aad":  {"case-1", sealed, "other"},
		"no aad":     {"case-1", sealed, ""},
		"other key":  {"case-2", sealed, "leaf"},
		"bit flip":   {"case-1", broken, "leaf"},
		"cut off":    {"case-1", sealed[:20], "leaf"},
		"nothing":    {"case-1", nil, "leaf"},
		"longer":     {"case-1", append(bytes.Clone(sealed), 0), "leaf"},
		"other nonc": {"case-1", append([]byte{sealed[0] ^ 1}, sealed[1:]...), "leaf"},
	} {
		if _, err := k.Open(try.id, try.ct, []byte(try.aad)); !errors.Is(err, ErrSealed) {
			t.Errorf("Open with %s: %v, want ErrSealed", name, err)
		}
	}

	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	got, err = open(t, cfg).Open("case-1", sealed, []byte("leaf"))
	if err != nil || string(got) != "payload" {
		t.Errorf("Open after reopening = %q, %v, want payload", got, err)
	}
}

func TestCreateIsExplicitAndIdempotent(t *testing.T) {
	k := open(t, newConfig(t))
	if _, err := k.Seal("case", nil, nil); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Seal before Create: %v, want ErrUnknownKey", err)
	}
	if _, err := k.Open("case", nil, nil); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Open before Create: %v, want ErrUnknownKey", err)
	}
	if err := k.Destroy("case"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("Destroy before Create: %v, want ErrUnknownKey", err)
	}
	create(t, k, "case")
	sealed := seal(t, k, "case", "x", "")
	create(t, k, "case")
	k.evict(t)
	create(t, k, "case")
	if _, err := k.Open("case", sealed, nil); err != nil {
		t.Errorf("Open after creating again: %v", err)
	}
	for _, id := range []string{"", strings.Repeat("x", maxIDLength+1)} {
		if err := k.Create(id); err == nil {
			t.Errorf("Create with an id of %d bytes succeeded", len(id))
		}
	}
}

// evict empties the cache as load does when it is full.
func (k *Keyring) evict(t *testing.T) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.saveUsesLocked(); err != nil {
		t.Fatal(err)
	}
	clear(k.cache)
}

// wrappedKeys returns the wrapped form of every key.
func (k *Keyring) wrappedKeys(t *testing.T) map[string][]byte {
	t.Helper()
	wrapped := make(map[string][]byte)
	if err := k.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketKeys)).ForEach(func(id, value []byte) error {
			wrapped[string(id)] = bytes.Clone(value)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	return wrapped
}

func TestDestroy(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	create(t, k, "kept", "gone")
	kept, gone := seal(t, k, "kept", "k", ""), seal(t, k, "gone", "g", "")
	for range 2 {
		if err := k.Destroy("gone"); err != nil {
			t.Fatal(err)
		}
	}
	check := func(k *Keyring) {
		t.Helper()
		if _, err := ledger.Sealer(k).Open("gone", gone, nil); !errors.Is(err, ErrErased) || !errors.Is(err, ledger.ErrErased) {
			t.Errorf("Open of a destroyed key: %v, want ErrErased of keys and of ledger", err)
		}
		if _, err := k.Seal("gone", nil, nil); !errors.Is(err, ErrErased) {
			t.Errorf("Seal with a destroyed key: %v, want ErrErased", err)
		}
		if err := k.Create("gone"); !errors.Is(err, ErrErased) {
			t.Errorf("Create of a destroyed key: %v, want ErrErased", err)
		}
		if _, err := k.Open("kept", kept, nil); err != nil {
			t.Errorf("Open of another key: %v", err)
		}
	}
	check(k)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, cfg))
}

// TestDestroyLeavesNoBytes creates, uses and destroys keys at random, so that bbolt splits, copies and frees pages, and then searches the
// file for every wrapped key that ever was.
func TestDestroyLeavesNoBytes(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	k.usesStep = 3 // many writes
	random := rand.New(rand.NewPCG(1, 2))
	alive, dead := map[string][]byte{}, map[string][]byte{}
	var ids []string
	for i := range 400 {
		id := fmt.Sprintf("case-%d", i)
		if err := k.db.Update(func(tx *bbolt.Tx) error { // as Create does, without the cost of a sync each
			tx.DB().NoSync = true
			key := bytes.Repeat([]byte{byte(i)}, keySize)
			return tx.Bucket([]byte(bucketKeys)).Put([]byte(id), k.kek.wrap(id, key))
		}); err != nil {
			t.Fatal(err)
		}
		seal(t, k, id, "x", "")
		ids = append(ids, id)
		if i%20 == 19 {
			maps.Copy(alive, k.wrappedKeys(t))
			n := random.IntN(len(ids))
			id := ids[n]
			if err := k.Destroy(id); err != nil {
				t.Fatal(err)
			}
			ids = append(ids[:n], ids[n+1:]...)
			dead[id] = alive[id]
			delete(alive, id)
		}
		if i%150 == 149 {
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			k = open(t, cfg)
		}
	}
	content, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for id, wrapped := range dead {
		if len(wrapped) == 0 {
			t.Fatalf("test is broken: no wrapped key of %s", id)
		}
		if bytes.Contains(content, wrapped) {
			t.Errorf("destroyed key %s is still in the file", id)
		}
	}
	for id, wrapped := range alive {
		if !bytes.Contains(content, wrapped) {
			t.Errorf("key %s is not in the file", id)
		}
	}
	if err := k.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	}); err != nil {
		t.Errorf("file is damaged: %v", err)
	}
	for _, id := range ids {
		seal(t, k, id, "x", "")
	}
}

// TestOpenWipesAfterCrash stops between the commit of a destruction and the wiping.
func TestOpenWipesAfterCrash(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	create(t, k, "gone")
	wrapped := k.wrappedKeys(t)["gone"]
	if err := k.db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte(bucketDestroyed)).Put([]byte("gone"), []byte{1}),
			tx.Bucket([]byte(bucketKeys)).Delete([]byte("gone")))
	}); err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	// A page that a cut-off transaction wrote behind the end.
	f, err := os.OpenFile(cfg.Path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(wrapped); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		content, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(content, wrapped)
	}
	if got := count(); got < 2 {
		t.Fatalf("test is broken: want the wrapped key in a free page and behind the end, got %d copies", got)
	}
	open(t, cfg)
	if got := count(); got != 0 {
		t.Errorf("%d copies of the destroyed key are left after opening", got)
	}
}

func TestWrongKEK(t *testing.T) {
	cfg := newConfig(t)
	if err := open(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	wrong := cfg
	wrong.KEK = newKEKFile(t)
	if _, err := OpenKeyring(wrong); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("OpenKeyring with another KEK: %v, want ErrWrongKEK", err)
	}
	wrong.KEK = KEK{}
	if _, err := OpenKeyring(wrong); err == nil {
		t.Error("OpenKeyring without a KEK succeeded")
	}
	open(t, cfg)
}

func TestLoadKEK(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.pem")
	created, err := CreateKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadKEK(path)
	if err != nil {
		t.Fatal(err)
	}
	key := bytes.Repeat([]byte{7}, keySize)
	got, err := loaded.unwrap("id", created.wrap("id", key))
	if err != nil || !bytes.Equal(got, key) {
		t.Errorf("unwrap = %x, %v, want %x", got, err, key)
	}
	if got := fmt.Sprintf("%v %+v %#v", loaded, loaded, loaded); got != strings.TrimSpace(strings.Repeat("key-encryption key ", 3)) {
		t.Errorf("formatted KEK = %q", got)
	}
	short := filepath.Join(t.TempDir(), "kek.pem")
	if err := CreateSecret(short, pemKEK, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKEK(short); !errors.Is(err, ErrMalformed) {
		t.Errorf("LoadKEK of 16 bytes: %v, want ErrMalformed", err)
	}
}

func TestWrappedKeyIsBoundToID(t *testing.T) {
	k := open(t, newConfig(t))
	create(t, k, "a", "b")
	if err := k.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketKeys))
		return bucket.Put([]byte("a"), bytes.Clone(bucket.Get([]byte("b"))))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Seal("a", nil, nil); !errors.Is(err, errUnwrap) {
		t.Errorf("Seal with a swapped key: %v, want errUnwrap", err)
	}
	if _, err := k.Seal("b", nil, nil); err != nil {
		t.Errorf("Seal with the other key: %v", err)
	}
}

func TestRekey(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	create(t, k, "a", "b", "gone")
	sealed := seal(t, k, "a", "x", "")
	if err := k.Destroy("gone"); err != nil {
		t.Fatal(err)
	}
	old := k.wrappedKeys(t)
	to := newKEKFile(t)
	if err := k.Rekey(to); err != nil {
		t.Fatal(err)
	}
	create(t, k, "c")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for id, wrapped := range old {
		if bytes.Contains(content, wrapped) {
			t.Errorf("key %s under the old KEK is still in the file", id)
		}
	}
	if _, err := OpenKeyring(cfg); !errors.Is(err, ErrWrongKEK) {
		t.Errorf("OpenKeyring with the old KEK: %v, want ErrWrongKEK", err)
	}
	cfg.KEK = to
	k = open(t, cfg)
	if _, err := k.Open("a", sealed, nil); err != nil {
		t.Errorf("Open after Rekey: %v", err)
	}
	for _, id := range []string{"b", "c"} {
		seal(t, k, id, "x", "")
	}
	if _, err := k.Seal("gone", nil, nil); !errors.Is(err, ErrErased) {
		t.Errorf("Seal with a destroyed key after Rekey: %v, want ErrErased", err)
	}
	if err := k.Rekey(KEK{}); err == nil {
		t.Error("Rekey to no KEK succeeded")
	}
}

func TestUseLimitSurvivesEvictionAndRestart(t *testing.T) {
	cfg := newConfig(t)
	cfg.CacheSize = 1
	k := open(t, cfg)
	create(t, k, "a", "b")
	k.maxUses = 5
	for range 2 {
		seal(t, k, "a", "x", "")
		seal(t, k, "b", "x", "") // evicts a
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = open(t, cfg)
	k.maxUses = 5
	for _, id := range []string{"a", "b"} {
		var sealed []byte
		for range 3 {
			sealed = seal(t, k, id, "x", "")
		}
		if _, err := k.Seal(id, nil, nil); !errors.Is(err, ErrExhausted) {
			t.Errorf("sixth Seal with %s: %v, want ErrExhausted", id, err)
		}
		if _, err := k.Open(id, sealed, nil); err != nil {
			t.Errorf("Open with the exhausted key %s: %v", id, err)
		}
	}
}

func TestUseCountIsSavedInSteps(t *testing.T) {
	cfg := newConfig(t)
	k := open(t, cfg)
	create(t, k, "a")
	k.usesStep = 4
	for range 9 {
		seal(t, k, "a", "x", "")
	}
	// A crash: nothing more is saved.
	if err := k.db.Close(); err != nil {
		t.Fatal(err)
	}
	k.closed = true
	k = open(t, cfg)
	k.maxUses = 9 // 8 were saved
	seal(t, k, "a", "x", "")
	if _, err := k.Seal("a", nil, nil); !errors.Is(err, ErrExhausted) {
		t.Errorf("Seal after the limit: %v, want ErrExhausted", err)
	}
}

func TestInsecureKeyringFile(t *testing.T) {
	cfg := newConfig(t)
	if err := open(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cfg.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(cfg); !errors.Is(err, ErrInsecureFile) {
		t.Errorf("OpenKeyring of a readable file: %v, want ErrInsecureFile", err)
	}
}

func TestOpenKeyringRefusesOtherFiles(t *testing.T) {
	cfg := newConfig(t)
	if err := os.WriteFile(cfg.Path, bytes.Repeat([]byte("not a keyring"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(cfg); !errors.Is(err, ErrMalformed) {
		t.Errorf("OpenKeyring of a text file: %v, want ErrMalformed", err)
	}

	cfg = newConfig(t)
	db, err := bbolt.Open(cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("ledger")); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(cfg); !errors.Is(err, ErrMalformed) {
		t.Errorf("OpenKeyring of another database: %v, want ErrMalformed", err)
	}
}

const envLockedKeyring = "SLUIS_TEST_LOCKED_KEYRING"

// TestSecondProcess runs itself in a second process while the first has the keyring open.
func TestSecondProcess(t *testing.T) {
	if path := os.Getenv(envLockedKeyring); path != "" {
		_, err := OpenKeyring(KeyringConfig{Path: path, KEK: newKEKFile(t), LockTimeout: 10 * time.Millisecond})
		if !errors.Is(err, ErrLocked) {
			t.Errorf("OpenKeyring in a second process: %v, want ErrLocked", err)
		}
		return
	}
	cfg := newConfig(t)
	open(t, cfg)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondProcess$", "-test.v")
	cmd.Env = append(os.Environ(), envLockedKeyring+"="+cfg.Path)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestSecondProcess")) {
		t.Errorf("second process: %v\n%s", err, out)
	}
}

func TestClosed(t *testing.T) {
	k := open(t, newConfig(t))
	create(t, k, "a")
	sealed := seal(t, k, "a", "x", "")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"Create":  func() error { return k.Create("a") },
		"Seal":    func() error { _, err := k.Seal("a", nil, nil); return err },
		"Open":    func() error { _, err := k.Open("a", sealed, nil); return err },
		"Destroy": func() error { return k.Destroy("a") },
		"Rekey":   func() error { return k.Rekey(newKEKFile(t)) },
	} {
		if err := call(); !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
}

// TestConcurrency uses more keys than fit in the cache from several goroutines while keys are created and destroyed. It is for the race
// detector, and checks that no key serves after its destruction.
func TestConcurrency(t *testing.T) {
	cfg := newConfig(t)
	cfg.CacheSize = 3
	k := open(t, cfg)
	k.db.NoSync = true
	k.usesStep = 10
	const cases, rounds = 6, 60
	var destroyed [cases]sync.Map // key "yes" once Destroy has returned
	for i := range cases {
		create(t, k, fmt.Sprint(i))
	}
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 0))
			for range rounds {
				i := random.IntN(cases)
				_, wasDestroyed := destroyed[i].Load("yes")
				sealed, err := k.Seal(fmt.Sprint(i), []byte("x"), nil)
				switch {
				case err == nil && wasDestroyed:
					t.Errorf("key %d sealed after its destruction", i)
				case err != nil && !errors.Is(err, ErrErased):
					t.Errorf("Seal: %v", err)
				case err == nil:
					if _, err := k.Open(fmt.Sprint(i), sealed, nil); err != nil && !errors.Is(err, ErrErased) {
						t.Errorf("Open: %v", err)
					}
				}
			}
		})
	}
	group.Go(func() {
		for i := range cases / 2 {
			if err := k.Destroy(fmt.Sprint(i)); err != nil {
				t.Errorf("Destroy: %v", err)
			}
			destroyed[i].Store("yes", true)
			if err := k.Create(fmt.Sprint("new", i)); err != nil {
				t.Errorf("Create: %v", err)
			}
		}
	})
	group.Wait()
}

func BenchmarkSeal(b *testing.B) {
	dir := b.TempDir()
	kek, err := CreateKEK(filepath.Join(dir, "kek.pem"))
	if err != nil {
		b.Fatal(err)
	}
	k, err := OpenKeyring(KeyringConfig{Path: filepath.Join(dir, "keyring.db"), KEK: kek})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	if err := k.Create("case"); err != nil {
		b.Fatal(err)
	}
	payload, aad := make([]byte, 512), make([]byte, 40)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := k.Seal("case", payload, aad); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	kek, err := CreateKEK(filepath.Join(dir, "kek.pem"))
	if err != nil {
		b.Fatal(err)
	}
	k, err := OpenKeyring(KeyringConfig{Path: filepath.Join(dir, "keyring.db"), KEK: kek})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	if err := k.Create("case"); err != nil {
		b.Fatal(err)
	}
	sealed, err := k.Seal("case", make([]byte, 512), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := k.Open("case", sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}
