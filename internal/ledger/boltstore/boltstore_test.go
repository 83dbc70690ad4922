package boltstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
	"sluis/internal/ledger/storetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Store(t, func(t *testing.T) func(*testing.T) ledger.Store {
		path := filepath.Join(t.TempDir(), "ledger.db")
		return func(t *testing.T) ledger.Store {
			s, err := boltstore.Open(path, boltstore.Config{})
			must(t, err)
			return s
		}
	})
}

func TestIndex(t *testing.T) {
	storetest.Index(t, func(t *testing.T) func(*testing.T) ledger.Index {
		path := filepath.Join(t.TempDir(), "index.db")
		return func(t *testing.T) ledger.Index {
			x, err := boltstore.OpenIndex(path, boltstore.Config{})
			must(t, err)
			return x
		}
	})
}

// TestSmallMap lets the file outgrow its memory map while it is read.
func TestSmallMap(t *testing.T) {
	storetest.Store(t, func(t *testing.T) func(*testing.T) ledger.Store {
		path := filepath.Join(t.TempDir(), "ledger.db")
		return func(t *testing.T) ledger.Store {
			s, err := boltstore.Open(path, boltstore.Config{InitialMmap: 1})
			must(t, err)
			return s
		}
	})
}

func newStore(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	s, err := boltstore.Open(path, boltstore.Config{})
	must(t, err)
	must(t, s.PutCheckpoint(t.Context(), []byte("checkpoint")))
	must(t, s.Close())
	return path
}

func TestOpenRefuses(t *testing.T) {
	edit := func(t *testing.T, path string, fn func(tx *bolt.Tx) error) {
		t.Helper()
		db, err := bolt.Open(path, 0o600, nil)
		must(t, err)
		must(t, db.Update(fn))
		must(t, db.Close())
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  error
	}{
		"another version": {func(t *testing.T, path string) {
			edit(t, path, func(tx *bolt.Tx) error {
				return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte("sluis ledger 2"))
			})
		}, boltstore.ErrUnsuitable},
		"an index": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			x, err := boltstore.OpenIndex(path, boltstore.Config{})
			must(t, err)
			must(t, x.Close())
		}, boltstore.ErrUnsuitable},
		"a stranger": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			edit(t, path, func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("other"))
				return err
			})
		}, boltstore.ErrUnsuitable},
		"a bucket gone": {func(t *testing.T, path string) {
			edit(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("tiles")) })
		}, ledger.ErrCorrupt},
		"text": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("not a database\n"), 10_000), 0o600))
		}, ledger.ErrCorrupt},
		"cut off in the middle": {func(t *testing.T, path string) { must(t, os.Truncate(path, 2*4096+100)) }, ledger.ErrCorrupt},
		"cut off at a page":     {func(t *testing.T, path string) { must(t, os.Truncate(path, 4*4096)) }, ledger.ErrCorrupt},
		"read-only":             {func(t *testing.T, path string) { must(t, os.Chmod(path, 0o400)) }, boltstore.ErrUnsuitable},
		"a directory": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o700))
		}, boltstore.ErrUnsuitable},
		"open elsewhere": {func(t *testing.T, path string) {
			s, err := boltstore.Open(path, boltstore.Config{})
			must(t, err)
			t.Cleanup(func() { must(t, s.Close()) })
		}, boltstore.ErrInUse},
		"no directory": {func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) }, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			path := newStore(t)
			c.spoil(t, path)
			s, err := boltstore.Open(path, boltstore.Config{})
			if err == nil {
				must(t, s.Close())
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
		})
	}
}

// TestDamagedPages spoils every page of a file in turn. Whatever bbolt makes of that, the process goes on, and what it
// reads is right or an error.
func TestDamagedPages(t *testing.T) {
	path := newStore(t)
	s, err := boltstore.Open(path, boltstore.Config{})
	must(t, err)
	record := bytes.Repeat([]byte("record"), 50)
	const records, page = 100, 4096
	b := ledger.Batch{
		Records: slices.Repeat([][]byte{record}, records), Head: ledger.Head{Size: records, Edge: make([]tlog.Hash, 3)},
	}
	must(t, s.Commit(t.Context(), b))
	must(t, s.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	failed := 0
	for at := 0; at < min(len(good), 30*page); at += page { // the rest is not used yet
		bad := bytes.Clone(good)
		copy(bad[at:at+page], bytes.Repeat([]byte{0xa5}, page))
		must(t, os.WriteFile(path, bad, 0o600))
		s, err := boltstore.Open(path, boltstore.Config{})
		if errors.Is(err, boltstore.ErrInUse) {
			t.Fatal("the attempt before this one left the file locked")
		}
		if err != nil {
			continue
		}
		for got, err := range s.Records(t.Context(), 0, records) {
			if err != nil {
				failed++
				if !errors.Is(err, ledger.ErrCorrupt) {
					t.Errorf("page %d: got error %v", at/page, err)
				}
			} else if !bytes.Equal(got, record) && !bytes.Contains(got, []byte{0xa5}) {
				t.Errorf("page %d: got %q", at/page, got)
			}
		}
		must(t, s.Close())
	}
	if failed == 0 {
		t.Error("no damage was met")
	}
}

// TestHole removes a record.
func TestHole(t *testing.T) {
	path := newStore(t)
	s, err := boltstore.Open(path, boltstore.Config{})
	must(t, err)
	b := ledger.Batch{
		Records: slices.Repeat([][]byte{[]byte("r")}, 3), Head: ledger.Head{Size: 3, Edge: make([]tlog.Hash, 2)},
	}
	must(t, s.Commit(t.Context(), b))
	must(t, s.Close())
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("records")).Delete([]byte("\x00\x00\x00\x00\x00\x00\x00\x01"))
	}))
	must(t, db.Close())
	s, err = boltstore.Open(path, boltstore.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	n := 0
	for _, err := range s.Records(t.Context(), 0, 3) {
		if n++; n == 2 && !errors.Is(err, ledger.ErrCorrupt) {
			t.Errorf("got error %v, want %v", err, ledger.ErrCorrupt)
		}
	}
	if n != 2 {
		t.Errorf("%d steps, want 2: a record and an error", n)
	}
}

func TestFileMode(t *testing.T) {
	info, err := os.Stat(newStore(t))
	must(t, err)
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("got mode %o, want 600", got)
	}
}

func TestMinFree(t *testing.T) {
	path := newStore(t)
	s, err := boltstore.Open(path, boltstore.Config{MinFree: 1 << 62})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	if err := s.Commit(t.Context(), ledger.Batch{}); !errors.Is(err, ledger.ErrFull) {
		t.Errorf("got error %v, want %v", err, ledger.ErrFull)
	}
	if _, err := s.Head(t.Context()); err != nil {
		t.Errorf("reading from a full disk: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	path := newStore(t)
	must(t, os.Chmod(path, 0o400))
	before, err := os.ReadFile(path)
	must(t, err)
	s, err := boltstore.Open(path, boltstore.Config{ReadOnly: true})
	must(t, err)
	if c, err := s.Checkpoint(t.Context()); err != nil || string(c) != "checkpoint" {
		t.Errorf("got %q, %v", c, err)
	}
	if err := s.PutCheckpoint(t.Context(), []byte("x")); err == nil {
		t.Error("wrote to a read-only store")
	}
	must(t, s.Close())
	after, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
	if _, err := boltstore.Open(filepath.Join(t.TempDir(), "none"), boltstore.Config{ReadOnly: true}); err == nil {
		t.Error("opened a file that is not there")
	}
}
