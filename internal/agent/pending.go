package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

const (
	pendingFolder = "pending"
	pendingTerm   = 24 * time.Hour
)

func (a *Agent) pendingPath(id disclosure.RequestID) string {
	return filepath.Join(a.cfg.State, pendingFolder, string(id))
}

// sealedBefore gives the identity that was sealed for the same request and binding before.
func (a *Agent) sealedBefore(id disclosure.RequestID, binding envelope.IdentityContext) ([]byte, bool) {
	content, err := os.ReadFile(a.pendingPath(id))
	if err != nil {
		return nil, false
	}
	digest := sha256.Sum256(binding.Info())
	return bytes.CutPrefix(content, digest[:])
}

func (a *Agent) keepSealed(id disclosure.RequestID, binding envelope.IdentityContext, sealed []byte) error {
	digest := sha256.Sum256(binding.Info())
	if err := writeFile(a.pendingPath(id), append(digest[:], sealed...)); err != nil {
		return fmt.Errorf("keep the sealed identity for a retry: %w", err)
	}
	return nil
}

// dropPending removes what is too old to be retried.
func (a *Agent) dropPending() error {
	folder := filepath.Join(a.cfg.State, pendingFolder)
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("agent: state folder: %w", err)
	}
	for _, file := range files {
		info, err := file.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // by another process of the same agent
		}
		if err != nil {
			return fmt.Errorf("agent: state folder: %w", err)
		}
		if a.cfg.Now().Sub(info.ModTime()) < pendingTerm {
			continue
		}
		if err := os.Remove(filepath.Join(folder, file.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("agent: state folder: %w", err)
		}
	}
	return nil
}
