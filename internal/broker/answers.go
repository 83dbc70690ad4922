package broker

import (
	"context"
	"sync"
	"time"

	"sluis/internal/disclosure"
)

// answers keeps sealed answers for a while, in memory only, so that a requester that lost the connection gets the same answer on a retry
// without the source being asked again. The broker cannot read them.
type answers struct {
	term time.Duration
	max  int // bytes

	mu    sync.Mutex
	bytes int                   // of what is kept; guarded by mu
	kept  map[flightKey]*answer // guarded by mu
	order []*answer             // oldest first; guarded by mu
}

type answer struct {
	key     flightKey
	d       disclosure.Disclosure
	expires time.Time
}

func newAnswers(term time.Duration, maxBytes int) *answers {
	return &answers{term: term, max: maxBytes, kept: map[flightKey]*answer{}}
}

// put keeps an answer. When there is no room the oldest go.
func (a *answers) put(key flightKey, d disclosure.Disclosure, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := &answer{key: key, d: d, expires: now.Add(a.term)}
	a.kept[key] = kept
	a.order = append(a.order, kept)
	a.bytes += size(d)
	a.dropLocked(now)
}

func (a *answers) get(key flightKey, now time.Time) (disclosure.Disclosure, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept, ok := a.kept[key]
	if !ok || !now.Before(kept.expires) {
		return disclosure.Disclosure{}, false
	}
	return kept.d, true
}

// size is what a kept disclosure takes of the memory, nearly: its papers may well be larger than its answer.
func size(d disclosure.Disclosure) int {
	const rest = 4 << 10
	n := rest + len(d.Answer) + len(d.Permit.Payload) + len(d.Manifest.Payload) + len(d.SourceStatement) + len(d.DecisionReceipt.Payload)
	if d.OutcomeReceipt != nil {
		n += len(d.OutcomeReceipt.Payload)
	}
	return n
}

// dropLocked drops what has expired or no longer fits. The caller holds mu.
func (a *answers) dropLocked(now time.Time) {
	for len(a.order) > 0 && (a.bytes > a.max || !now.Before(a.order[0].expires)) {
		oldest := a.order[0]
		a.order[0] = nil
		a.order = a.order[1:]
		a.bytes -= size(oldest.d)
		if a.kept[oldest.key] == oldest {
			delete(a.kept, oldest.key)
		}
	}
}

// sweep drops expired answers until ctx ends.
func (a *answers) sweep(ctx context.Context, now func() time.Time) {
	ticker := time.NewTicker(a.term / 10)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.mu.Lock()
			a.dropLocked(now())
			a.mu.Unlock()
		}
	}
}
