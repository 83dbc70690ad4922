//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// entry is an entry of the ledger, opened.
type entry struct {
	disclosure.Receipt
	event disclosure.Event
}

// readLedger opens the ledger in a broker's folder offline, with the broker's own keys, and returns all of its entries. The broker must not
// be running.
func readLedger(t *testing.T, broker string) []entry {
	t.Helper()
	entries, err := openLedger(t.Context(), broker)
	if err != nil {
		t.Fatalf("open the ledger offline: %v", err)
	}
	return entries
}

func openLedger(ctx context.Context, broker string) (entries []entry, err error) {
	signer, vkey, err := keys.LoadNoteSigner(filepath.Join(broker, "keys", "ledger.key"))
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	kek, err := keys.LoadKEK(filepath.Join(broker, "keys", "kek.key"))
	if err != nil {
		return nil, err
	}
	keyring, err := keys.OpenKeyring(keys.KeyringConfig{Path: filepath.Join(broker, "data", "keyring.db"), KEK: kek})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, keyring.Close()) }()
	cfg := boltstore.Config{MinFree: 1}
	store, err := boltstore.Open(filepath.Join(broker, "data", "ledger.db"), cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	index, err := boltstore.OpenIndex(filepath.Join(broker, "data", "index.db"), cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	log, err := ledger.Open(ctx, ledger.Config{
		Store: store, Index: index, Sealer: keyring, Folder: casefile.Folder{},
		Guard: ledger.NewFileGuard(filepath.Join(broker, "guard", "checkpoint")), Signer: signer, Verifier: verifier,
	})
	if err != nil {
		return nil, err
	}
	for i := range log.Size() {
		opened, err := log.Record(ctx, i)
		if err != nil {
			return nil, err
		}
		event, err := disclosure.DecodeEvent(opened.Payload)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{disclosure.Receipt{
			Index: opened.Index, Time: opened.Time, Leaf: opened.Leaf, Salt: opened.Salt, Payload: opened.Payload,
		}, event})
	}
	return entries, nil
}

// outcomesOf are the outcomes of a request, in order.
func outcomesOf(entries []entry, id disclosure.RequestID) []disclosure.OutcomeRecorded {
	var list []disclosure.OutcomeRecorded
	for _, e := range entries {
		if e.event.Kind == disclosure.KindOutcomeRecorded && e.event.OutcomeRecorded.Request == id {
			list = append(list, *e.event.OutcomeRecorded)
		}
	}
	return list
}

// checkEnds checks that every permit in the ledger came to exactly one end, and that no request was answered twice (I7).
func checkEnds(t *testing.T, entries []entry) {
	t.Helper()
	ends := map[uint64]disclosure.Outcome{}
	answered := map[disclosure.RequestID]uint64{}
	for _, e := range entries {
		if e.event.Kind != disclosure.KindOutcomeRecorded {
			continue
		}
		o := e.event.OutcomeRecorded
		if o.Outcome == disclosure.Disclosed {
			if before, ok := answered[o.Request]; ok {
				t.Errorf("entry %d: request %s is disclosed a second time, after entry %d", e.Index, o.Request, before)
			}
			answered[o.Request] = e.Index
		}
		if o.Outcome == disclosure.Dropped {
			continue // comes after the end
		}
		if before, ok := ends[o.DecisionIndex]; ok {
			t.Errorf("entry %d: decision %d ended before, as %s, and now as %s", e.Index, o.DecisionIndex, before, o.Outcome)
		}
		ends[o.DecisionIndex] = o.Outcome
		if made := entries[o.DecisionIndex].event; made.Kind != disclosure.KindDecisionMade ||
			made.DecisionMade.Decision.Effect != disclosure.Permit || made.DecisionMade.Input.Request.ID != o.Request {
			t.Errorf("entry %d: outcome of entry %d, which is no permit of request %s", e.Index, o.DecisionIndex, o.Request)
		}
	}
	for _, e := range entries {
		if e.event.Kind == disclosure.KindDecisionMade && e.event.DecisionMade.Decision.Effect == disclosure.Permit {
			if _, ok := ends[e.Index]; !ok {
				t.Errorf("entry %d: permit without an end", e.Index)
			}
		}
	}
}
