package broker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

// once makes a hook that does something before the first decision only.
func once(do func()) func(*rules) {
	var first sync.Once
	return func(r *rules) { r.before = func(disclosure.DecisionInput) { first.Do(do) } }
}

// TestChangedMeanwhile is invariant I2, one case at a time: what a decision rests on ends after the policy has read it and before the
// decision is written. The broker decides again.
func TestChangedMeanwhile(t *testing.T) {
	type setting struct {
		*world
		id       disclosure.CaseID
		grant    disclosure.Grant
		consent  disclosure.Evidence
		covenant disclosure.Evidence
	}
	consented := func(s setting) disclosure.Query {
		q := talk(s.id, "CONT.phone")
		q.Purpose = "CONSENTED"
		return q
	}
	covenant := func(setting) disclosure.Query {
		q := danger()
		q.Purpose = "COVENANT"
		return q
	}
	for _, test := range []struct {
		name   string
		query  func(setting) disclosure.Query
		change func(s setting) error
		want   error // nil: denied for reason
		reason disclosure.ReasonCode
	}{
		{"grant revoked", consented, func(s setting) error {
			_, _, err := s.broker.RevokeGrant(s.t.Context(), expert(), s.grant.ID, "over")
			return err
		}, nil, disclosure.ReasonNoGrant},
		{"grant expired", consented, func(s setting) error {
			s.clock.Move(s.grant.ExpiresAt.Sub(s.clock.Now()))
			return nil
		}, nil, disclosure.ReasonConsentMissing},
		{"consent expired", consented, func(s setting) error {
			s.clock.Move(s.consent.ValidUntil.Sub(s.clock.Now()))
			return nil
		}, nil, disclosure.ReasonConsentMissing},
		{"consent withdrawn", consented, func(s setting) error {
			_, _, err := s.broker.WithdrawEvidence(s.t.Context(), caregiver(), s.id, s.consent.ID, "asked to")
			return err
		}, nil, disclosure.ReasonConsentMissing},
		{"case closed", consented, func(s setting) error {
			_, _, err := s.broker.CloseCase(s.t.Context(), expert(), s.id, "done")
			return err
		}, nil, disclosure.ReasonWrongPhase},
		{"source removed", consented, func(s setting) error {
			_, _, err := s.broker.RemoveParticipant(s.t.Context(), expert(), s.id, nurse())
			return err
		}, nil, disclosure.ReasonNotMember},
		{"requester removed", consented, func(s setting) error {
			_, _, err := s.broker.RemoveParticipant(s.t.Context(), expert(), s.id, constable())
			return err
		}, nil, disclosure.ReasonNotMember},
		{"phase passed", consented, func(s setting) error {
			_, _, err := s.broker.ChangePhase(s.t.Context(), expert(), s.id, "F1", "F4")
			return err
		}, nil, disclosure.ReasonNoGrant},
		{"requester's hat gone", consented, func(s setting) error {
			return s.hats(police, "X")
		}, disclosure.ReasonHatNotAllowed, ""},
		{"source's hat gone", covenant, func(s setting) error {
			return s.hats(care, "X")
		}, disclosure.ReasonHatNotAllowed, ""},
		{"covenant withdrawn", covenant, func(s setting) error {
			_, _, err := s.broker.WithdrawEvidence(s.t.Context(), caregiver(), "", s.covenant.ID, "ended")
			return err
		}, nil, disclosure.ReasonEvidenceMissing},
		{"another policy", covenant, func(s setting) error {
			s.activate(policyDigest("2"))
			return nil
		}, disclosure.ReasonPolicyUnavailable, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			s := setting{world: w, id: w.openCase(constable(), nurse())}
			g := w.newGrant(s.id, nurse(), constable(), "CONT.*")
			g.Purpose, g.LastPhase = "CONSENTED", "F3"
			var err error
			s.grant, _, err = w.broker.CreateGrant(t.Context(), expert(), g)
			must(t, err)
			s.consent, _, err = w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(s.id))
			must(t, err)
			s.covenant, _, err = w.broker.RecordEvidence(t.Context(), caregiver(), disclosure.Evidence{
				ID: newID[disclosure.EvidenceID](), Kind: "COVENANT", RecordedFor: nurse(),
				ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(time.Hour),
			})
			must(t, err)
			d, err := w.ask(policeman(), newID[disclosure.RequestID](), test.query(s))
			w.wantDisclosed(d, err)

			changed := false
			w.policy.set(once(func() {
				changed = true
				if err := test.change(s); err != nil {
					t.Error(err)
				}
			}))
			request := newID[disclosure.RequestID]()
			d, err = w.ask(policeman(), request, test.query(s))
			if !changed {
				t.Error("the policy was not asked")
			}
			if test.want != nil {
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				wantNothing(t, d)
			} else {
				w.wantDenied(d, err, test.reason)
				if got := len(w.decisions(request)); got != 1 {
					t.Errorf("%d decisions in the ledger, want the last alone", got)
				}
			}
			if w.sources.times(request) != 0 {
				t.Error("the source was asked")
			}
		})
	}
}

// hats changes the hats of an organisation in the directory.
func (w *world) hats(oin disclosure.OIN, hats ...disclosure.Domain) error {
	_, err := w.broker.AddPartner(w.t.Context(), disclosure.Partner{OIN: oin, Name: "Organisation", Domains: hats})
	return err
}

// TestKeysReplaced lets the requester replace its keys between decision and entry: the answer is sealed to the new ones. The source checks
// that the permit, the entry and the statement agree.
func TestKeysReplaced(t *testing.T) {
	w, id, _ := talked(t)
	fresh := w.state(police, 24*time.Hour)
	w.policy.set(once(func() {
		if _, err := w.broker.PublishStatement(t.Context(), policeman(), fresh); err != nil {
			t.Error(err)
		}
	}))
	var shown []byte
	w.sources.act(func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		shown = q.RequesterStatement
		return w.sources.answer(ctx, p, q)
	})
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
	if string(shown) != string(fresh) {
		t.Error("the source was shown keys that had been replaced")
	}
}

// TestAlwaysChanging never gives a decision the time to be written.
func TestAlwaysChanging(t *testing.T) {
	w, id, _ := talked(t)
	asked := 0
	w.policy.set(func(r *rules) {
		r.before = func(disclosure.DecisionInput) {
			asked++
			from, to := disclosure.Phase("F1"), disclosure.Phase("F2")
			if asked%2 == 0 {
				from, to = to, from
			}
			if _, _, err := w.broker.ChangePhase(t.Context(), expert(), id, from, to); err != nil {
				t.Error(err)
			}
		}
	})
	request := newID[disclosure.RequestID]()
	d, err := w.ask(policeman(), request, talk(id, "CONT.phone"))
	wantReason(t, "request", err, disclosure.ReasonContention)
	wantNothing(t, d)
	if asked != 8 || len(w.decisions(request)) != 0 {
		t.Errorf("decided %d times, wrote %d", asked, len(w.decisions(request)))
	}
	w.policy.set(func(r *rules) { r.before = nil })
	d, err = w.ask(policeman(), request, talk(id, "CONT.phone"))
	w.wantDisclosed(d, err)
}

// TestClockGoesBack ends things and then sets the clock back to before they ended.
func TestClockGoesBack(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(w *world, id disclosure.CaseID, g disclosure.Grant, consent disclosure.EvidenceID) error
	}{
		{"grant revoked", func(w *world, _ disclosure.CaseID, g disclosure.Grant, _ disclosure.EvidenceID) error {
			_, _, err := w.broker.RevokeGrant(w.t.Context(), expert(), g.ID, "over")
			return err
		}},
		{"consent withdrawn", func(w *world, id disclosure.CaseID, _ disclosure.Grant, consent disclosure.EvidenceID) error {
			_, _, err := w.broker.WithdrawEvidence(w.t.Context(), caregiver(), id, consent, "asked to")
			return err
		}},
		{"case closed", func(w *world, id disclosure.CaseID, _ disclosure.Grant, _ disclosure.EvidenceID) error {
			_, _, err := w.broker.CloseCase(w.t.Context(), expert(), id, "done")
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			id := w.openCase(constable(), nurse())
			g := w.newGrant(id, nurse(), constable(), "CONT.*")
			g.Purpose = "CONSENTED"
			g, _, err := w.broker.CreateGrant(t.Context(), expert(), g)
			must(t, err)
			consent, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
			must(t, err)
			w.clock.Move(time.Hour)
			q := talk(id, "CONT.phone")
			q.Purpose = "CONSENTED"
			d, err := w.ask(policeman(), newID[disclosure.RequestID](), q)
			w.wantDisclosed(d, err)
			must(t, test.end(w, id, g, consent.ID))
			w.clock.Move(-time.Minute)
			d, err = w.ask(policeman(), newID[disclosure.RequestID](), q)
			must(t, err)
			if d.Decision.Effect != disclosure.Deny {
				t.Errorf("got a %s after it had ended", d.Decision.Effect)
			}
		})
	}
}

// TestOrder is invariant I2 under load: many ask while others end, and begin again, what the answers rest on. The replay of the ledger at
// the end of each round tells whether a permit came after what should have stopped it.
func TestOrder(t *testing.T) {
	const enough = 20 // rounds in which somebody is given something and somebody is not, however slow they were
	deadline := time.Now().Add(soak(t, 3*time.Second))
	var permits, denials atomic.Int64
	said := func() bool { return permits.Load() > 20 && denials.Load() > 20 }
	for round := uint64(1); time.Now().Before(deadline) || !said() && round < enough; round++ {
		if !t.Run("", func(t *testing.T) { orderRound(t, round, &permits, &denials) }) {
			t.Fatalf("seed %d", round)
		}
	}
	if !said() {
		t.Errorf("%d permits and %d denials say little", permits.Load(), denials.Load())
	}
}

func orderRound(t *testing.T, seed uint64, permits, denials *atomic.Int64) {
	const askers, asksEach, changers, changesEach = 8, 5, 4, 20
	w := newWorld(t)
	id := w.openCase(constable(), nurse(), officer())
	grants := make(chan disclosure.Grant, changers*changesEach)
	consents := make(chan disclosure.EvidenceID, changers*changesEach)
	covenants := make(chan disclosure.EvidenceID, changers*changesEach)
	grantNow := func(r *rand.Rand) error {
		g := w.newGrant(id, nurse(), constable(), "CONT.*")
		g.Purpose = []disclosure.Purpose{"CASE_TALK", "CONSENTED"}[r.IntN(2)]
		g.ExpiresAt = g.NotBefore.Add(time.Duration(1+r.IntN(2000)) * time.Millisecond)
		g, _, err := w.broker.CreateGrant(t.Context(), expert(), g)
		if err == nil {
			grants <- g
		}
		return err
	}
	consentNow := func(r *rand.Rand) error {
		e := w.consent(id)
		e.ValidUntil = e.ValidFrom.Add(time.Duration(1+r.IntN(2000)) * time.Millisecond)
		_, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), e)
		if err == nil {
			consents <- e.ID
		}
		return err
	}
	covenantNow := func(r *rand.Rand) error {
		e := disclosure.Evidence{
			ID: newID[disclosure.EvidenceID](), Kind: "COVENANT", RecordedFor: constable(),
			ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(time.Duration(1+r.IntN(2000)) * time.Millisecond),
		}
		_, _, err := w.broker.RecordEvidence(t.Context(), policeman(), e)
		if err == nil {
			covenants <- e.ID
		}
		return err
	}
	changes := []func(r *rand.Rand) error{
		grantNow, grantNow, grantNow, consentNow, consentNow, covenantNow,
		func(*rand.Rand) error {
			select {
			case g := <-grants:
				_, _, err := w.broker.RevokeGrant(t.Context(), expert(), g.ID, "over")
				return err
			default:
				return nil
			}
		},
		func(*rand.Rand) error {
			select {
			case e := <-consents:
				_, _, err := w.broker.WithdrawEvidence(t.Context(), caregiver(), id, e, "asked to")
				return err
			default:
				return nil
			}
		},
		func(*rand.Rand) error {
			select {
			case e := <-covenants:
				_, _, err := w.broker.WithdrawEvidence(t.Context(), policeman(), "", e, "ended")
				return err
			default:
				return nil
			}
		},
		func(*rand.Rand) error {
			_, _, gone := w.broker.RemoveParticipant(t.Context(), expert(), id, nurse())
			_, _, err := w.broker.AddParticipant(t.Context(), expert(), id, nurse(), identity(id, nurse()))
			return errors.Join(gone, err)
		},
		func(r *rand.Rand) error {
			phases := []disclosure.Phase{"F1", "F2", "F3"}
			_, _, err := w.broker.ChangePhase(t.Context(), expert(), id, phases[r.IntN(3)], phases[r.IntN(3)])
			return err
		},
		func(*rand.Rand) error {
			_, err := w.broker.PublishStatement(t.Context(), policeman(), w.state(police, 24*time.Hour))
			return err
		},
		func(*rand.Rand) error { return errors.Join(w.hats(police, "X"), w.hats(police, "P")) },
		func(r *rand.Rand) error {
			w.clock.Move(time.Duration(r.IntN(300)) * time.Millisecond)
			return nil
		},
	}
	var working, asking sync.WaitGroup
	var settled atomic.Bool
	for i := range askers {
		asking.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for i := 0; i < asksEach || !settled.Load(); i++ {
				q := talk(id, "CONT.phone")
				if q.Purpose = []disclosure.Purpose{"CASE_TALK", "CONSENTED", "COVENANT"}[r.IntN(3)]; q.Purpose == "COVENANT" {
					q.Case, q.Subject = "", subject
				}
				d, err := w.ask(policeman(), newID[disclosure.RequestID](), q)
				switch {
				case err != nil:
					mayFail(t, "request", err, disclosure.ReasonHatNotAllowed, disclosure.ReasonIdentityMissing)
				case d.Decision.Effect == disclosure.Permit:
					permits.Add(1)
				default:
					denials.Add(1)
				}
			}
		})
	}
	for i := range changers {
		working.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for range changesEach {
				if err := changes[r.IntN(len(changes))](r); err != nil {
					mayFail(
						t, "change", err, disclosure.ReasonNotFound, disclosure.ReasonNotMember, disclosure.ReasonWrongPhase,
						disclosure.ReasonHatNotAllowed, disclosure.ReasonGrantExpired, disclosure.ReasonCaseClosed,
					)
				}
			}
		})
	}
	working.Wait()
	settled.Store(true)
	if seed%2 == 0 {
		_, _, err := w.broker.CloseCase(t.Context(), expert(), id, "done")
		if err != nil {
			mayFail(t, "close", err)
		}
	}
	asking.Wait()
}

// mayFail fails the test unless the error is one of these, or contention.
func mayFail(t testing.TB, what string, err error, with ...disclosure.ReasonCode) {
	t.Helper()
	if !slices.ContainsFunc(append(with, disclosure.ReasonContention), func(code disclosure.ReasonCode) bool { return errors.Is(err, code) }) {
		t.Errorf("%s: %v", what, err)
	}
}
