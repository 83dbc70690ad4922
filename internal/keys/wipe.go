package keys

import (
	"bytes"
	"errors"
	"io"

	"go.etcd.io/bbolt"
)

// wipe overwrites with zeros every page of the file that holds nothing any more, because bbolt copies a page on change and leaves the old
// one, with its wrapped keys, until it needs the space. Nobody else may use the database meanwhile.
//
// A commit that changes nothing comes first. After it both of bbolt's meta pages point to a tree from after the last change, so what is
// wiped is reachable from neither of them, and a crash at any moment leaves a sound file.
func (k *Keyring) wipe() error {
	tx, err := k.db.Begin(true)
	if err != nil {
		return err
	}
	before, end, err := freePages(tx)
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	// The commit took a free page for its list of free pages.
	after := make(map[int]bool, len(before))
	if err := k.db.View(func(tx *bbolt.Tx) error {
		pages, last, err := freePages(tx)
		for _, id := range pages {
			after[id] = true
		}
		end = max(end, last)
		return err
	}); err != nil {
		return err
	}
	size := int64(k.db.Info().PageSize)
	wiped := false
	for _, id := range before {
		if after[id] {
			did, err := k.zero(int64(id)*size, size)
			if err != nil {
				return err
			}
			wiped = wiped || did
		}
	}
	// Behind the last page there may be pages of a transaction that a crash cut off.
	info, err := k.file.Stat()
	if err != nil {
		return err
	}
	for offset := int64(end) * size; offset < info.Size(); offset += size {
		did, err := k.zero(offset, min(size, info.Size()-offset))
		if err != nil {
			return err
		}
		wiped = wiped || did
	}
	if !wiped {
		return nil
	}
	return k.file.Sync()
}

// freePages lists the pages that the tree does not use, and the number of pages there are.
func freePages(tx *bbolt.Tx) ([]int, int, error) {
	var free []int
	for id := 0; ; id++ {
		info, err := tx.Page(id)
		if err != nil {
			return nil, 0, err
		}
		if info == nil {
			return free, id, nil
		}
		if info.Type == "free" {
			free = append(free, id)
		}
	}
}

// zero overwrites one page unless it holds nothing but zeros, and reports whether it wrote.
func (k *Keyring) zero(offset, size int64) (bool, error) {
	page := make([]byte, size)
	if _, err := k.file.ReadAt(page, offset); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	zeros := make([]byte, size)
	if bytes.Equal(page, zeros) {
		return false, nil
	}
	_, err := k.file.WriteAt(zeros, offset)
	return true, err
}
