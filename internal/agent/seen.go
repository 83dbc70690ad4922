package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"sluis/internal/disclosure"
)

var (
	// ErrReplayed says that a permit was seen before, or is too old to tell.
	ErrReplayed = errors.New("permit was seen before")
	// ErrManyPermits says that more permits are remembered than fit, so that no new one can be accepted.
	ErrManyPermits = errors.New("too many permits at once")
)

const (
	permitsFile = "permits.db"
	// maxSeen bounds the file: at 30 seconds of term and 30 of skew, ten thousand permits a second for a minute.
	maxSeen = 600_000
	// pruneAtOnce bounds what one permit pays for forgetting others.
	pruneAtOnce = 32
)

// SeenPermits remembers which permits were acted on, across restarts, so that each is answered at most once. A permit is
// forgotten when it has expired; nothing that expired before the last one forgotten is accepted, so that a clock that
// goes back opens no gap.
//
// It is a bbolt file with the buckets
//
//	seen    SHA-256 of the permit's payload -> when it may be forgotten (int64, big-endian, nanoseconds since 1970 UTC)
//	due     that time and that digest -> nothing
//	meta    "forgotten" -> the latest time in due that was forgotten
//
// Only one process can have it open.
type SeenPermits struct {
	db  *bbolt.DB
	now func() time.Time
	max int

	waitingMu sync.Mutex // guards waiting
	waiting   []*permitUse
	writing   sync.Mutex // held by who writes for all that wait
}

// permitUse is a permit that waits to be marked. Its result is there when done is; writing guards both.
type permitUse struct {
	digest []byte
	due    time.Time
	done   bool
	result error
}

func bucketSeen() []byte   { return []byte("seen") }
func bucketDue() []byte    { return []byte("due") }
func bucketMeta() []byte   { return []byte("meta") }
func keyForgotten() []byte { return []byte("forgotten") }

// OpenSeenPermits opens the file in the state folder, or makes it. It fails when another process has it open.
func OpenSeenPermits(state string, now func() time.Time) (*SeenPermits, error) {
	path := filepath.Join(state, permitsFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("agent: %s is in use: another agent is answering with the same state folder", path)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketSeen(), bucketDue(), bucketMeta()} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("agent: open %s: %w", path, errors.Join(err, db.Close()))
	}
	return &SeenPermits{db: db, now: now, max: maxSeen}, nil
}

// Close closes the file.
func (s *SeenPermits) Close() error { return s.db.Close() }

// Use marks a permit as used, durably when it returns without error. It fails with [ErrReplayed] or [ErrManyPermits], or
// when the file cannot be written.
//
// Those who come while the disk is busy share the next write: whoever gets to write then does it for all that wait.
func (s *SeenPermits) Use(ctx context.Context, digest []byte, expires time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	use := &permitUse{digest: digest, due: expires.Add(disclosure.ClockSkew)}
	s.waitingMu.Lock()
	s.waiting = append(s.waiting, use)
	s.waitingMu.Unlock()

	s.writing.Lock()
	defer s.writing.Unlock()
	if !use.done {
		s.waitingMu.Lock()
		together := s.waiting
		s.waiting = nil
		s.waitingMu.Unlock()
		s.write(together)
	}
	return use.result
}

// write marks permits in one transaction. It expects writing to be held.
func (s *SeenPermits) write(together []*permitUse) {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, use := range together {
			var err error
			if use.result, err = s.mark(tx, use); err != nil {
				return err
			}
		}
		return nil
	})
	for _, use := range together {
		use.done = true
		if err != nil {
			use.result = err
		}
	}
}

// mark gives [ErrReplayed] or [ErrManyPermits] as the result for one permit, and an error when nothing can be written.
func (s *SeenPermits) mark(tx *bbolt.Tx, use *permitUse) (result, err error) {
	if err := forget(tx, s.now()); err != nil {
		return nil, err
	}
	seen, meta := tx.Bucket(bucketSeen()), tx.Bucket(bucketMeta())
	stamp := encodeTime(use.due)
	if string(stamp) <= string(meta.Get(keyForgotten())) || seen.Get(use.digest) != nil {
		return ErrReplayed, nil
	}
	if seen.Sequence() >= uint64(s.max) {
		return ErrManyPermits, nil
	}
	if err := seen.Put(use.digest, stamp); err != nil {
		return nil, err
	}
	// The sequence counts what is in the bucket: bbolt has no cheaper way to know.
	if err := seen.SetSequence(seen.Sequence() + 1); err != nil {
		return nil, err
	}
	return nil, tx.Bucket(bucketDue()).Put(append(stamp, use.digest...), nil)
}

// forget drops some of the permits that are due.
func forget(tx *bbolt.Tx, now time.Time) error {
	seen, due, meta := tx.Bucket(bucketSeen()), tx.Bucket(bucketDue()), tx.Bucket(bucketMeta())
	until := encodeTime(now)
	cursor := due.Cursor()
	for range pruneAtOnce {
		key, _ := cursor.First()
		if key == nil || string(key[:timeBytes]) >= string(until) {
			return nil
		}
		if err := meta.Put(keyForgotten(), append([]byte(nil), key[:timeBytes]...)); err != nil {
			return err
		}
		if err := seen.Delete(key[timeBytes:]); err != nil {
			return err
		}
		if err := seen.SetSequence(seen.Sequence() - 1); err != nil {
			return err
		}
		if err := cursor.Delete(); err != nil {
			return err
		}
	}
	return nil
}

const timeBytes = 8

// encodeTime gives bytes that sort as the times do, from 1970 on.
func encodeTime(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(max(t.UnixNano(), 0)))
}
