package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

const why = "complaint 2026-17"

func indexes(receipts []disclosure.Receipt) (list []uint64) {
	for _, r := range receipts {
		list = append(list, r.Index)
	}
	return list
}

// TestOfficer checks what a privacy officer finds: what his own organisation had a part in, and that each look-up is an entry.
func TestOfficer(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	between := w.openCase(nurse()) // nothing to do with the police
	_, recorded, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(between))
	must(t, err)

	outsider := person("fg", disclosure.RolePrivacyOfficer, officer())
	stray := disclosure.Caller{Person: "fg", Roles: []disclosure.Role{disclosure.RolePrivacyOfficer}} // of no organisation
	nobody := disclosure.Caller{Organisation: police, Roles: []disclosure.Role{disclosure.RolePrivacyOfficer}}
	lookUps := w.countKind(disclosure.KindLogRead)
	for name, c := range map[string]disclosure.Caller{"requester": policeFG(), "source": careFG()} {
		for _, want := range []disclosure.Receipt{d.DecisionReceipt, *d.OutcomeReceipt} {
			got, err := w.broker.Entry(t.Context(), c, want.Index, why)
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: entry (-want +got):\n%s", name, diff)
			}
			if lookUps++; w.countKind(disclosure.KindLogRead) != lookUps {
				t.Errorf("%s: looked up without an entry", name)
			}
		}
	}
	size := w.log.Size()
	for name, do := range map[string]func() (disclosure.Receipt, error){
		"of others": func() (disclosure.Receipt, error) {
			return w.broker.Entry(t.Context(), policeFG(), recorded.Index, why)
		},
		"by outsiders": func() (disclosure.Receipt, error) {
			return w.broker.Entry(t.Context(), outsider, d.DecisionReceipt.Index, why)
		},
		"not there": func() (disclosure.Receipt, error) { return w.broker.Entry(t.Context(), policeFG(), 1<<40, why) },
		"by nobody": func() (disclosure.Receipt, error) {
			return w.broker.Entry(t.Context(), stray, recorded.Index, why)
		},
	} {
		got, err := do()
		wantReason(t, name, err, disclosure.ReasonNotFound)
		if len(got.Payload) > 0 {
			t.Errorf("%s: given", name)
		}
	}
	if _, err := w.broker.Entry(t.Context(), policeFG(), d.DecisionReceipt.Index, "because"); !errors.Is(err, disclosure.ErrMalformed) {
		t.Errorf("too short a reason: %v", err)
	}
	for _, c := range []disclosure.Caller{policeman(), expert(), person("x", disclosure.RoleOperator, constable()), nobody} {
		_, err := w.broker.Entry(t.Context(), c, d.DecisionReceipt.Index, why)
		wantReason(t, string(c.Person), err, disclosure.ReasonRoleNotAllowed)
		_, _, err = w.broker.Search(t.Context(), c, disclosure.EntryQuery{}, why)
		wantReason(t, string(c.Person), err, disclosure.ReasonRoleNotAllowed)
	}
	if w.log.Size() != size {
		t.Error("refused with an entry")
	}
}

func TestSearch(t *testing.T) {
	w, id, _ := talked(t)
	start := w.clock.Now()
	var want []uint64 // newest first
	for i := range 5 {
		w.clock.Move(time.Hour)
		d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
		w.wantDisclosed(d, err)
		want = append([]uint64{d.DecisionReceipt.Index}, want...)
		if i == 2 {
			d, err := w.ask(caregiver(), newID[disclosure.RequestID](), disclosure.Query{
				Domain: "CG", Case: id, Source: constable(), Purpose: "CASE_TALK", Fields: []disclosure.Field{"CONT.phone"},
			})
			w.wantDenied(d, err, disclosure.ReasonNoGrant)
		}
	}
	search := func(c disclosure.Caller, q disclosure.EntryQuery) []uint64 {
		t.Helper()
		var all []uint64
		for {
			lookUps := w.countKind(disclosure.KindLogRead)
			found, next, err := w.broker.Search(t.Context(), c, q, why)
			must(t, err)
			if w.countKind(disclosure.KindLogRead) != lookUps+1 {
				t.Error("searched without an entry")
			}
			if all = append(all, indexes(found)...); next == 0 {
				return all
			}
			q.Before = next
		}
	}
	decided := disclosure.EntryQuery{
		Kind: disclosure.KindDecisionMade, Requester: police, Source: care, Case: id, Subject: subject, Purpose: "CASE_TALK",
	}
	for _, limit := range []int{1, 2, 100} {
		decided.Limit = limit
		for name, c := range map[string]disclosure.Caller{"requester": policeFG(), "source": careFG()} {
			if got := search(c, decided); !slices.Equal(got, want) {
				t.Errorf("%s, limit %d: got %v, want %v", name, limit, got, want)
			}
		}
	}
	late := decided
	late.From, late.To = start.Add(2*time.Hour), start.Add(4*time.Hour)
	if got := search(policeFG(), late); !slices.Equal(got, want[2:4]) {
		t.Errorf("between: got %v, want %v", got, want[2:4])
	}
	if got := search(policeFG(), disclosure.EntryQuery{Reason: disclosure.ReasonNoGrant}); len(got) != 1 {
		t.Errorf("by reason: got %v", got)
	}
	if got := search(person("fg", disclosure.RolePrivacyOfficer, officer()), decided); len(got) > 0 {
		t.Errorf("an outsider finds %v", got)
	}
	stray := disclosure.Caller{Person: "fg", Roles: []disclosure.Role{disclosure.RolePrivacyOfficer}}
	if got := search(stray, disclosure.EntryQuery{}); len(got) > 0 {
		t.Errorf("somebody of no organisation finds %v", got)
	}
	// Everything that an officer finds without terms concerns his own organisation.
	for _, index := range search(policeFG(), disclosure.EntryQuery{}) {
		e, _, err := w.onDisk(index)
		must(t, err)
		if encoded, err := e.Encode(); err != nil || !bytes.Contains(encoded, []byte(police)) {
			t.Errorf("entry %d, %s, does not concern the police", index, e.Kind)
		}
	}
	// What was erased is no longer found, and does not stand in the way of the rest.
	must(t, w.keyring.Destroy("case/"+string(id)))
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), danger())
	w.wantDisclosed(d, err)
	found, _, err := w.broker.Search(t.Context(), policeFG(), disclosure.EntryQuery{Kind: disclosure.KindDecisionMade}, why)
	if must(t, err); !slices.Equal(indexes(found), []uint64{d.DecisionReceipt.Index}) {
		t.Errorf("after erasing: %v", indexes(found))
	}
	_, err = w.broker.Entry(t.Context(), policeFG(), want[0], why)
	wantReason(t, "erased entry", err, disclosure.ReasonNotFound)
	_, err = w.broker.Entry(t.Context(), policeFG(), d.DecisionReceipt.Index, why)
	must(t, err)
	_, err = w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	wantReason(t, "request in an erased case", err, disclosure.ReasonNotFound)
	w.erased = true
}

// TestLookUpFails lets the ledger refuse the entry of a look-up: nothing is given.
func TestLookUpFails(t *testing.T) {
	w, id, _ := talked(t)
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	w.store.breakWith(func(ledger.Batch) error { return ledger.ErrFull }, nil)
	got, err := w.broker.Entry(t.Context(), policeFG(), d.DecisionReceipt.Index, why)
	wantReason(t, "entry", err, disclosure.ReasonLedgerUnavailable)
	found, next, err := w.broker.Search(t.Context(), policeFG(), disclosure.EntryQuery{}, why)
	wantReason(t, "search", err, disclosure.ReasonLedgerUnavailable)
	if len(got.Payload) > 0 || len(found) > 0 || next != 0 {
		t.Error("given without an entry")
	}
}

// TestProofs verifies what the broker proves with the code of x/mod alone.
func TestProofs(t *testing.T) {
	w, id, _ := talked(t)
	var receipts []disclosure.Receipt
	for range 20 {
		d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
		w.wantDisclosed(d, err)
		receipts = append(receipts, d.DecisionReceipt, *d.OutcomeReceipt)
	}
	var olds []ledger.Checkpoint
	for _, r := range receipts {
		proof, signed, err := w.broker.InclusionProof(t.Context(), r.Index)
		must(t, err)
		c, err := ledger.ParseCheckpoint(signed, w.verifier)
		must(t, err)
		if err := tlog.CheckRecord(hashes(t, proof), int64(c.Size), c.Root, int64(r.Index), tlog.RecordHash(r.Leaf)); err != nil {
			t.Errorf("entry %d: %v", r.Index, err)
		}
		olds = append(olds, c)
	}
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	signed, err := w.broker.Checkpoint(t.Context(), w.log.Size())
	must(t, err)
	latest, err := ledger.ParseCheckpoint(signed, w.verifier)
	must(t, err)
	olds = append(olds, latest)
	for i, from := range olds {
		for _, to := range olds[i:] {
			proof, checkpoint, err := w.broker.ConsistencyProof(t.Context(), from.Size, to.Size)
			must(t, err)
			if err := tlog.CheckTree(hashes(t, proof), int64(to.Size), to.Root, int64(from.Size), from.Root); err != nil {
				t.Errorf("from %d to %d: %v", from.Size, to.Size, err)
			}
			if (len(checkpoint) > 0) != (to.Size == latest.Size) {
				t.Errorf("from %d to %d: a checkpoint of %d bytes", from.Size, to.Size, len(checkpoint))
			}
		}
	}
	proof, checkpoint, err := w.broker.ConsistencyProof(t.Context(), olds[0].Size, 0)
	must(t, err)
	c, err := ledger.ParseCheckpoint(checkpoint, w.verifier)
	must(t, err)
	if err := tlog.CheckTree(hashes(t, proof), int64(c.Size), c.Root, int64(olds[0].Size), olds[0].Root); err != nil {
		t.Error("to the latest:", err)
	}
	for name, do := range map[string]func() error{
		"entry that is not there": func() error {
			_, _, err := w.broker.InclusionProof(t.Context(), w.log.Size())
			return err
		},
		"entry past all numbers": func() error {
			_, _, err := w.broker.InclusionProof(t.Context(), 1<<64-1)
			return err
		},
		"backwards": func() error {
			_, _, err := w.broker.ConsistencyProof(t.Context(), 5, 4)
			return err
		},
		"beyond the end": func() error {
			_, _, err := w.broker.ConsistencyProof(t.Context(), 1, w.log.Size()+1)
			return err
		},
		"checkpoint beyond the end": func() error {
			_, err := w.broker.Checkpoint(t.Context(), w.log.Size()+1)
			return err
		},
	} {
		wantReason(t, name, do(), disclosure.ReasonNotFound)
	}
}

func hashes(t *testing.T, list [][]byte) (proof []tlog.Hash) {
	t.Helper()
	for _, h := range list {
		if len(h) != tlog.HashSize {
			t.Fatal(fmt.Sprint("hash of ", len(h), " bytes"))
		}
		proof = append(proof, tlog.Hash(h))
	}
	return proof
}
