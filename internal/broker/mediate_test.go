package broker_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluis/internal/broker"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
	"sluis/internal/receipt"
)

// talked is a world with a case in which the policeman may ask the caregiver for contact data.
func talked(t *testing.T, config ...func(*broker.Config)) (*world, disclosure.CaseID, disclosure.Grant) {
	t.Helper()
	w := newWorld(t, config...)
	id := w.openCase(constable(), nurse())
	return w, id, w.grant(id, "CONT.*")
}

// outcomes returns the outcomes of a request in the ledger, in order.
func (w *world) outcomes(id disclosure.RequestID) (list []disclosure.OutcomeRecorded) {
	w.t.Helper()
	events, _ := w.events()
	for _, e := range events {
		if e.Kind == disclosure.KindOutcomeRecorded && e.OutcomeRecorded.Request == id {
			list = append(list, *e.OutcomeRecorded)
		}
	}
	return list
}

// decisions returns the decisions on a request in the ledger, in order.
func (w *world) decisions(id disclosure.RequestID) (list []disclosure.DecisionMade) {
	w.t.Helper()
	events, _ := w.events()
	for _, e := range events {
		if e.Kind == disclosure.KindDecisionMade && e.DecisionMade.Input.Request.ID == id {
			list = append(list, *e.DecisionMade)
		}
	}
	return list
}

// wantOutcomes checks how the tries of a request ended, written as OUTCOME:REASON.
func (w *world) wantOutcomes(id disclosure.RequestID, want ...string) {
	w.t.Helper()
	var got []string
	for _, o := range w.outcomes(id) {
		got = append(got, strings.TrimSuffix(fmt.Sprintf("%s:%s", o.Outcome, o.Reason), ":"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// wantNothing checks that a failed call gave nothing away.
func wantNothing(t testing.TB, d disclosure.Disclosure) {
	t.Helper()
	if diff := cmp.Diff(disclosure.Disclosure{}, d); diff != "" {
		t.Errorf("got a disclosure with the error (-want +got):\n%s", diff)
	}
}

func (w *world) wantDenied(d disclosure.Disclosure, err error, want disclosure.ReasonCode) {
	w.t.Helper()
	must(w.t, err)
	if d.Decision.Effect != disclosure.Deny || len(d.Decision.Reasons) == 0 || d.Decision.Reasons[0].Code != want {
		w.t.Errorf("got %s for %v, want a denial for %s", d.Decision.Effect, d.Decision.Reasons, want)
	}
	if d.Outcome != "" || len(d.Answer)+len(d.Permit.Payload)+len(d.Manifest.Payload) > 0 || d.OutcomeReceipt != nil {
		w.t.Errorf("denial comes with %s", d.Outcome)
	}
}

func (w *world) wantDisclosed(d disclosure.Disclosure, err error) {
	w.t.Helper()
	must(w.t, err)
	if d.Outcome != disclosure.Disclosed || string(d.Answer) != string(sealedAnswer(d.Request)) || d.OutcomeReceipt == nil {
		w.t.Fatalf("got %s (%s, %v) with answer %q, want it disclosed", d.Outcome, d.OutcomeReason, d.Decision.Reasons, d.Answer)
	}
}

func TestDisclosure(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone", "POLNUIS.kind"))
	w.wantDisclosed(d, err)
	if got, want := d.Decision.Released, []disclosure.Field{"CONT.phone"}; !slices.Equal(got, want) {
		t.Errorf("released %v, want %v", got, want)
	}
	if len(d.Decision.Withheld) != 1 || d.Decision.Withheld[0].Field != "POLNUIS.kind" {
		t.Errorf("withheld %v, want POLNUIS.kind", d.Decision.Withheld)
	}
	for _, r := range []disclosure.Receipt{d.DecisionReceipt, *d.OutcomeReceipt} {
		if err := receipt.Check(r); err != nil {
			t.Error(err)
		}
		e, at, err := w.onDisk(r.Index)
		must(t, err)
		if encoded, err := e.Encode(); err != nil || string(encoded) != string(r.Payload) || !at.Equal(r.Time) {
			t.Errorf("receipt is not of entry %d: %v", r.Index, err)
		}
	}
	if string(d.SourceStatement) != string(w.orgs[care].statement) {
		t.Error("source's statement is another")
	}
	w.wantOutcomes(request, "DISCLOSED")
	made := w.decisions(request)[0]
	if made.Input.Request.Subject != subject || made.Input.Request.Person != policeman().Person {
		t.Errorf("decided on %+v", made.Input.Request)
	}
}

// TestLedgerFails is invariant I1: a ledger that does not take an entry keeps what the entry is about from happening.
func TestLedgerFails(t *testing.T) {
	broken := errors.New("disk is gone")
	always := func(err error) func(ledger.Batch) error { return func(ledger.Batch) error { return err } }
	for _, test := range []struct {
		name          string
		atOutcome     bool // else at the decision
		before, after func(ledger.Batch) error
		poisons       bool
		want          []string // outcomes after the repair and a retry
	}{
		{"decision refused", false, always(broken), nil, true, []string{"DISCLOSED"}},
		{"decision in doubt", false, nil, always(broken), true, []string{"ABANDONED:BROKER_RESTARTED", "DISCLOSED"}},
		{"decision, disk full", false, always(ledger.ErrFull), nil, false, []string{"DISCLOSED"}},
		{"outcome refused", true, always(broken), nil, true, []string{"ABANDONED:BROKER_RESTARTED", "DISCLOSED"}},
		{"outcome in doubt", true, nil, always(broken), true, []string{"DISCLOSED"}},
		{"outcome, disk full", true, always(ledger.ErrFull), nil, false, []string{"ABANDONED:LEDGER_UNAVAILABLE", "DISCLOSED"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, id, _ := talked(t)
			request, asked := newID[disclosure.RequestID](), 0
			fault := func() { w.store.breakWith(test.before, test.after) }
			if test.atOutcome {
				asked = 1
				w.sources.act(func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
					fault()
					return w.sources.answer(ctx, p, q)
				})
			} else {
				fault()
			}
			d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
			wantReason(t, "request", err, disclosure.ReasonLedgerUnavailable)
			wantNothing(t, d)
			if got := w.sources.times(request); got != asked {
				t.Errorf("source was asked %d times, want %d", got, asked)
			}
			if w.broker.Healthy() == nil {
				t.Error("healthy with a broken ledger")
			}
			w.sources.act(nil)
			_, err = w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
			wantReason(t, "next request", err, disclosure.ReasonLedgerUnavailable)

			w.store.breakWith(nil, nil)
			if test.poisons {
				_, err = w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
				wantReason(t, "request before the restart", err, disclosure.ReasonLedgerUnavailable)
				w.restart()
			} else if test.atOutcome {
				_, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
				wantReason(t, "retry too soon", err, disclosure.ReasonRequestInProgress)
				w.clock.Move(41 * time.Second)
			}
			d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
			must(t, err)
			if d.Outcome != disclosure.Disclosed {
				t.Errorf("retry after the repair: got %s", d.Outcome)
			}
			w.wantOutcomes(request, test.want...)
			if err := w.broker.Healthy(); err != nil {
				t.Error("after the repair:", err)
			}
		})
	}
}

// TestAnswerRejected is invariant I4: what does not match the permit is not released.
func TestAnswerRejected(t *testing.T) {
	change := func(change func(w *world, m *receipt.Manifest)) func(*world) script {
		return func(w *world) script {
			return func(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
				m := w.sources.manifest(p, q, sealedAnswer(p.Request))
				change(w, &m)
				return w.sources.sign(p.Source.OIN, m, sealedAnswer(p.Request))
			}
		}
	}
	reply := func(change func(w *world, r *disclosure.Reply)) func(*world) script {
		return func(w *world) script {
			return func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
				r, err := w.sources.answer(ctx, p, q)
				change(w, &r)
				return r, err
			}
		}
	}
	for _, test := range []struct {
		name   string
		script func(*world) script
	}{
		{"more than permitted", change(func(_ *world, m *receipt.Manifest) { m.Released = []disclosure.Field{"CONT.phone", "HEALTH.doctor"} })},
		{"what was withheld", change(func(_ *world, m *receipt.Manifest) { m.Released = []disclosure.Field{"POLNUIS.kind"} })},
		{"silent about a field", change(func(_ *world, m *receipt.Manifest) { m.Released = nil })},
		{"another request", change(func(_ *world, m *receipt.Manifest) { m.Request = newID[disclosure.RequestID]() })},
		{"another permit", change(func(_ *world, m *receipt.Manifest) { m.Permit = receipt.Digest([]byte("another")) })},
		{"another requester", change(func(_ *world, m *receipt.Manifest) { m.Requester = officer() })},
		{"another source", change(func(_ *world, m *receipt.Manifest) { m.Source = benefits() })},
		{"older than the permit", change(func(w *world, m *receipt.Manifest) { m.AnsweredAt = w.clock.Now().Add(-time.Hour) })},
		{"another answer", change(func(_ *world, m *receipt.Manifest) { m.AnswerDigest = receipt.Digest([]byte("another")) })},
		{"refusal with an answer", change(func(_ *world, m *receipt.Manifest) {
			m.Released, m.AnswerDigest, m.Refusal = nil, nil, disclosure.ReasonHouseRule
		})},
		{"too large an answer", func(w *world) script {
			return func(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
				answer := make([]byte, disclosure.MaxAnswer+1)
				return w.sources.sign(p.Source.OIN, w.sources.manifest(p, q, answer), answer)
			}
		}},
		{"signed by another", func(w *world) script {
			return func(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
				return w.sources.sign(police, w.sources.manifest(p, q, sealedAnswer(p.Request)), sealedAnswer(p.Request))
			}
		}},
		{"no signature", reply(func(_ *world, r *disclosure.Reply) { r.Manifest.Signature = nil })},
		{"broken signature", reply(func(_ *world, r *disclosure.Reply) { r.Manifest.Signature[3] ^= 1 })},
		{"broken manifest", reply(func(_ *world, r *disclosure.Reply) { r.Manifest.Payload = append(r.Manifest.Payload, ' ') })},
		{"no manifest", reply(func(_ *world, r *disclosure.Reply) { r.Manifest = disclosure.Signed{} })},
		{"nothing", reply(func(_ *world, r *disclosure.Reply) { *r = disclosure.Reply{} })},
		{"no answer", reply(func(_ *world, r *disclosure.Reply) { r.Answer = nil })},
		{"statement has expired", reply(func(w *world, _ *disclosure.Reply) {
			w.clock.Move(2 * time.Hour)
		})},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, id, _ := talked(t)
			w.grant(id, "HEALTH.medication", "POLNUIS.*")
			short := w.state(care, time.Hour)
			_, err := w.broker.PublishStatement(t.Context(), caregiver(), short)
			must(t, err)
			w.sources.act(test.script(w))
			request := newID[disclosure.RequestID]()
			q := talk(id, "CONT.*", "HEALTH.medication", "POLNUIS.date", "POLNUIS.place")
			d, err := w.ask(policeman(), request, q)
			wantReason(t, "request", err, disclosure.ReasonAnswerRejected)
			wantNothing(t, d)
			w.wantOutcomes(request, "FAILED:ANSWER_REJECTED")
			if o := w.outcomes(request)[0]; len(o.Manifest)+len(o.Released)+len(o.Withheld) > 0 || len(o.PermitDigest) == 0 {
				t.Errorf("recorded %+v", o)
			}
			d, err = w.broker.GetDisclosure(t.Context(), policeman(), request)
			if err != nil || len(d.Answer) > 0 || d.Outcome != disclosure.Failed {
				t.Errorf("afterwards there is %+v, %v", d, err)
			}
			// Nothing was released, so the same request may be tried again.
			_, err = w.broker.PublishStatement(t.Context(), caregiver(), w.state(care, 24*time.Hour))
			must(t, err)
			w.sources.act(nil)
			d, err = w.ask(policeman(), request, q)
			w.wantDisclosed(d, err)
		})
	}
}

// TestManifestTooLarge lets a source sign a manifest that is small as it stands but, quoted in an entry, larger than an entry may be.
func TestManifestTooLarge(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	w.grant(id, "CONT.*", "HEALTH.*", "POLNUIS.*")
	var size int
	w.sources.act(func(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		m := w.sources.manifest(p, q, sealedAnswer(p.Request))
		m.Version, m.Released = receipt.Version, nil
		for _, f := range p.Fields {
			m.Withheld = append(m.Withheld, disclosure.Withheld{
				Field: f, Reason: disclosure.Reason{Code: disclosure.ReasonHouseRule, Article: strings.Repeat("<", 1000)},
			})
		}
		var payload bytes.Buffer
		encoder := json.NewEncoder(&payload)
		encoder.SetEscapeHTML(false)
		must(t, encoder.Encode(m))
		size = payload.Len()
		signature := ed25519.Sign(w.orgs[care].signing, append([]byte("sluis/manifest/v1\x00"), payload.Bytes()...))
		return disclosure.Reply{
			Manifest: disclosure.Signed{Payload: payload.Bytes(), Signature: signature}, Answer: sealedAnswer(p.Request),
		}, nil
	})
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.*", "HEALTH.*", "POLNUIS.*"))
	wantReason(t, "request", err, disclosure.ReasonAnswerRejected)
	wantNothing(t, d)
	w.wantOutcomes(request, "FAILED:ANSWER_REJECTED")
	if size > receipt.MaxManifest {
		t.Errorf("the manifest is too large to begin with: %d bytes", size)
	}
}

// TestForeignStatement lets the directory hold a statement of another organisation under the source's name: its key signs nothing here.
func TestForeignStatement(t *testing.T) {
	foreign := false
	w, id, _ := talked(t, func(cfg *broker.Config) {
		verify := cfg.VerifyStatement
		cfg.VerifyStatement = func(signed []byte, now time.Time) (broker.Statement, error) {
			s, err := verify(signed, now)
			if foreign {
				s.Organisation = police
			}
			return s, err
		}
	})
	foreign = true
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	wantReason(t, "request", err, disclosure.ReasonAnswerRejected)
	wantNothing(t, d)
	w.wantOutcomes(request, "FAILED:ANSWER_REJECTED")
}

func TestSourceRefuses(t *testing.T) {
	w, id, _ := talked(t)
	w.sources.act(w.sources.refuse(disclosure.ReasonHouseRule))
	request := newID[disclosure.RequestID]()
	first, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	must(t, err)
	if first.Outcome != disclosure.Refused || first.OutcomeReason != disclosure.ReasonHouseRule || len(first.Answer) > 0 ||
		len(first.Manifest.Payload) == 0 {
		t.Errorf("got %s for %q with an answer of %d bytes", first.Outcome, first.OutcomeReason, len(first.Answer))
	}
	w.wantOutcomes(request, "REFUSED:HOUSE_RULE")
	w.sources.act(nil)
	again, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	must(t, err)
	wantSameReceipts(t, first, again)
	if w.sources.times(request) != 1 {
		t.Error("source was asked again")
	}
}

func wantSameReceipts(t testing.TB, want, got disclosure.Disclosure) {
	t.Helper()
	if diff := cmp.Diff(want.DecisionReceipt, got.DecisionReceipt); diff != "" {
		t.Errorf("receipt of the decision (-first +again):\n%s", diff)
	}
	if diff := cmp.Diff(want.OutcomeReceipt, got.OutcomeReceipt); diff != "" {
		t.Errorf("receipt of the outcome (-first +again):\n%s", diff)
	}
	if diff := cmp.Diff(encode(want.Decision), encode(got.Decision)); diff != "" {
		t.Errorf("decision (-first +again):\n%s", diff)
	}
	if want.Outcome != got.Outcome || want.OutcomeReason != got.OutcomeReason ||
		cmp.Diff(want.Manifest, got.Manifest, cmpopts.EquateEmpty()) != "" {
		t.Errorf("outcome: first %s %q, again %s %q", want.Outcome, want.OutcomeReason, got.Outcome, got.OutcomeReason)
	}
}

// TestSameRequestAtOnce is invariant I7: whoever asks the same at the same time gets the same.
func TestSameRequestAtOnce(t *testing.T) {
	const callers = 24
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	asked, act, by := hold()
	w.sources.act(by)
	results, errs := make([]disclosure.Disclosure, callers), make([]error, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { results[i], errs[i] = w.ask(policeman(), request, talk(id, "CONT.phone")) })
	}
	<-asked
	_, err := w.ask(policeman(), request, talk(id, "CONT.email"))
	wantReason(t, "another body meanwhile", err, disclosure.ReasonRequestIDReused)
	other := person("other", disclosure.RoleProfessional, constable())
	_, err = w.ask(other, request, talk(id, "CONT.phone"))
	wantReason(t, "another person meanwhile", err, disclosure.ReasonRequestIDReused)
	// The same id of another organisation is another request.
	_, err = w.ask(caregiver(), request, disclosure.Query{
		Domain: "CG", Case: id, Source: constable(), Purpose: "CASE_TALK", Fields: []disclosure.Field{"CONT.phone"},
	})
	must(t, err)
	act <- w.sources.answer
	group.Wait()
	for i := range callers {
		w.wantDisclosed(results[i], errs[i])
		wantSameReceipts(t, results[0], results[i])
	}
	if got := w.sources.times(request); got != 1 {
		t.Errorf("source was asked %d times", got)
	}
	if got := len(w.decisions(request)); got != 2 { // one of each organisation
		t.Errorf("decided %d times", got)
	}
}

func TestRetry(t *testing.T) {
	w, id, g := talked(t)
	request := newID[disclosure.RequestID]()
	first, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(first, err)
	_, err = w.ask(policeman(), request, talk(id, "CONT.email"))
	wantReason(t, "another body", err, disclosure.ReasonRequestIDReused)
	_, err = w.ask(person("other", disclosure.RoleProfessional, constable()), request, talk(id, "CONT.phone"))
	wantReason(t, "another person", err, disclosure.ReasonRequestIDReused)

	// The disclosure was made; what ends the grant does not undo it.
	_, _, err = w.broker.RevokeGrant(t.Context(), expert(), g.ID, "no longer needed")
	must(t, err)
	w.clock.Move(10*time.Minute - time.Millisecond)
	within, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(within, err)
	wantSameReceipts(t, first, within)
	if diff := cmp.Diff(first, within); diff != "" {
		t.Errorf("retry (-first +again):\n%s", diff)
	}
	w.clock.Move(time.Millisecond)
	for _, when := range []string{"after the term", "after a restart"} {
		after, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
		must(t, err)
		wantSameReceipts(t, first, after)
		if len(after.Answer) > 0 {
			t.Errorf("%s there is still an answer", when)
		}
		w.restart()
	}
	if got := w.sources.times(request); got != 1 {
		t.Errorf("source was asked %d times", got)
	}
}

func TestRetryOfDenial(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	request := newID[disclosure.RequestID]()
	first, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDenied(first, err, disclosure.ReasonNoGrant)
	w.grant(id, "CONT.*")
	again, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDenied(again, err, disclosure.ReasonNoGrant)
	wantSameReceipts(t, first, again)
	w.restart()
	again, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
	must(t, err)
	wantSameReceipts(t, first, again)
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
}

func TestRetryAfterFailure(t *testing.T) {
	w, id, g := talked(t)
	for _, test := range []struct {
		name string
		by   script
		want disclosure.ReasonCode
	}{
		{"offline", fail(offline()), disclosure.ReasonSourceOffline},
		{"broken", fail(errors.New("no reason given")), disclosure.ReasonSourceFailed},
		{"too slow", fail(fmt.Errorf("%w: %w", disclosure.ReasonSourceTimeout, context.DeadlineExceeded)), disclosure.ReasonSourceTimeout},
		{"deadline", fail(context.DeadlineExceeded), disclosure.ReasonSourceTimeout},
		{"empty reason", fail(disclosure.ReasonCode("")), disclosure.ReasonInternal},
	} {
		t.Run(test.name, func(t *testing.T) {
			request := newID[disclosure.RequestID]()
			w.sources.act(test.by)
			d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
			wantReason(t, "request", err, test.want)
			wantNothing(t, d)
			_, err = w.ask(policeman(), request, talk(id, "CONT.email"))
			wantReason(t, "another body", err, disclosure.ReasonRequestIDReused)
			w.sources.act(nil)
			d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
			w.wantDisclosed(d, err)
			w.wantOutcomes(request, "FAILED:"+string(test.want), "DISCLOSED")
			if got := len(w.decisions(request)); got != 2 {
				t.Errorf("decided %d times, want 2", got)
			}
		})
	}
	t.Run("grant is gone", func(t *testing.T) {
		request := newID[disclosure.RequestID]()
		w.sources.act(fail(offline()))
		_, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
		wantReason(t, "request", err, disclosure.ReasonSourceOffline)
		_, _, err = w.broker.RevokeGrant(t.Context(), expert(), g.ID, "no longer needed")
		must(t, err)
		w.sources.act(nil)
		d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
		w.wantDenied(d, err, disclosure.ReasonNoGrant)
	})
}

// TestAbandoned stops the ledger, and with it the broker, while a source is being asked.
func TestAbandoned(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	asked, act, by := hold()
	w.sources.act(by)
	done := make(chan error, 1)
	go func() {
		d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
		wantNothing(t, d)
		done <- err
	}()
	<-asked
	must(t, w.kill())
	act <- w.sources.answer
	wantReason(t, "request", <-done, disclosure.ReasonLedgerUnavailable)
	w.wantOutcomes(request)
	w.sources.act(nil)
	w.restart()
	w.wantOutcomes(request, "ABANDONED:BROKER_RESTARTED")
	d, err := w.broker.GetDisclosure(t.Context(), policeman(), request)
	if err != nil || d.Outcome != disclosure.Abandoned || d.OutcomeReceipt == nil {
		t.Errorf("got %+v, %v", d, err)
	}
	d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	w.restart()
	w.wantOutcomes(request, "ABANDONED:BROKER_RESTARTED", "DISCLOSED")
}

// TestCallerLeaves cancels the caller while the source is being asked: the disclosure runs to its end, and a retry finds it.
func TestCallerLeaves(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	asked, act, by := hold()
	w.sources.act(by)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		d, err := w.askContext(ctx, policeman(), request, talk(id, "CONT.phone"))
		wantNothing(t, d)
		done <- err
	}()
	<-asked
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
	act <- w.sources.answer
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	if got := w.sources.times(request); got != 1 {
		t.Errorf("source was asked %d times", got)
	}

	// A caller that is gone before it begins: the entry tells whether anything happened.
	request = newID[disclosure.RequestID]()
	w.sources.act(nil)
	_, _ = w.askContext(ctx, policeman(), request, talk(id, "CONT.phone"))
	d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	if got := w.sources.times(request); got != 1 {
		t.Errorf("source was asked %d times", got)
	}
}

// TestLateAnswer lets a real deadline pass, and the answer come after it.
func TestLateAnswer(t *testing.T) {
	w, id, _ := talked(t, func(cfg *broker.Config) { cfg.SourceTimeout = 10 * time.Millisecond })
	var late []disclosure.Question
	w.sources.act(func(ctx context.Context, _ receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		<-ctx.Done()
		late = append(late, q)
		// The relay may well tell of it before the outcome is written.
		w.broker.Late(nurse(), q)
		return disclosure.Reply{}, ctx.Err()
	})
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	wantReason(t, "request", err, disclosure.ReasonSourceTimeout)
	wantNothing(t, d)
	w.sources.act(nil)
	d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	w.broker.Late(nurse(), late[0])                                                              // and twice
	w.broker.Late(nurse(), disclosure.Question{Permit: disclosure.Signed{Payload: []byte("{")}}) // and rubbish
	w.stop()
	var got []disclosure.Outcome
	for _, o := range w.outcomes(request) {
		got = append(got, o.Outcome)
		if o.Outcome == disclosure.Dropped && (o.DecisionIndex == d.DecisionReceipt.Index || len(o.PermitDigest) == 0) {
			t.Errorf("dropped: %+v", o)
		}
	}
	slices.Sort(got)
	want := []disclosure.Outcome{disclosure.Disclosed, disclosure.Dropped, disclosure.Dropped, disclosure.Failed}
	if !slices.Equal(got, want) {
		t.Errorf("outcomes %v, want %v in some order", got, want)
	}
	w.start()
	again, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	must(t, err)
	wantSameReceipts(t, d, again)
}

// TestClosed is invariant I8: what is wrong before there is a decision ends the request without an entry and without a question.
func TestClosed(t *testing.T) {
	w, id, _ := talked(t)
	stranger := disclosure.Party{OIN: "00000001008888888000", Domain: "P"}
	keyless := disclosure.Party{OIN: "00000001002222222000", Domain: "P"}
	must(t, w.hats(keyless.OIN, keyless.Domain))
	change := func(change func(*disclosure.Query)) disclosure.Query {
		q := talk(id, "CONT.phone")
		change(&q)
		return q
	}
	long := motive()
	long.Aim = strings.Repeat("x", disclosure.MaxText+1)
	for _, test := range []struct {
		name   string
		caller disclosure.Caller
		query  disclosure.Query
		sealed []byte
		want   error
	}{
		{
			"unknown organisation", person("x", disclosure.RoleProfessional, stranger),
			talk(id, "CONT.phone"), nil, disclosure.ReasonUnknownOrganisation,
		},
		{"unknown source", policeman(), change(func(q *disclosure.Query) { q.Source = stranger }), nil, disclosure.ReasonUnknownOrganisation},
		{"hat not of the organisation", policeman(), change(func(q *disclosure.Query) { q.Domain = "CG" }), nil, disclosure.ReasonHatNotAllowed},
		{
			"hat not of the person", person("x", disclosure.RoleProfessional, benefits()),
			change(func(q *disclosure.Query) { q.Domain = "ME" }), nil, disclosure.ReasonHatNotAllowed,
		},
		{"hat not of the source", policeman(), change(func(q *disclosure.Query) { q.Source.Domain = "P" }), nil, disclosure.ReasonHatNotAllowed},
		{
			"no person",
			disclosure.Caller{Organisation: police, Domains: []disclosure.Domain{"P"}},
			talk(id, "CONT.phone"), nil, disclosure.ReasonHatNotAllowed,
		},
		{"oneself", policeman(), change(func(q *disclosure.Query) { q.Source = constable() }), nil, disclosure.ErrMalformed},
		{"case and pseudonym", policeman(), change(func(q *disclosure.Query) { q.Subject = subject }), nil, disclosure.ErrMalformed},
		{"neither case nor pseudonym", policeman(), change(func(q *disclosure.Query) { q.Case = "" }), []byte("identity"), disclosure.ErrMalformed},
		{"identity in a case", policeman(), talk(id, "CONT.phone"), []byte("identity"), disclosure.ErrMalformed},
		{"no identity outside a case", policeman(), danger(), nil, disclosure.ReasonIdentityMissing},
		{"too large an identity", policeman(), danger(), make([]byte, disclosure.MaxSealed+1), disclosure.ReasonIdentityMissing},
		{"no fields", policeman(), talk(id), nil, disclosure.ErrMalformed},
		{"a field twice", policeman(), talk(id, "CONT.phone", "CONT.phone"), nil, disclosure.ErrMalformed},
		{"too long a motivation", policeman(), change(func(q *disclosure.Query) { q.Motive = &long }), nil, disclosure.ErrMalformed},
		{"no key statement", person("x", disclosure.RoleProfessional, keyless), talk(id, "CONT.phone"), nil, disclosure.ReasonKeyStatementInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			size, request := w.log.Size(), newID[disclosure.RequestID]()
			d, err := w.broker.RequestDisclosure(t.Context(), test.caller, request, test.query, test.sealed, bodyDigest(test.query))
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			wantNothing(t, d)
			if w.log.Size() != size || w.sources.times(request) != 0 {
				t.Error("there is an entry or a question")
			}
		})
	}
	t.Run("key statement expired", func(t *testing.T) {
		w.clock.Move(61 * 24 * time.Hour)
		size := w.log.Size()
		_, err := w.ask(policeman(), newID[disclosure.RequestID](), danger())
		wantReason(t, "request", err, disclosure.ReasonKeyStatementInvalid)
		if w.log.Size() != size {
			t.Error("there is an entry")
		}
	})
}

// TestOutsider compares what an outsider is told about a case that exists, one he left, and one that does not exist.
func TestOutsider(t *testing.T) {
	w, id, _ := talked(t)
	_, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
	must(t, err)
	left := w.openCase(constable(), nurse(), officer())
	_, _, err = w.broker.RemoveParticipant(t.Context(), expert(), left, officer())
	must(t, err)
	closed := w.openCase(constable(), nurse())
	_, _, err = w.broker.CloseCase(t.Context(), expert(), closed, "done")
	must(t, err)
	question := func(c disclosure.CaseID) disclosure.Query {
		q := talk(c, "CONT.phone")
		q.Domain = "R"
		return q
	}
	type told struct {
		Decision, Event, Explanation, Explained, Key string
	}
	tell := func(c disclosure.CaseID) told {
		t.Helper()
		request := newID[disclosure.RequestID]()
		d, err := w.ask(probator(), request, question(c))
		w.wantDenied(d, err, disclosure.ReasonNotMember)
		explanation, explained, err := w.broker.Explain(t.Context(), probator(), request, question(c), nil)
		must(t, err)
		opened, err := w.log.Record(t.Context(), d.DecisionReceipt.Index)
		must(t, err)
		same := strings.NewReplacer(
			string(c), "CASE", string(request), "REQUEST", base64Of(bodyDigest(question(c))), "BODY",
		)
		return told{
			Decision: encode(d.Decision), Event: same.Replace(string(d.DecisionReceipt.Payload)),
			Explanation: encode(explanation), Explained: same.Replace(string(explained.Payload)), Key: opened.KeyID,
		}
	}
	want := tell(newID[disclosure.CaseID]())
	for name, c := range map[string]disclosure.CaseID{"exists": id, "left": left, "closed": closed} {
		if diff := cmp.Diff(want, tell(c)); diff != "" {
			t.Errorf("%s: an outsider is told something else than about a case that does not exist (-not there +there):\n%s", name, diff)
		}
		_, err := w.broker.GetCase(t.Context(), probator(), c)
		wantReason(t, "get case", err, disclosure.ReasonNotFound)
	}
}

// TestPolicyFails is invariant I8: without a decision of the active policy there is none.
func TestPolicyFails(t *testing.T) {
	w, id, _ := talked(t)
	distort := func(change func(*disclosure.Decision)) func(*rules) { return func(r *rules) { r.distort = change } }
	for _, test := range []struct {
		name   string
		change func(*rules)
		want   disclosure.ReasonCode
	}{
		{"error", func(r *rules) { r.err = errors.New("out of memory") }, disclosure.ReasonPolicyUnavailable},
		{"error with a reason", func(r *rules) { r.err = disclosure.ReasonPolicyUndefined }, disclosure.ReasonPolicyUndefined},
		{"another digest", distort(func(d *disclosure.Decision) { d.PolicyDigest = policyDigest("2") }), disclosure.ReasonPolicyUndefined},
		{
			"undefined", distort(func(d *disclosure.Decision) { *d = disclosure.Decision{PolicyDigest: d.PolicyDigest} }),
			disclosure.ReasonPolicyUndefined,
		},
		{"unknown effect", distort(func(d *disclosure.Decision) { d.Effect = "PERHAPS" }), disclosure.ReasonPolicyUndefined},
		{"permit of nothing", distort(func(d *disclosure.Decision) { d.Released = nil }), disclosure.ReasonPolicyUndefined},
		{"permit without a row", distort(func(d *disclosure.Decision) { d.Rows = nil }), disclosure.ReasonPolicyUndefined},
		{"permit of what was not asked", distort(func(d *disclosure.Decision) {
			d.Released = append(d.Released, "HEALTH.doctor")
		}), disclosure.ReasonPolicyUndefined},
		{
			"permit of a category", distort(func(d *disclosure.Decision) { d.Released = []disclosure.Field{"CONT.*"} }),
			disclosure.ReasonPolicyUndefined,
		},
		{"denial that releases", distort(func(d *disclosure.Decision) { d.Effect = disclosure.Deny }), disclosure.ReasonPolicyUndefined},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.policy.set(test.change)
			defer w.policy.set(func(r *rules) { r.err, r.distort = nil, nil })
			size, request := w.log.Size(), newID[disclosure.RequestID]()
			d, err := w.ask(policeman(), request, talk(id, "CONT.*"))
			wantReason(t, "request", err, test.want)
			wantNothing(t, d)
			if w.log.Size() != size || w.sources.times(request) != 0 {
				t.Error("there is an entry or a question")
			}
		})
	}
	t.Run("permit to an outsider", func(t *testing.T) {
		w.policy.set(distort(func(d *disclosure.Decision) {
			*d = disclosure.Decision{
				Effect: disclosure.Permit, Rows: []disclosure.RowID{"LB-001"}, Released: []disclosure.Field{"CONT.phone"}, PolicyDigest: d.PolicyDigest,
			}
		}))
		defer w.policy.set(func(r *rules) { r.distort = nil })
		q := talk(id, "CONT.phone")
		q.Domain = "R"
		d, err := w.ask(probator(), newID[disclosure.RequestID](), q)
		wantReason(t, "request", err, disclosure.ReasonPolicyUndefined)
		wantNothing(t, d)
	})
	t.Run("explain", func(t *testing.T) {
		w.policy.set(func(r *rules) { r.err = errors.New("out of memory") })
		defer w.policy.set(func(r *rules) { r.err = nil })
		_, _, err := w.broker.Explain(t.Context(), policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"), nil)
		wantReason(t, "explain", err, disclosure.ReasonPolicyUnavailable)
	})
	t.Run("another policy is active", func(t *testing.T) {
		w.policy.digest = policyDigest("2")
		w.restart()
		w.policy.digest = policyDigest("1")
		w.activate(policyDigest("3"))
		d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
		wantReason(t, "request", err, disclosure.ReasonPolicyUnavailable)
		wantNothing(t, d)
	})
}

// activate lets another broker on the same ledger activate another policy.
func (w *world) activate(digest string) {
	w.t.Helper()
	payload, err := disclosure.Event{
		Kind: disclosure.KindPolicyActivated, By: disclosure.Party{OIN: processor},
		PolicyActivated: &disclosure.PolicyActivated{Digest: digest, Revision: "other"},
	}.Encode()
	must(w.t, err)
	_, err = w.log.Append(w.t.Context(), ledger.Entry{KeyID: "month/" + w.clock.Now().Format("2006-01"), Payload: payload})
	must(w.t, err)
}

// TestNotServing asks before the broker runs and after it stopped.
func TestNotServing(t *testing.T) {
	w, id, _ := talked(t)
	started := w.broker
	fresh := broker.New(broker.Config{
		OIN: processor, Ledger: w.log, Keyring: w.keyring, Policy: w.policy, Relay: w.sources, PolicyDigest: w.policy.digest, PermitKey: w.permits,
	})
	if fresh.Healthy() == nil {
		t.Error("healthy before it runs")
	}
	q := talk(id, "CONT.phone")
	_, err := fresh.RequestDisclosure(t.Context(), policeman(), newID[disclosure.RequestID](), q, nil, bodyDigest(q))
	wantReason(t, "before it runs", err, disclosure.ReasonLedgerUnavailable)
	w.stop()
	_, err = started.RequestDisclosure(t.Context(), policeman(), newID[disclosure.RequestID](), q, nil, bodyDigest(q))
	wantReason(t, "after it stopped", err, disclosure.ReasonLedgerUnavailable)
}

// TestIdentityMissing asks about a person whose identity was never sealed to the source.
func TestIdentityMissing(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable())
	_, _, err := w.broker.CreateGrant(t.Context(), expert(), w.newGrant(id, process(), constable(), "CONT.*"))
	must(t, err)
	q := talk(id, "CONT.phone")
	q.Source = process()
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, q)
	wantReason(t, "request", err, disclosure.ReasonIdentityMissing)
	wantNothing(t, d)
	w.wantOutcomes(request, "FAILED:IDENTITY_MISSING")
	_, _, err = w.broker.AddParticipant(t.Context(), expert(), id, process(), identity(id, process()))
	must(t, err)
	d, err = w.ask(policeman(), request, q)
	w.wantDisclosed(d, err)
}

func TestOutsideCase(t *testing.T) {
	w := newWorld(t)
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), danger())
	w.wantDisclosed(d, err)
	q := danger()
	q.Purpose = "COVENANT"
	d, err = w.ask(policeman(), newID[disclosure.RequestID](), q)
	w.wantDenied(d, err, disclosure.ReasonEvidenceMissing)
	covenant := disclosure.Evidence{
		ID: newID[disclosure.EvidenceID](), Kind: "COVENANT", RecordedFor: constable(),
		ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(time.Hour),
	}
	// Evidence about another data subject neither counts nor shows.
	other := covenant
	other.ID, other.Subject = newID[disclosure.EvidenceID](), "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	_, _, err = w.broker.RecordEvidence(t.Context(), policeman(), other)
	must(t, err)
	request := newID[disclosure.RequestID]()
	d, err = w.ask(policeman(), request, q)
	w.wantDenied(d, err, disclosure.ReasonEvidenceMissing)
	if in := w.decisions(request)[0].Input; len(in.Evidence) > 0 {
		t.Errorf("decision rests on %+v", in.Evidence)
	}
	_, _, err = w.broker.RecordEvidence(t.Context(), policeman(), covenant)
	must(t, err)
	d, err = w.ask(policeman(), newID[disclosure.RequestID](), q)
	w.wantDisclosed(d, err)
	w.clock.Move(time.Hour)
	d, err = w.ask(policeman(), newID[disclosure.RequestID](), q)
	w.wantDenied(d, err, disclosure.ReasonEvidenceMissing)
}

func TestGetDisclosure(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	first, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(first, err)
	for name, c := range map[string]disclosure.Caller{
		"who asked": policeman(), "a colleague": person("other", disclosure.RoleProfessional, constable()),
		"the privacy officer": {Organisation: police, Person: "fg", Roles: []disclosure.Role{disclosure.RolePrivacyOfficer}},
	} {
		d, err := w.broker.GetDisclosure(t.Context(), c, request)
		must(t, err)
		wantSameReceipts(t, first, d)
		if len(d.Answer) > 0 {
			t.Errorf("%s is given the answer", name)
		}
	}
	for name, c := range map[string]disclosure.Caller{
		"the source": caregiver(), "another hat": person("x", disclosure.RoleProfessional, disclosure.Party{OIN: police, Domain: "X"}),
		"no person": {Organisation: police}, "an officer of others": careFG(),
	} {
		if d, err := w.broker.GetDisclosure(t.Context(), c, request); !errors.Is(err, disclosure.ReasonNotFound) {
			t.Errorf("%s: got %s, %v", name, d.Outcome, err)
		}
	}
	_, err = w.broker.GetDisclosure(t.Context(), policeman(), newID[disclosure.RequestID]())
	wantReason(t, "never asked", err, disclosure.ReasonNotFound)
}

func TestExplain(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	explanation, written, err := w.broker.Explain(t.Context(), policeman(), request, talk(id, "CONT.phone"), []byte("digest"))
	must(t, err)
	if explanation.Decision.Effect != disclosure.Permit || len(explanation.Rows) == 0 {
		t.Errorf("got %+v", explanation)
	}
	e, _, err := w.onDisk(written.Index)
	must(t, err)
	if e.Kind != disclosure.KindExplained || e.Explained.Input.Request.ID != request || w.sources.times(request) != 0 {
		t.Errorf("recorded a %s; source asked %d times", e.Kind, w.sources.times(request))
	}
	// It decides nothing: the id is still free.
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	_, _, err = w.broker.Explain(t.Context(), disclosure.Caller{Organisation: police}, request, talk(id, "CONT.phone"), nil)
	wantReason(t, "nobody", err, disclosure.ReasonHatNotAllowed)
}

// TestPermitTerm checks that a permit ends with what it rests on.
func TestPermitTerm(t *testing.T) {
	w, id, _ := talked(t)
	for _, test := range []struct{ left, want time.Duration }{{time.Hour, disclosure.PermitTerm}, {7 * time.Second, 7 * time.Second}} {
		w.policy.set(func(r *rules) {
			r.distort = func(d *disclosure.Decision) {
				until := w.clock.Now().Add(test.left)
				d.ValidUntil = &until
			}
		})
		var got receipt.Permit
		w.sources.act(func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
			got = p
			return w.sources.answer(ctx, p, q)
		})
		d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
		w.wantDisclosed(d, err)
		if term := got.ExpiresAt.Sub(got.IssuedAt); term != test.want {
			t.Errorf("with %v left the permit is valid for %v, want %v", test.left, term, test.want)
		}
		if got.Sealer != municipality || got.DecisionIndex != d.DecisionReceipt.Index {
			t.Errorf("permit %+v", got)
		}
	}
}

// TestTooMuch asks in a case with more evidence than fits in an entry.
func TestTooMuch(t *testing.T) {
	w, id, _ := talked(t)
	for range 2 {
		e := w.consent(id)
		for i := range 40 {
			e.Details[fmt.Sprint("detail", i)] = strings.Repeat("x", 900)
		}
		_, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), e)
		must(t, err)
	}
	size := w.log.Size()
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	if !errors.Is(err, disclosure.ErrMalformed) || w.log.Size() != size {
		t.Errorf("got %v and %d entries", err, w.log.Size()-size)
	}
	wantNothing(t, d)
}

// TestStopWaits stops the broker while a source is being asked: the disclosure runs to its end, and others are refused meanwhile.
func TestStopWaits(t *testing.T) {
	w, id, _ := talked(t)
	request := newID[disclosure.RequestID]()
	asked, act, by := hold()
	w.sources.act(by)
	type answer struct {
		d   disclosure.Disclosure
		err error
	}
	done := make(chan answer, 1)
	go func() {
		d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
		done <- answer{d, err}
	}()
	<-asked
	w.sources.act(nil)
	stopped := make(chan struct{})
	go func() {
		w.stop()
		close(stopped)
	}()
	// As soon as it has begun to stop, it takes nothing new.
	for deadline := time.Now().Add(20 * time.Second); ; {
		if time.Now().After(deadline) {
			t.Fatal("still takes new requests")
		}
		_, err := w.ask(policeman(), newID[disclosure.RequestID](), danger())
		if err != nil {
			wantReason(t, "request while it stops", err, disclosure.ReasonLedgerUnavailable)
			break
		}
	}
	select {
	case <-stopped:
		t.Error("stopped with a disclosure under way")
	default:
	}
	const lates = 50
	act <- func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		for range lates { // late answers that come until then are recorded too
			w.broker.Late(nurse(), q)
		}
		return w.sources.answer(ctx, p, q)
	}
	a := <-done
	<-stopped
	w.wantDisclosed(a.d, a.err)
	dropped := 0
	for _, o := range w.outcomes(request) {
		if o.Outcome == disclosure.Dropped {
			dropped++
		}
	}
	if dropped != lates {
		t.Errorf("%d late answers recorded, want %d", dropped, lates)
	}
}
