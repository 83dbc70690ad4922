package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Guard keeps the last checkpoint out of reach of who can put the store back: another file system, a key-value store with
// compare-and-set. It is asked before a checkpoint is published and when the log is opened.
type Guard interface {
	// Load returns what was last put, nothing if nothing was.
	Load(ctx context.Context) ([]byte, error)
	// CompareAndSwap puts next, durably when nil, if the guard holds old, else it returns ErrConflict. An empty old means
	// that the guard must hold nothing.
	CompareAndSwap(ctx context.Context, old, next []byte) error
}

// FileGuard is a Guard in a file. The file belongs on another disk than the store and outside its backups: a guard that is
// put back together with the store guards nothing. A second file, with the suffix .lock, is locked during a change.
type FileGuard struct{ path string }

// NewFileGuard returns the guard in the file at path, which is made by the first CompareAndSwap.
func NewFileGuard(path string) *FileGuard { return &FileGuard{path} }

// Load implements Guard.
func (g *FileGuard) Load(context.Context) ([]byte, error) {
	f, err := os.Open(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	const maxCheckpoint = 1 << 20 // a note larger than that is refused by note.Open
	return io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
}

// CompareAndSwap implements Guard.
func (g *FileGuard) CompareAndSwap(ctx context.Context, old, next []byte) error {
	lock, err := os.OpenFile(g.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // and the lock with it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	current, err := g.Load(ctx)
	if err != nil {
		return err
	}
	if !bytes.Equal(current, old) {
		return fmt.Errorf("%w: %s has changed", ErrConflict, g.path)
	}
	return replace(g.path, next)
}

// replace gives a file new content such that after a crash it has the old or the new.
func replace(path string, content []byte) (err error) {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
