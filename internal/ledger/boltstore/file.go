// Package boltstore keeps a ledger and its index in bbolt files on a local disk.
//
// # Formats
//
// Integers are big-endian. Each file has a bucket "meta" whose key "format" says what the file is; other formats are
// refused. The store ([Open], by custom ledger.db, format "sluis ledger 1") has
//
//	meta     head: size (8 bytes), time of the last entry (8, nanoseconds since 1970 UTC), root (32), right edge (32 each)
//	         checkpoint: the signed note
//	records  index (8) -> record
//	tiles    level (1), index (8) -> hashes (32 each, at most 256)
//	state    key -> version (8), value
//
// and the index ([OpenIndex], by custom index.db, format "sluis index 1") has
//
//	meta      mark: number of entries indexed (8), leaf of the last of them
//	postings  term, NUL, entry (8) -> nothing
//
// # Trust
//
// A commit is on disk, by fdatasync, before it is acknowledged. bbolt sums its meta pages only, so what it returns is not
// taken on trust: package ledger checks it against the tree. Damaged pages make bbolt panic or fault; here that becomes
// ledger.ErrCorrupt. Network file systems are refused, since locks and memory maps cannot be trusted on them. The index is
// as durable as the store, because a torn index would miss entries in silence; but it can be deleted, and is then built
// again. Deleted keys of state and index stay readable in free pages of the file until those are used again.
package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"sluis/internal/ledger"
)

// ErrInUse means that another process has the file open.
var ErrInUse = errors.New("boltstore: file is in use by another process")

// ErrUnsuitable means that the file is not one of ours, or is where it must not be; the text says why.
var ErrUnsuitable = errors.New("boltstore: unsuitable file")

// Config says how a file is opened. The zero value is good for production.
type Config struct {
	MinFree     uint64 // bytes that must stay free on the disk, else writes are refused with ledger.ErrFull; default 64 MiB
	InitialMmap int    // bytes of address space to map at first; growing beyond it stops readers for a moment; default 1 GiB
	ReadOnly    bool   // open without writing a byte, for verification; the file must exist
}

const (
	defaultMinFree = 64 << 20
	defaultMmap    = 1 << 30
	metaBucket     = "meta"
	formatKey      = "format"
)

// file is a bbolt file of ours.
type file struct {
	db      *bolt.DB
	dir     string
	minFree uint64
}

// open opens a file, or makes it with these buckets.
func open(path, format string, buckets []string, cfg Config) (*file, error) {
	if cfg.MinFree == 0 {
		cfg.MinFree = defaultMinFree
	}
	if cfg.InitialMmap == 0 {
		cfg.InitialMmap = defaultMmap
	}
	f := &file{dir: filepath.Dir(path), minFree: cfg.MinFree}
	if err := checkFile(path, cfg.ReadOnly); err != nil {
		return nil, err
	}
	var opened *os.File
	err := safely(func() error { return f.open(path, format, buckets, cfg, &opened) })
	if err == nil {
		return f, nil
	}
	if f.db != nil {
		_ = f.Close()
	} else if opened != nil {
		// A bbolt that panics leaves it open, and mapped, so that closing alone would not unlock it.
		_ = unix.Flock(int(opened.Fd()), unix.LOCK_UN)
		_ = opened.Close()
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return nil, fmt.Errorf("%w: %s cannot be written: %w", ErrUnsuitable, path, err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum),
		errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("%w: %s: %w", ledger.ErrCorrupt, path, err)
	}
	return nil, fmt.Errorf("boltstore: open %s: %w", path, err)
}

func (f *file) open(path, format string, buckets []string, cfg Config, opened **os.File) error {
	const patience = time.Second // for the process before us to let go of the lock
	var err error
	f.db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout: patience, FreelistType: bolt.FreelistMapType, InitialMmapSize: cfg.InitialMmap,
		ReadOnly: cfg.ReadOnly, NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			*opened, err = os.OpenFile(name, flag, mode)
			return *opened, err
		},
	})
	if err != nil {
		return err
	}
	if err := f.checkLength(path); err != nil {
		return err
	}
	fresh := false
	if err := f.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		if meta == nil {
			if name, _ := tx.Cursor().First(); name != nil {
				return fmt.Errorf("%w: not a file of ours", ErrUnsuitable)
			}
			fresh = true
			return nil
		}
		if got := meta.Get([]byte(formatKey)); string(got) != format {
			return fmt.Errorf("%w: format is %q, want %q", ErrUnsuitable, got, format)
		}
		for _, name := range buckets {
			if tx.Bucket([]byte(name)) == nil {
				return fmt.Errorf("%w: bucket %s is missing", ledger.ErrCorrupt, name)
			}
		}
		return nil
	}); err != nil || !fresh {
		return err
	}
	if cfg.ReadOnly {
		return fmt.Errorf("%w: empty", ErrUnsuitable)
	}
	if err := f.db.Update(func(tx *bolt.Tx) error {
		for _, name := range append(buckets, metaBucket) {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(metaBucket)).Put([]byte(formatKey), []byte(format))
	}); err != nil {
		return err
	}
	return syncDir(f.dir) // else a new file may be gone after a power failure, and what it held with it
}

// checkLength refuses a file that was cut off: its missing pages would fault when read.
func (f *file) checkLength(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return f.db.View(func(tx *bolt.Tx) error {
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: file has %d bytes of %d", ledger.ErrCorrupt, info.Size(), tx.Size())
		}
		return nil
	})
}

// checkFile refuses files and places that bbolt would only fail on later, or not at all.
func checkFile(path string, readOnly bool) error {
	dir := filepath.Dir(path)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("boltstore: %s: %w", dir, err)
	}
	if remote(&st) {
		return fmt.Errorf("%w: %s is on a network or user-space file system", ErrUnsuitable, path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !readOnly {
		return nil
	}
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsuitable, path)
	}
	const ownerWrite = 0o200
	if !readOnly && info.Mode()&ownerWrite == 0 { // even for root, whom it would not stop
		return fmt.Errorf("%w: %s is read-only", ErrUnsuitable, path)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// safely turns what becomes of a damaged file, panics of bbolt and faults in its memory map, into ErrCorrupt.
func safely(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ledger.ErrCorrupt, r)
		}
	}()
	return fn()
}

func (f *file) view(ctx context.Context, fn func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return safely(func() error { return f.db.View(fn) })
}

// update runs a write transaction, unless that might fill the disk.
func (f *file) update(ctx context.Context, fn func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrFull, err)
	}
	if free := uint64(st.Bavail) * uint64(st.Bsize); free < f.minFree { //nolint:unconvert // Bavail is signed on FreeBSD
		return fmt.Errorf("%w: %d bytes left on the disk, at least %d must stay free", ledger.ErrFull, free, f.minFree)
	}
	return safely(func() error { return f.db.Update(fn) })
}

// get returns a copy of a value, nil if there is none.
func (f *file) get(ctx context.Context, bucket string, key []byte) (value []byte, err error) {
	err = f.view(ctx, func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket([]byte(bucket)).Get(key))
		return nil
	})
	return value, err
}

// Close closes the file.
func (f *file) Close() error { return safely(f.db.Close) }

type pair struct{ key, value []byte }

// each yields copies of keys and values from a key on. It reads ever larger pages, each in a transaction of its own: one
// that stayed open while the loop runs would keep the writer from using pages again, and could deadlock with it.
func (f *file) each(ctx context.Context, bucket string, from []byte) iter.Seq2[pair, error] {
	const firstPage, lastPage = 16, 512
	return func(yield func(pair, error) bool) {
		for size := firstPage; ; size = min(2*size, lastPage) {
			page := make([]pair, 0, size)
			err := f.view(ctx, func(tx *bolt.Tx) error {
				c := tx.Bucket([]byte(bucket)).Cursor()
				for k, v := c.Seek(from); k != nil && len(page) < size; k, v = c.Next() {
					page = append(page, pair{bytes.Clone(k), bytes.Clone(v)})
				}
				return nil
			})
			if err != nil {
				yield(pair{}, err)
				return
			}
			for _, p := range page {
				if !yield(p, nil) {
					return
				}
			}
			if len(page) < size {
				return
			}
			from = append(page[size-1].key, 0) // the smallest key that comes after it
		}
	}
}
