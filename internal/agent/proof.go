package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

const (
	receiptsFolder = "receipts"
	checkpointFile = "checkpoint"

	firstProofPause = 20 * time.Millisecond
	maxProofPause   = 500 * time.Millisecond
)

// prove completes a receipt with a proof, verifies it against the pinned key of the ledger, and gives its file. It waits
// until a checkpoint covers the entry, at most Config.Proof.
func (a *Agent) prove(ctx context.Context, r disclosure.Receipt) ([]byte, error) {
	if err := receipt.Check(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	hashes, checkpoint, err := a.awaitProof(ctx, r.Index)
	if err != nil {
		return nil, err
	}
	tree, err := a.witness(ctx, checkpoint)
	if err != nil {
		return nil, err
	}
	complete := receipt.Receipt{Receipt: r, Proof: hashes, Checkpoint: checkpoint}
	if err := complete.CheckProof(tree); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	file, err := complete.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	return file, nil
}

func (a *Agent) awaitProof(ctx context.Context, index uint64) ([]tlog.Hash, []byte, error) {
	waiting, cancel := context.WithTimeout(ctx, a.cfg.Proof)
	defer cancel()
	for pause := firstProofPause; ; pause = min(2*pause, maxProofPause) {
		raw, checkpoint, err := a.cfg.Prover.InclusionProof(waiting, index)
		if err == nil {
			hashes, err := parseHashes(raw)
			return hashes, checkpoint, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-waiting.Done():
			timer.Stop()
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			return nil, nil, fmt.Errorf("%w: %w", ErrNotProven, err)
		}
	}
}

func parseHashes(raw [][]byte) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(raw))
	for i, h := range raw {
		if len(h) != tlog.HashSize {
			return nil, fmt.Errorf("%w: hash of a proof", ErrVerification)
		}
		hashes[i] = tlog.Hash(h)
	}
	return hashes, nil
}

// maxWitnessed bounds the checkpoints that are remembered. Requests of the same moment have few of them.
const maxWitnessed = 256

// witness verifies a checkpoint, holds it against the largest one that was seen, and remembers the larger of the two. All
// that is done once for a checkpoint, however many receipts it covers.
func (a *Agent) witness(ctx context.Context, checkpoint []byte) (tlog.Tree, error) {
	if tree, ok := a.wasWitnessed(checkpoint); ok {
		return tree, nil
	}
	a.seenMu.Lock()
	defer a.seenMu.Unlock()
	if tree, ok := a.wasWitnessed(checkpoint); ok { // by another one, meanwhile
		return tree, nil
	}
	tree, err := a.openCheckpoint(checkpoint)
	if err != nil {
		return tlog.Tree{}, err
	}
	// Another process of the same agent may have seen more: a command beside the one that serves.
	if err := a.loadCheckpoint(); err != nil {
		return tlog.Tree{}, err
	}
	if a.seen.N > 0 {
		if err := a.checkConsistent(ctx, tree); err != nil {
			return tlog.Tree{}, err
		}
	}
	if tree.N > a.seen.N {
		if err := writeFile(filepath.Join(a.cfg.State, checkpointFile), checkpoint); err != nil {
			return tlog.Tree{}, fmt.Errorf("remember the checkpoint: %w", err)
		}
		a.seen = tree
	}
	a.witnessedMu.Lock()
	defer a.witnessedMu.Unlock()
	if len(a.witnessed) == maxWitnessed {
		clear(a.witnessed)
	}
	a.witnessed[string(checkpoint)] = tree
	return tree, nil
}

func (a *Agent) wasWitnessed(checkpoint []byte) (tlog.Tree, bool) {
	a.witnessedMu.Lock()
	defer a.witnessedMu.Unlock()
	tree, ok := a.witnessed[string(checkpoint)]
	return tree, ok
}

// checkConsistent expects seenMu to be held.
func (a *Agent) checkConsistent(ctx context.Context, tree tlog.Tree) error {
	older, newer := a.seen, tree
	if newer.N < older.N {
		older, newer = newer, older
	}
	if older == newer {
		return nil
	}
	if older.N == newer.N {
		return fmt.Errorf("%w: %w", ErrVerification, ErrSplitView)
	}
	raw, _, err := a.cfg.Prover.ConsistencyProof(ctx, uint64(older.N), uint64(newer.N))
	if errors.Is(err, disclosure.ReasonNotFound) && newer == a.seen {
		return fmt.Errorf("%w: %w: it has become smaller", ErrVerification, ErrSplitView)
	}
	if err != nil {
		return fmt.Errorf("get a consistency proof: %w", err)
	}
	hashes, err := parseHashes(raw)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(hashes, newer.N, newer.Hash, older.N, older.Hash); err != nil {
		return fmt.Errorf("%w: %w", ErrVerification, ErrSplitView)
	}
	return nil
}

// watchPause is how often an agent looks at the ledger.
const watchPause = time.Minute

// errBehind says that the broker's latest checkpoint is older than one that it showed before. For a moment that can be, where
// several brokers serve one ledger; not for longer.
var errBehind = errors.New("the latest checkpoint is older than one that was shown before")

// KeepWatch checks again and again that the ledger only grows, until ctx ends: that is the agent's part as a witness. It
// fails, with [ErrVerification], when the ledger contradicts what was seen before, or stays behind it: whoever answers
// should stop then.
func (a *Agent) KeepWatch(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wasBehind := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := a.Watch(ctx)
		behind := errors.Is(err, errBehind)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrVerification):
			return fmt.Errorf("watch the ledger: %w", err)
		case behind && wasBehind:
			return fmt.Errorf("watch the ledger: %w: %w: %w", ErrVerification, ErrSplitView, err)
		case err != nil:
			a.cfg.Log.WarnContext(ctx, "could not check the ledger; trying again", slog.Any("error", err))
		}
		wasBehind = behind
		timer.Reset(watchPause)
	}
}

// Watch checks once that the ledger still is the one that was seen before. Errors wrap [ErrVerification] or are the
// broker's.
func (a *Agent) Watch(ctx context.Context) error {
	if _, err := a.brokerKeys(ctx); err != nil {
		return err
	}
	// From 1, and not from what was seen: so there is an answer too when the ledger has become shorter than that.
	_, checkpoint, err := a.cfg.Prover.ConsistencyProof(ctx, 1, 0)
	if err != nil {
		return fmt.Errorf("get the latest checkpoint: %w", err)
	}
	tree, err := a.openCheckpoint(checkpoint)
	if err != nil {
		return fmt.Errorf("latest checkpoint: %w", err)
	}
	a.seenMu.Lock()
	behind := tree.N < a.seen.N
	a.seenMu.Unlock()
	if behind {
		return errBehind
	}
	_, err = a.witness(ctx, checkpoint)
	return err
}

// openCheckpoint verifies a checkpoint of the pinned ledger. Errors wrap [ErrVerification].
func (a *Agent) openCheckpoint(signed []byte) (tlog.Tree, error) {
	opened, err := receipt.OpenCheckpoint(signed, a.ledger)
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	if opened.Tree.N == 0 {
		return tlog.Tree{}, fmt.Errorf("%w: checkpoint of an empty ledger", ErrVerification)
	}
	return opened.Tree, nil
}

// loadCheckpoint reads the checkpoint that was seen last, by this run or another one.
func (a *Agent) loadCheckpoint() error {
	path := filepath.Join(a.cfg.State, checkpointFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	tree, known := a.wasWitnessed(content)
	if !known {
		if tree, err = a.openCheckpoint(content); err != nil {
			// Not for the caller to take for a fault of the ledger: it is our own file.
			return fmt.Errorf("agent: %s is not a checkpoint of the ledger; if the ledger was replaced on purpose, move the file away", path)
		}
	}
	if tree.N > a.seen.N {
		a.seen = tree
	}
	return nil
}

// Keep holds the event of a receipt against what the caller knows of it, proves the receipt, and saves it. The name becomes the name of
// the file; it must be made of letters, digits and dashes, such as a request's id. The result is the file's path.
// Errors wrap [ErrVerification], [ErrNotProven], or are the broker's.
func (a *Agent) Keep(
	ctx context.Context, name string, r disclosure.Receipt, check func(disclosure.Event) error,
) (path string, err error) {
	event, err := openEvent(r)
	if err != nil {
		return "", fmt.Errorf("receipt: %w", err)
	}
	if err := check(event); err != nil {
		return "", fmt.Errorf("%w: receipt: %w", ErrVerification, err)
	}
	return a.keep(ctx, name, r)
}

// keep proves and saves a receipt whose event was checked.
func (a *Agent) keep(ctx context.Context, name string, r disclosure.Receipt) (path string, err error) {
	file, err := a.prove(ctx, r)
	if err != nil {
		return "", fmt.Errorf("receipt: %w", err)
	}
	path = filepath.Join(a.cfg.State, receiptsFolder, name+receipt.Suffix)
	if err := writeFile(path, file); err != nil {
		return "", fmt.Errorf("save the receipt: %w", err)
	}
	return path, nil
}

// writeFile replaces a file as a whole, for its owner only.
func writeFile(path string, content []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary.Name()))
		}
	}()
	if _, err := temporary.Write(content); err != nil {
		return errors.Join(err, temporary.Close())
	}
	if err := errors.Join(temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
