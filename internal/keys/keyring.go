package keys

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sluis/internal/ledger"
)

var (
	// ErrErased is returned for a key that was destroyed: what it sealed can never be read again. It wraps ledger.ErrErased, so that a
	// Keyring is a Sealer of the ledger.
	ErrErased = fmt.Errorf("key was destroyed: %w", ledger.ErrErased)
	// ErrUnknownKey is returned for a key that was never created.
	ErrUnknownKey = errors.New("unknown key")
	// ErrExhausted is returned when a key has sealed as often as is safe.
	ErrExhausted = errors.New("key has sealed too often")
	// ErrSealed is returned when a ciphertext does not open under its key and additional data.
	ErrSealed = errors.New("ciphertext does not open")
	// ErrWrongKEK is returned when a keyring was made with another key-encryption key.
	ErrWrongKEK = errors.New("keyring was made with another key-encryption key")
	// ErrLocked is returned when another process has the keyring open.
	ErrLocked = errors.New("keyring is open in another process")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("keyring is closed")
)

const (
	keyringFormat = 1
	maxIDLength   = 256

	defaultCacheSize   = 16384
	defaultLockTimeout = time.Second

	usesStep = 1 << 16
	maxUses  = 1<<32 - 1<<28
)

// The buckets and keys of the file: see the package documentation.
const (
	bucketMeta      = "meta"
	bucketKeys      = "keys"
	bucketUses      = "uses"
	bucketDestroyed = "destroyed"

	metaFormat = "format"
	metaCheck  = "check"
)

// KeyringConfig says where a keyring is and what wraps its keys.
type KeyringConfig struct {
	Path string // made if it does not exist; its directory must exist
	KEK  KEK

	// CacheSize is how many unwrapped keys are held in memory, about 1 KiB each. Zero means 16384.
	CacheSize int
	// LockTimeout is how long to wait for another process to let go of the file. Zero means one second.
	LockTimeout time.Duration
}

// Keyring creates, uses and destroys data keys. It is safe for concurrent use, and one process at a time can have it open.
type Keyring struct {
	db   *bbolt.DB
	file *os.File // of db, which closes it

	cacheSize int
	usesStep  uint64
	maxUses   uint64

	// mu is held shared while a key is in use, and exclusively to change the cache, the file's keys or the KEK: once Destroy has returned,
	// no operation with the destroyed key is under way.
	mu     sync.RWMutex
	kek    KEK
	cache  map[string]*dataKey
	closed bool
}

// dataKey is an unwrapped key, ready for use.
type dataKey struct {
	aead cipher.AEAD
	uses atomic.Uint64 // how often it has sealed
	// saved is the count of uses on disk; owned by the holder of Keyring.mu.
	saved uint64
}

// OpenKeyring opens the keyring, or makes one if there is no file. It fails with ErrLocked, ErrInsecureFile, ErrWrongKEK or ErrMalformed.
func OpenKeyring(cfg KeyringConfig) (*Keyring, error) {
	if cfg.KEK.aead == nil {
		return nil, errors.New("open keyring: no key-encryption key")
	}
	k := &Keyring{
		kek:       cfg.KEK,
		cache:     make(map[string]*dataKey),
		cacheSize: cfg.CacheSize,
		usesStep:  usesStep,
		maxUses:   maxUses,
	}
	if k.cacheSize <= 0 {
		k.cacheSize = defaultCacheSize
	}
	timeout := cfg.LockTimeout
	if timeout <= 0 {
		timeout = defaultLockTimeout
	}
	db, err := bbolt.Open(cfg.Path, fileMode, &bbolt.Options{
		Timeout: timeout,
		OpenFile: func(path string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(path, flag, mode)
			if err != nil {
				return nil, err
			}
			if err := checkFile(f); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			k.file = f
			return f, nil
		},
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open keyring %s: %w", cfg.Path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("open keyring %s: %w: not a keyring", cfg.Path, ErrMalformed)
	case err != nil:
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	k.db = db
	if err := k.prepare(cfg.Path); err != nil {
		return nil, fmt.Errorf("open keyring %s: %w", cfg.Path, errors.Join(err, db.Close()))
	}
	return k, nil
}

// prepare makes the buckets of a new file, or checks those of an old one, and wipes what an interrupted Destroy left behind.
func (k *Keyring) prepare(path string) error {
	empty := false
	if err := k.db.View(func(tx *bbolt.Tx) error {
		name, _ := tx.Cursor().First()
		empty = name == nil
		return nil
	}); err != nil {
		return err
	}
	if empty {
		if err := k.db.Update(k.initialise); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			return err
		}
	}
	if err := k.db.View(k.verify); err != nil {
		return err
	}
	return k.wipe()
}

func (k *Keyring) initialise(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketKeys, bucketUses, bucketDestroyed} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	return errors.Join(
		meta.Put([]byte(metaFormat), []byte{keyringFormat}),
		meta.Put([]byte(metaCheck), k.kek.wrap("", make([]byte, keySize))))
}

func (k *Keyring) verify(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketKeys, bucketUses, bucketDestroyed} {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: not a keyring", ErrMalformed)
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if format := meta.Get([]byte(metaFormat)); len(format) != 1 || format[0] != keyringFormat {
		return fmt.Errorf("%w: unknown format", ErrMalformed)
	}
	if _, err := k.kek.unwrap("", meta.Get([]byte(metaCheck))); err != nil {
		return ErrWrongKEK
	}
	return nil
}

// Create makes the data key id (1 to 256 bytes), durable when it returns. It does nothing if the key exists, and fails with ErrErased if
// it was destroyed: an id is never used for a second key.
func (k *Keyring) Create(id string) error {
	if id == "" || len(id) > maxIDLength {
		return fmt.Errorf("create data key: the id is not between 1 and %d bytes", maxIDLength)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	if k.cache[id] != nil {
		return nil
	}
	switch err := k.db.View(func(tx *bbolt.Tx) error { return lookup(tx, id) }); {
	case err == nil:
		return nil
	case !errors.Is(err, ErrUnknownKey):
		return err
	}
	key := make([]byte, keySize)
	defer clear(key)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("create data key: %w", err)
	}
	if err := k.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketKeys)).Put([]byte(id), k.kek.wrap(id, key))
	}); err != nil {
		return fmt.Errorf("create data key: %w", err)
	}
	return nil
}

// lookup returns nil if the key exists, else ErrErased or ErrUnknownKey.
func lookup(tx *bbolt.Tx, id string) error {
	switch {
	case tx.Bucket([]byte(bucketDestroyed)).Get([]byte(id)) != nil:
		return ErrErased
	case tx.Bucket([]byte(bucketKeys)).Get([]byte(id)) == nil:
		return ErrUnknownKey
	}
	return nil
}

// Seal encrypts plaintext under the data key id, and binds it to aad, which Open must be given again. The result is 28 bytes longer than
// plaintext. Errors wrap ErrUnknownKey, ErrErased, ErrExhausted or ErrClosed, or tell of a failing disk.
func (k *Keyring) Seal(id string, plaintext, aad []byte) ([]byte, error) {
	key, err := k.acquire(id)
	if err != nil {
		return nil, err
	}
	uses := key.uses.Add(1)
	if uses > k.maxUses {
		k.mu.RUnlock()
		return nil, ErrExhausted
	}
	sealed := key.aead.Seal(nil, nil, plaintext, aad) //nolint:gosec // the AEAD makes the nonce
	k.mu.RUnlock()
	if uses%k.usesStep == 0 {
		if err := k.saveUses(); err != nil {
			return nil, err
		}
	}
	return sealed, nil
}

// Open decrypts what Seal made under the same id and aad. Errors wrap ErrSealed, ErrUnknownKey, ErrErased or ErrClosed.
func (k *Keyring) Open(id string, ciphertext, aad []byte) ([]byte, error) {
	key, err := k.acquire(id)
	if err != nil {
		return nil, err
	}
	defer k.mu.RUnlock()
	plaintext, err := key.aead.Open(nil, nil, ciphertext, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// acquire returns the key with mu held shared; the caller releases mu when it is done with the key. After an error mu is not held.
func (k *Keyring) acquire(id string) (*dataKey, error) {
	for {
		k.mu.RLock()
		if k.closed {
			k.mu.RUnlock()
			return nil, ErrClosed
		}
		if key := k.cache[id]; key != nil {
			return key, nil
		}
		k.mu.RUnlock()
		if err := k.load(id); err != nil {
			return nil, err
		}
	}
}

// load brings a key into the cache. A full cache is emptied as a whole: that is rare, and saves the counts in one transaction.
func (k *Keyring) load(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	if k.cache[id] != nil {
		return nil
	}
	key := new(dataKey)
	if err := k.db.View(func(tx *bbolt.Tx) error {
		if err := lookup(tx, id); err != nil {
			return err
		}
		raw, err := k.kek.unwrap(id, tx.Bucket([]byte(bucketKeys)).Get([]byte(id)))
		if err != nil {
			return fmt.Errorf("load data key: %w", err)
		}
		defer clear(raw)
		if uses := tx.Bucket([]byte(bucketUses)).Get([]byte(id)); len(uses) == 8 {
			key.saved = binary.BigEndian.Uint64(uses)
			key.uses.Store(key.saved)
		}
		key.aead, err = newAEAD(raw)
		return err
	}); err != nil {
		return err
	}
	if len(k.cache) >= k.cacheSize {
		if err := k.saveUsesLocked(); err != nil {
			return err
		}
		clear(k.cache)
	}
	k.cache[id] = key
	return nil
}

func (k *Keyring) saveUses() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	return k.saveUsesLocked()
}

// saveUsesLocked makes the counts of all cached keys durable. The caller holds mu.
func (k *Keyring) saveUsesLocked() error {
	dirty := false
	for _, key := range k.cache {
		dirty = dirty || key.uses.Load() != key.saved
	}
	if !dirty {
		return nil
	}
	if err := k.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(bucketUses))
		for id, key := range k.cache {
			if uses := key.uses.Load(); uses != key.saved {
				if err := bucket.Put([]byte(id), binary.BigEndian.AppendUint64(nil, uses)); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("save use counts: %w", err)
	}
	for _, key := range k.cache {
		key.saved = key.uses.Load()
	}
	return nil
}

// Destroy makes everything sealed under the data key id unreadable for ever, durable when it returns. It waits for operations under way.
// Doing it again is allowed, and finishes what failed the first time. It fails with ErrUnknownKey for a key that never was.
func (k *Keyring) Destroy(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	err := k.db.Update(func(tx *bbolt.Tx) error {
		switch err := lookup(tx, id); {
		case errors.Is(err, ErrErased):
			return nil
		case err != nil:
			return err
		}
		return errors.Join(
			tx.Bucket([]byte(bucketDestroyed)).Put([]byte(id), []byte{1}),
			tx.Bucket([]byte(bucketUses)).Delete([]byte(id)),
			tx.Bucket([]byte(bucketKeys)).Delete([]byte(id)))
	})
	if err != nil {
		return fmt.Errorf("destroy data key: %w", err)
	}
	delete(k.cache, id)
	if err := k.wipe(); err != nil {
		return fmt.Errorf("destroy data key: %w", err)
	}
	return nil
}

// Rekey wraps every data key under a new key-encryption key, in one transaction. After it, destroy the old one: then no older copy of the
// keyring can be opened, so that keys destroyed since cannot come back from a backup.
func (k *Keyring) Rekey(to KEK) error {
	if to.aead == nil {
		return errors.New("rekey: no key-encryption key")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	if err := k.db.Update(func(tx *bbolt.Tx) error {
		rewrapped := make(map[string][]byte) // a bucket must not change while it is iterated
		bucket := tx.Bucket([]byte(bucketKeys))
		if err := bucket.ForEach(func(id, wrapped []byte) error {
			raw, err := k.kek.unwrap(string(id), wrapped)
			if err != nil {
				return err
			}
			defer clear(raw)
			rewrapped[string(id)] = to.wrap(string(id), raw)
			return nil
		}); err != nil {
			return err
		}
		for id, wrapped := range rewrapped {
			if err := bucket.Put([]byte(id), wrapped); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketMeta)).Put([]byte(metaCheck), to.wrap("", make([]byte, keySize)))
	}); err != nil {
		return fmt.Errorf("rekey: %w", err)
	}
	k.kek = to
	if err := k.wipe(); err != nil {
		return fmt.Errorf("rekey: %w", err)
	}
	return nil
}

// Close saves the use counts, forgets the keys and closes the file. Closing twice is allowed.
func (k *Keyring) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil
	}
	k.closed = true
	err := k.saveUsesLocked()
	clear(k.cache)
	return errors.Join(err, k.db.Close())
}
