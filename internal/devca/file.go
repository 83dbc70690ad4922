package devca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	dirMode    = 0o750
	keyMode    = 0o600
	publicMode = 0o644
)

type file struct {
	name string
	data []byte
	mode fs.FileMode
}

// writeNew writes the files to dir, or none of them if one of them exists.
func writeNew(dir string, files []file) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	for _, f := range files {
		if err := create(filepath.Join(dir, f.name), f); err != nil {
			return err
		}
	}
	return nil
}

func create(path string, content file) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, content.mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(content.data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
