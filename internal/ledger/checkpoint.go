package ledger

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a signed tree head, C2SP tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   tlog.Hash
}

// text returns the three lines that are signed.
func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ParseCheckpoint checks the signature of a checkpoint and returns what it says. The origin must be the name of the
// verifier. Signatures by others (witnesses) may follow and are not checked; extension lines are refused.
func ParseCheckpoint(raw []byte, v note.Verifier) (Checkpoint, error) {
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %w", ErrCorrupt, err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != v.Name() {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is not one of %q", ErrCorrupt, v.Name())
	}
	c := Checkpoint{Origin: lines[0]}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint without a size", ErrCorrupt)
	}
	c.Size = uint64(size)
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || copy(c.Root[:], root) != len(root) || c.text() != n.Text {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint is not in its canonical form", ErrCorrupt)
	}
	return c, nil
}

// parseOwn is ParseCheckpoint for one as we stored it: with our signature alone, and not a bit otherwise.
func parseOwn(raw []byte, v note.Verifier) (Checkpoint, error) {
	c, err := ParseCheckpoint(raw, v)
	if err != nil {
		return c, err
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		return c, fmt.Errorf("%w: checkpoint: %w", ErrCorrupt, err)
	}
	// Decoding ignores the last bits of base64, and other signatures. So the signature is spelled out again.
	_, err = base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64)
	if again, _ := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs}); err != nil || !bytes.Equal(again, raw) {
		return c, fmt.Errorf("%w: checkpoint is not in its canonical form", ErrCorrupt)
	}
	return c, nil
}

// signed is a published checkpoint.
type signed struct {
	size uint64
	raw  []byte
}

// spacing is how long after a checkpoint another one may be signed on demand: each costs a signature and two durable
// writes, which those who ask at about the same time share.
const spacing = 10 * time.Millisecond

// Checkpoint returns a checkpoint of at least minSize entries, signing one if the last does not go that far: at once, or
// 10 ms after the last. Those who ask meanwhile share it. No checkpoint is returned that the guard
// does not have.
func (l *Log) Checkpoint(ctx context.Context, minSize uint64) ([]byte, error) {
	if c := l.latest.Load(); c != nil && c.size >= minSize {
		return bytes.Clone(c.raw), nil
	}
	select {
	case <-l.sign:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { l.sign <- struct{}{} }()
	if c := l.latest.Load(); c != nil && c.size >= minSize {
		return bytes.Clone(c.raw), nil
	}
	if size := l.Size(); size < minSize {
		return nil, fmt.Errorf("%w: checkpoint of %d entries, there are %d", ErrNotFound, minSize, size)
	}
	if rest := min(spacing, l.cfg.CheckpointInterval) - time.Since(l.signed); rest > 0 {
		select {
		case <-time.After(rest):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := l.signHead(ctx, l.head.Load())
	l.signed = time.Now()
	l.setUnsigned(err)
	if err != nil {
		return nil, err
	}
	l.latest.Store(c)
	return bytes.Clone(c.raw), nil
}

func (l *Log) signHead(ctx context.Context, head *Head) (*signed, error) {
	if err := l.poisoned(); err != nil {
		return nil, err // what a fork or a failed commit leaves behind is not to be vouched for
	}
	text := Checkpoint{Origin: l.cfg.Signer.Name(), Size: head.Size, Root: head.Root}.text()
	raw, err := note.Sign(&note.Note{Text: text}, l.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("ledger: sign checkpoint: %w", err)
	}
	if _, err := parseOwn(raw, l.cfg.Verifier); err != nil {
		return nil, fmt.Errorf("ledger: signer made what its verifier refuses: %w", err)
	}
	if err := l.putGuard(ctx, raw); err != nil {
		return nil, err
	}
	if err := l.cfg.Store.PutCheckpoint(ctx, raw); err != nil {
		return nil, err
	}
	return &signed{size: head.Size, raw: raw}, nil
}

// putGuard moves the guard to a new checkpoint. If the guard does not hold what we last saw, it may be that an earlier
// move of ours got through without us hearing of it; so what it holds is checked, once, as at Open.
func (l *Log) putGuard(ctx context.Context, raw []byte) error {
	err := l.cfg.Guard.CompareAndSwap(ctx, l.guard, raw)
	if errors.Is(err, ErrConflict) {
		if err = l.checkGuard(ctx); err == nil {
			err = l.cfg.Guard.CompareAndSwap(ctx, l.guard, raw)
		}
	}
	if errors.Is(err, ErrFork) || errors.Is(err, ErrRollback) {
		return l.poison(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("ledger: guard: %w", err)
	}
	l.guard = raw
	return nil
}

// loadCheckpoints checks the checkpoints in guard and store against the tree.
func (l *Log) loadCheckpoints(ctx context.Context) error {
	raw, err := l.cfg.Store.Checkpoint(ctx)
	if err != nil {
		return err
	}
	if err := l.checkGuard(ctx); err != nil {
		return err
	}
	if raw == nil {
		return nil
	}
	c, err := parseOwn(raw, l.cfg.Verifier)
	if err != nil {
		return err
	}
	if err := l.covers(ctx, c); err != nil {
		return fmt.Errorf("%w: checkpoint in the store: %w", ErrCorrupt, err)
	}
	if len(l.guard) == 0 {
		return fmt.Errorf("%w: the guard has no checkpoint, the store has", ErrRollback)
	}
	l.latest.Store(&signed{size: c.Size, raw: raw})
	return nil
}

// checkGuard reads the guard and checks that the log holds all that it vouches for.
func (l *Log) checkGuard(ctx context.Context) error {
	raw, err := l.cfg.Guard.Load(ctx)
	if err != nil {
		return fmt.Errorf("ledger: guard: %w", err)
	}
	if len(raw) > 0 {
		c, err := ParseCheckpoint(raw, l.cfg.Verifier)
		if err != nil {
			return fmt.Errorf("ledger: guard: %w", err)
		}
		if err := l.covers(ctx, c); err != nil {
			return fmt.Errorf("ledger: guard: %w", err)
		}
	}
	l.guard = raw
	return nil
}

// covers checks that the log is at least as large as a checkpoint and had its root at its size.
func (l *Log) covers(ctx context.Context, c Checkpoint) error {
	head := l.head.Load()
	if c.Size > head.Size {
		return fmt.Errorf("%w: checkpoint of %d entries, the store has %d", ErrRollback, c.Size, head.Size)
	}
	root, err := rootAt(ctx, l.cfg.Store, *head, c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("%w: another root at %d entries", ErrFork, c.Size)
	}
	return nil
}

// checkpointAll signs the log as it grows.
func (l *Log) checkpointAll(ctx context.Context) {
	tick := time.NewTicker(l.cfg.CheckpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if size := l.Size(); l.unsigned() {
			l.publish(ctx, size)
		}
	}
}

// unsigned reports whether there are entries that no checkpoint covers.
func (l *Log) unsigned() bool {
	c := l.latest.Load()
	return l.Size() > 0 && (c == nil || c.size < l.Size())
}

func (l *Log) publish(ctx context.Context, size uint64) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := l.Checkpoint(ctx, size); err != nil && !errors.Is(err, ErrPoisoned) && !errors.Is(err, context.Canceled) {
		l.cfg.Logger.WarnContext(ctx, "checkpoint not signed", slog.Uint64("size", size), slog.Any("error", err))
	}
}

func (l *Log) setUnsigned(err error) {
	l.health.Lock()
	defer l.health.Unlock()
	if err != nil && l.health.unsigned == nil {
		l.health.unsignedSince = l.cfg.Now()
	}
	l.health.unsigned = err
}
