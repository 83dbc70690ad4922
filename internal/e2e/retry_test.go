//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

// checkSame checks that two results of one request have the same receipts (I7).
func checkSame(t *testing.T, a, b disclosure.Disclosure) {
	t.Helper()
	if diff := cmp.Diff(a.DecisionReceipt, b.DecisionReceipt); diff != "" {
		t.Errorf("receipt of the decision differs (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(a.OutcomeReceipt, b.OutcomeReceipt); diff != "" {
		t.Errorf("receipt of the outcome differs (-first +second):\n%s", diff)
	}
	if a.Outcome != b.Outcome || a.OutcomeReason != b.OutcomeReason || a.Decision.Effect != b.Decision.Effect {
		t.Errorf("%s %s %s, and then %s %s %s", a.Decision.Effect, a.Outcome, a.OutcomeReason, b.Decision.Effect, b.Outcome, b.OutcomeReason)
	}
}

// TestRetry asks the same again, before and after a restart of the broker and after a crash: the same receipts, and the source is asked once
// (I7).
func TestRetry(t *testing.T) {
	w := newWorld(t)
	w.start()
	asked := w.station(police())
	c := w.openCase(persons()[0])
	client := w.client(supervisor())
	denied := c.aboutNuisance()
	denied.Motive = nil
	permittedID, deniedID, keptID := newRequestID(), newRequestID(), newRequestID()

	permitted := mustDisclose(t, w, c, permittedID)
	refused := must[disclosure.Disclosure](t)(client.RequestDisclosure(t.Context(), deniedID, denied, nil))
	if refused.Decision.Effect != disclosure.Deny {
		t.Fatalf("effect %s, want a denial", refused.Decision.Effect)
	}
	// The agent's own way: with its answer checked and its receipts kept.
	result, err := w.requester(supervisor()).Request(t.Context(), ask(keptID, c.aboutNuisance()))
	if err != nil || len(result.Records) != nuisanceReports {
		t.Fatalf("%d records, %v, want %d", len(result.Records), err, nuisanceReports)
	}
	questions := len(asked.questions())

	again := func(t *testing.T, kept bool) {
		t.Helper()
		second := must[disclosure.Disclosure](t)(client.RequestDisclosure(t.Context(), permittedID, c.aboutNuisance(), nil))
		checkSame(t, permitted, second)
		if kept && !bytes.Equal(permitted.Answer, second.Answer) {
			t.Error("the answer is another one")
		}
		if !kept && len(second.Answer) > 0 {
			t.Error("the broker still has the answer after a restart; it must never have been written")
		}
		checkSame(t, refused, must[disclosure.Disclosure](t)(client.RequestDisclosure(t.Context(), deniedID, denied, nil)))
		changed := c.aboutNuisance()
		changed.Fields = changed.Fields[:1]
		_, err := client.RequestDisclosure(t.Context(), permittedID, changed, nil)
		wantReason(t, "another question under the same id", err, disclosure.ReasonRequestIDReused)
		colleague := supervisor()
		colleague.name = "colleague"
		_, err = w.client(colleague).RequestDisclosure(t.Context(), permittedID, c.aboutNuisance(), nil)
		wantReason(t, "another person under the same id", err, disclosure.ReasonRequestIDReused)
		if kept {
			return
		}
		_, err = w.requester(supervisor()).Request(t.Context(), ask(keptID, c.aboutNuisance()))
		wantReason(t, "retry by the agent", err, disclosure.ReasonAnswerGone)
	}
	again(t, true)
	w.stop()
	w.start()
	again(t, false)
	w.running().kill()
	<-w.running().done
	w.start()
	again(t, false)
	if got := len(asked.questions()); got != questions {
		t.Errorf("the source was asked %d times, want %d", got, questions)
	}
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	checkReceipt(t, entries, permitted.DecisionReceipt)
	checkReceipt(t, entries, *permitted.OutcomeReceipt)
	checkReceipt(t, entries, refused.DecisionReceipt)
}

// TestSourceOffline asks a source that is not there, and again when it is.
func TestSourceOffline(t *testing.T) {
	w := newWorld(t)
	w.start()
	source := w.station(police())
	c := w.openCase(persons()[0])
	source.disconnect()
	id := newRequestID()
	_, err := w.client(supervisor()).RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
	wantReason(t, "source that is away", err, disclosure.ReasonSourceOffline)
	source.connect()
	mustDisclose(t, w, c, id)
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	wantOutcomes(t, entries, id, "FAILED SOURCE_OFFLINE", "DISCLOSED")
}

// TestSlowSource lets a source answer after the broker has given up waiting: the answer is thrown away, and that is recorded.
func TestSlowSource(t *testing.T) {
	w := newWorld(t)
	w.configure("source_timeout", "1s")
	w.start()
	source := w.station(police())
	c := w.openCase(persons()[0])
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	source.hold(func(ctx context.Context, _ receipt.Permit) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
	})
	id := newRequestID()
	started := time.Now()
	d, err := w.client(supervisor()).RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
	wantReason(t, "slow source", err, disclosure.ReasonSourceTimeout)
	if took := time.Since(started); took > patience/2 {
		t.Errorf("the requester was told after %v", took)
	}
	if len(d.Answer) > 0 {
		t.Error("an answer came with the refusal")
	}
	<-asked
	close(release)
	eventually(t, "the entry of the late answer", func() bool {
		found, _, err := w.client(officer(probationOIN, "R")).Search(
			t.Context(), disclosure.EntryQuery{Case: c.id, Kind: disclosure.KindOutcomeRecorded, Limit: 100}, "controle op verzoek",
		)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(found, func(r disclosure.Receipt) bool {
			e, err := disclosure.DecodeEvent(r.Payload)
			return err == nil && e.OutcomeRecorded.Outcome == disclosure.Dropped
		})
	})
	source.hold(nil)
	mustDisclose(t, w, c, id)
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	wantOutcomes(t, entries, id, "FAILED SOURCE_TIMEOUT", "DROPPED SOURCE_TIMEOUT", "DISCLOSED")
}

// TestLostConnection cuts a requester off while its question is with the source. The disclosure goes on to its end, and the requester finds
// it when it comes back: one question, one outcome.
func TestLostConnection(t *testing.T) {
	w := newWorld(t)
	w.start()
	source := w.station(police())
	c := w.openCase(persons()[0])
	ctx, hangUp := context.WithCancel(t.Context())
	release := make(chan struct{})
	source.hold(func(context.Context, receipt.Permit) {
		hangUp()
		<-release
	})
	id := newRequestID()
	_, err := w.client(supervisor()).RequestDisclosure(ctx, id, c.aboutNuisance(), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v, want %v", err, context.Canceled)
	}
	results := make(chan disclosure.Disclosure, 1)
	go func() { // comes back before the end, and waits for the same one
		d, err := w.client(supervisor()).RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
		if err != nil {
			t.Error(err)
		}
		results <- d
	}()
	close(release)
	d := <-results
	if d.Outcome != disclosure.Disclosed || len(d.Answer) == 0 {
		t.Errorf("outcome %s with an answer of %d bytes, want an answer", d.Outcome, len(d.Answer))
	}
	if n := len(source.questions()); n != 1 {
		t.Errorf("the source was asked %d times, want 1", n)
	}
	w.stop()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	wantOutcomes(t, entries, id, "DISCLOSED")
}

// wantOutcomes checks what is recorded of a request.
func wantOutcomes(t *testing.T, entries []entry, id disclosure.RequestID, want ...string) {
	t.Helper()
	var got []string
	for _, o := range outcomesOf(entries, id) {
		text := string(o.Outcome)
		if o.Reason != "" {
			text += " " + string(o.Reason)
		}
		got = append(got, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recorded outcomes differ (-want +got):\n%s", diff)
	}
}
