package envelope

import (
	"container/list"
	"crypto/sha256"
	"sync"
)

// digestCache remembers what was made of some bytes, by their SHA-256. When it is full, what was asked for longest ago
// goes. Safe for concurrent use.
type digestCache[V any] struct {
	size int

	mu      sync.Mutex // guards all below
	entries map[[sha256.Size]byte]*list.Element
	recent  *list.List // of cached[V], the latest used in front
}

type cached[V any] struct {
	digest [sha256.Size]byte
	value  V
}

// newDigestCache makes a cache of at most size values (at least one).
func newDigestCache[V any](size int) *digestCache[V] {
	return &digestCache[V]{size: max(size, 1), entries: make(map[[sha256.Size]byte]*list.Element), recent: list.New()}
}

func (c *digestCache[V]) find(digest [sha256.Size]byte) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[digest]
	if !ok {
		return value, false
	}
	c.recent.MoveToFront(element)
	found, ok := element.Value.(cached[V])
	return found.value, ok
}

// remember replaces what was remembered of the same bytes.
func (c *digestCache[V]) remember(digest [sha256.Size]byte, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[digest]; ok {
		c.remove(element)
	}
	c.entries[digest] = c.recent.PushFront(cached[V]{digest, value})
	for c.recent.Len() > c.size {
		c.remove(c.recent.Back())
	}
}

func (c *digestCache[V]) forget(digest [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[digest]; ok {
		c.remove(element)
	}
}

// remove expects the lock to be held.
func (c *digestCache[V]) remove(element *list.Element) {
	if old, ok := c.recent.Remove(element).(cached[V]); ok {
		delete(c.entries, old.digest)
	}
}
