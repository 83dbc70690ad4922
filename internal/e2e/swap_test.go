//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// edit changes items of a state behind the broker's back: whoever owns the broker can.
func edit[F ~func(key string) (ledger.Item, error)](
	ctx context.Context, path string, change func(get F) ([]ledger.StateChange, error),
) (err error) {
	store, err := boltstore.Open(path, boltstore.Config{MinFree: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	head, err := store.Head(ctx)
	if err != nil {
		return err
	}
	changes, err := change(func(key string) (ledger.Item, error) {
		item, err := store.Get(ctx, key)
		if err == nil && item.Version == 0 {
			err = errors.New("no item " + key)
		}
		return item, err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(changes, func(a, b ledger.StateChange) int { return strings.Compare(a.Key, b.Key) })
	return store.Commit(ctx, ledger.Batch{From: head.Size, Head: head, State: changes})
}

func identityKey(c *casus, p disclosure.Party) string {
	return "identity/" + string(c.id) + "/" + string(p.OIN) + "/" + string(p.Domain)
}

// TestSwap lets the broker lie about who a case is about: it exchanges the sealed identities of two cases, or their pseudonyms, in its own
// state. The sources refuse, whether they hold BSNs or not, and the ledger does not verify any more (I5).
func TestSwap(t *testing.T) {
	honest := newWorld(t)
	honest.start()
	honest.station(police())
	a, b := honest.openCase(persons()[0]), honest.openCase(persons()[1])
	mustDisclose(t, honest, a, newRequestID())
	honest.stop()

	type getter func(key string) (ledger.Item, error)
	// exchange gives each of two items the value of the other.
	exchange := func(get getter, one, other string) ([]ledger.StateChange, error) {
		x, errX := get(one)
		y, errY := get(other)
		x.Value, y.Value = y.Value, x.Value
		return []ledger.StateChange{x, y}, errors.Join(errX, errY)
	}
	identities := func(get getter) ([]ledger.StateChange, error) {
		p, errP := exchange(get, identityKey(a, police()), identityKey(b, police()))
		r, errR := exchange(get, identityKey(a, probation()), identityKey(b, probation()))
		return append(p, r...), errors.Join(errP, errR)
	}
	// With the pseudonym of the case, also that of its evidence: else the policy would deny.
	pseudonyms := func(get getter) (changes []ledger.StateChange, err error) {
		keys := []string{"case/" + string(a.id)}
		for _, id := range a.evidence {
			keys = append(keys, "evidence/"+string(a.id)+"/"+string(id))
		}
		for _, key := range keys {
			item, err := get(key)
			if err != nil {
				return nil, err
			}
			item.Value = bytes.ReplaceAll(item.Value, []byte(a.subject), []byte(b.subject))
			changes = append(changes, item)
		}
		return changes, nil
	}
	for name, lie := range map[string]func(getter) ([]ledger.StateChange, error){
		"identities of two cases": identities,
		"pseudonym of the case":   pseudonyms,
		"both": func(get getter) ([]ledger.StateChange, error) {
			i, errI := identities(get)
			p, errP := pseudonyms(get)
			return append(i, p...), errors.Join(errI, errP)
		},
		"identities of two participants": func(get getter) ([]ledger.StateChange, error) {
			return exchange(get, identityKey(a, police()), identityKey(a, probation()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := honest.fork(t)
			if err := edit(t.Context(), w.broker("data", "ledger.db"), lie); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.station(police())
			w.station(probation())
			for _, ask := range []agent.Ask{ask(newRequestID(), a.aboutNuisance()), ask(newRequestID(), a.aboutSupervision())} {
				who := supervisor()
				if ask.Domain == "ME" {
					who = director()
				}
				result, err := w.requester(who).Request(t.Context(), ask)
				if err != nil || result.Outcome != disclosure.Refused || result.Reason != disclosure.ReasonIdentityMismatch ||
					len(result.Records) > 0 {
					t.Errorf("%s: %s %s %s with %d records, %v, want the source to refuse as %s", ask.Source.Domain,
						result.Decision.Effect, result.Outcome, result.Reason, len(result.Records), err, disclosure.ReasonIdentityMismatch)
				}
			}
			w.stop()
			if e := verify(t, w.config()); e.status != exitNotVerified {
				t.Errorf("broker verify ended with status %d, want %d: %s", e.status, exitNotVerified, e.err)
			}
		})
	}
}

// TestLyingRequester lets a requester outside a case have evidence about one person and seal the identity of another, in every way that it
// can: the source refuses (I5).
func TestLyingRequester(t *testing.T) {
	w := newWorld(t)
	w.start()
	asked := w.station(police())
	x, y := persons()[0], persons()[1]
	subject := w.openCase(x).subject // how the municipality knows the pseudonym
	w.recordOutside(orderOfficer(), subject, "W16")
	client := w.client(orderOfficer())

	seal := func(t *testing.T, edit func(*envelope.Identity, *envelope.DirectBinding)) (disclosure.RequestID, []byte) {
		t.Helper()
		id := newRequestID()
		who, binding := x, envelope.DirectBinding{
			RequestID: string(id), Pseudonym: string(subject), Source: string(policeOIN) + "/P", Requester: string(municipalityOIN),
		}
		edit(&who, &binding)
		key, chain := w.tlsKey(municipalityOIN)
		return id, must[[]byte](t)(envelope.SealIdentity(w.partners[policeOIN].envelope.PublicKey(), binding, who, key, chain))
	}
	query := disclosure.Query{
		Domain: "MB", Subject: subject, Source: police(), Purpose: "OPENORDE", Fields: []disclosure.Field{"POLINC.kind"}, Motive: motive(),
	}
	for name, test := range map[string]struct {
		edit func(*envelope.Identity, *envelope.DirectBinding)
		want disclosure.ReasonCode
	}{
		"the truth":                {func(*envelope.Identity, *envelope.DirectBinding) {}, ""},
		"another person":           {func(who *envelope.Identity, _ *envelope.DirectBinding) { *who = y }, disclosure.ReasonIdentityMismatch},
		"another number":           {func(who *envelope.Identity, _ *envelope.DirectBinding) { who.BSN = y.BSN }, disclosure.ReasonIdentityMismatch},
		"no number":                {func(who *envelope.Identity, _ *envelope.DirectBinding) { who.BSN = "" }, disclosure.ReasonIdentityMismatch},
		"a number of nobody":       {func(who *envelope.Identity, _ *envelope.DirectBinding) { who.BSN = "999999999" }, disclosure.ReasonIdentityMismatch},
		"sealed for another":       {func(_ *envelope.Identity, b *envelope.DirectBinding) { b.Source = string(probationOIN) + "/R" }, disclosure.ReasonIdentityMismatch},
		"sealed for another id":    {func(_ *envelope.Identity, b *envelope.DirectBinding) { b.RequestID = string(newRequestID()) }, disclosure.ReasonIdentityMismatch},
		"sealed in another's name": {func(_ *envelope.Identity, b *envelope.DirectBinding) { b.Requester = string(policeOIN) }, disclosure.ReasonIdentityMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			id, sealed := seal(t, test.edit)
			before := len(asked.questions())
			d := must[disclosure.Disclosure](t)(client.RequestDisclosure(t.Context(), id, query, sealed))
			if d.Decision.Effect != disclosure.Permit || len(asked.questions()) != before+1 {
				t.Fatalf("effect %s %v, want a permit that the source has to refuse", d.Decision.Effect, d.Decision.Reasons)
			}
			if d.OutcomeReason != test.want || (len(d.Answer) > 0) != (test.want == "") {
				t.Errorf("%s %s with an answer of %d bytes, want %q", d.Outcome, d.OutcomeReason, len(d.Answer), test.want)
			}
		})
	}
	t.Run("evidence about another person", func(t *testing.T) {
		result := must[agent.Result](t)(w.requester(orderOfficer()).Request(t.Context(), aboutOrder(y)))
		if result.Decision.Effect != disclosure.Deny || len(result.Records) > 0 {
			t.Errorf("effect %s with %d records, want a denial: the evidence is about someone else", result.Decision.Effect, len(result.Records))
		}
	})
}
