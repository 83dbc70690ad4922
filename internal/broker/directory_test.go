package broker_test

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/broker"
	"sluis/internal/disclosure"
)

func TestAddPartner(t *testing.T) {
	w := newWorld(t)
	good := disclosure.Partner{OIN: "00000001002222222000", Name: "Partner", Domains: []disclosure.Domain{"P"}, Issuer: "https://signin.example"}
	for name, change := range map[string]func(*disclosure.Partner){
		"OIN": func(p *disclosure.Partner) { p.OIN = "12" }, "name": func(p *disclosure.Partner) { p.Name = "" },
		"long name":   func(p *disclosure.Partner) { p.Name = strings.Repeat("x", 201) },
		"no hats":     func(p *disclosure.Partner) { p.Domains = nil },
		"many hats":   func(p *disclosure.Partner) { p.Domains = make([]disclosure.Domain, 21) },
		"long issuer": func(p *disclosure.Partner) { p.Issuer = strings.Repeat("x", 501) },
	} {
		p := good
		change(&p)
		if _, err := w.broker.AddPartner(t.Context(), p); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := w.broker.Organisation(t.Context(), good.OIN)
	wantReason(t, "before", err, disclosure.ReasonNotFound)
	_, err = w.broker.AddPartner(t.Context(), good)
	must(t, err)
	o, err := w.broker.Organisation(t.Context(), good.OIN)
	must(t, err)
	if diff := cmp.Diff(disclosure.Organisation{Partner: good}, o); diff != "" {
		t.Errorf("organisation (-want +got):\n%s", diff)
	}
	good.Domains = []disclosure.Domain{"X"}
	_, err = w.broker.AddPartner(t.Context(), good)
	must(t, err)
	p, err := w.broker.Partner(t.Context(), good.OIN)
	must(t, err)
	if diff := cmp.Diff(&good, p); diff != "" {
		t.Errorf("changed partner (-want +got):\n%s", diff)
	}
}

func TestIssuer(t *testing.T) {
	w := newWorld(t)
	const first, second = "https://signin.example/1", "https://signin.example/2"
	add := func(oin disclosure.OIN, issuer string) error {
		_, err := w.broker.AddPartner(t.Context(), disclosure.Partner{OIN: oin, Name: "Partner", Domains: []disclosure.Domain{"P"}, Issuer: issuer})
		return err
	}
	signs := func(issuer string) disclosure.OIN {
		p, err := w.broker.Issuer(t.Context(), issuer)
		if err != nil {
			wantReason(t, issuer, err, disclosure.ReasonNotFound)
			return ""
		}
		return p.OIN
	}
	must(t, add(police, first))
	must(t, add(police, first)) // once more is no other
	wantReason(t, "issuer of another", add(care, first), disclosure.ReasonAlreadyExists)
	if got := signs(first); got != police {
		t.Errorf("it signs for %q", got)
	}
	must(t, add(police, second))
	must(t, add(care, first))
	if a, b := signs(first), signs(second); a != care || b != police {
		t.Errorf("they sign for %q and %q", a, b)
	}
	must(t, add(police, ""))
	if got := signs(second); got != "" {
		t.Errorf("it still signs for %q", got)
	}
}

func TestOrganisations(t *testing.T) {
	w := newWorld(t)
	for _, limit := range []int{1, 3, 100} {
		got := pages(t, limit, func(after string) ([]disclosure.Organisation, string, error) {
			return w.broker.Organisations(t.Context(), after, limit)
		})
		if len(got) != len(w.orgs) {
			t.Errorf("limit %d: %d organisations, want %d", limit, len(got), len(w.orgs))
		}
		for _, o := range got {
			if string(o.Statement) != string(w.orgs[o.OIN].statement) {
				t.Errorf("%s has another statement", o.OIN)
			}
		}
	}
}

func TestPublishStatement(t *testing.T) {
	w := newWorld(t)
	size := w.log.Size()
	same, err := w.broker.PublishStatement(t.Context(), policeman(), w.orgs[police].statement)
	if err != nil || same != nil || w.log.Size() != size {
		t.Errorf("the same again: %v, %v", same, err)
	}
	damaged := w.state(police, time.Hour)
	damaged[len(damaged)/2] ^= 1
	short := w.state(police, time.Minute)
	for name, signed := range map[string][]byte{
		"of another": w.orgs[care].statement, "damaged": damaged, "empty": nil, "too large": make([]byte, disclosure.MaxStatement+1),
	} {
		receipt, err := w.broker.PublishStatement(t.Context(), policeman(), signed)
		wantReason(t, name, err, disclosure.ReasonKeyStatementInvalid)
		if receipt != nil || w.log.Size() != size {
			t.Errorf("%s: there is a receipt or an entry", name)
		}
	}
	w.clock.Move(time.Hour)
	_, err = w.broker.PublishStatement(t.Context(), policeman(), short)
	wantReason(t, "expired", err, disclosure.ReasonKeyStatementInvalid)
	fresh := w.state(police, time.Hour)
	receipt, err := w.broker.PublishStatement(t.Context(), policeman(), fresh)
	must(t, err)
	e, _, err := w.onDisk(receipt.Index)
	must(t, err)
	o, err := w.broker.Organisation(t.Context(), police)
	if err != nil || string(o.Statement) != string(fresh) || string(e.StatementPublished.Statement) != string(fresh) {
		t.Errorf("published, and then there is another: %v", err)
	}
}

// TestBrokerKeys checks that keys and policy are published when they change, and only then.
func TestBrokerKeys(t *testing.T) {
	w := newWorld(t)
	first, err := w.broker.BrokerKeys(t.Context())
	must(t, err)
	size := w.log.Size()
	w.restart()
	if w.log.Size() != size {
		t.Errorf("a restart writes %d entries", w.log.Size()-size)
	}
	w.config = func(cfg *broker.Config) { cfg.Keys.PseudonymVersion = 2 }
	w.policy.digest = policyDigest("2")
	w.restart()
	second, err := w.broker.BrokerKeys(t.Context())
	must(t, err)
	e, _, err := w.onDisk(second.Index)
	must(t, err)
	if second.Index == first.Index || e.BrokerKeys.PseudonymVersion != 2 || w.log.Size() != size+2 {
		t.Errorf("new keys in entry %d, %+v; %d entries more", second.Index, e.BrokerKeys, w.log.Size()-size)
	}
}

// TestBudget asks for pseudonyms from many sides at once: an organisation never gets more than its budget of a day.
func TestBudget(t *testing.T) {
	const budget = 50
	w := newWorld(t)
	w.budget = budget
	w.restart()
	blinded := func(n int) [][]byte {
		list := make([][]byte, n)
		for i := range list {
			list[i] = []byte("element")
		}
		return list
	}
	caller := disclosure.Caller{Organisation: municipality}
	evaluation, err := w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(3))
	must(t, err)
	if len(evaluation.Elements) != 3 || evaluation.RemainingBudget != budget-3 || evaluation.KeyVersion != 1 || len(evaluation.Proof) == 0 {
		t.Errorf("got %+v", evaluation)
	}
	if _, err := w.broker.EvaluatePseudonyms(t.Context(), caller, nil); !errors.Is(err, disclosure.ErrMalformed) {
		t.Errorf("nothing blinded: %v", err)
	}
	refused, err := w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(budget-2))
	wantReason(t, "more than is left", err, disclosure.ReasonBudgetSpent)
	if len(refused.Elements) > 0 {
		t.Error("refused, and yet evaluated")
	}
	var group sync.WaitGroup
	var given atomic.Int64
	for range 40 {
		group.Go(func() {
			e, err := w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(2))
			if err != nil && !errors.Is(err, disclosure.ReasonBudgetSpent) {
				t.Error(err)
			}
			given.Add(int64(len(e.Elements)))
			if e.RemainingBudget < 0 {
				t.Errorf("%d left", e.RemainingBudget)
			}
		})
	}
	group.Wait()
	if given.Load() != 46 {
		t.Errorf("%d evaluated, want 46: twos of what was left", given.Load())
	}
	// Others have a budget of their own, and each day is another.
	_, err = w.broker.EvaluatePseudonyms(t.Context(), disclosure.Caller{Organisation: police}, blinded(budget))
	must(t, err)
	w.clock.Move(24 * time.Hour)
	evaluation, err = w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(budget))
	must(t, err)
	if evaluation.RemainingBudget != 0 {
		t.Errorf("%d left", evaluation.RemainingBudget)
	}
	// A clock that goes back to the day before does not give that day again, and the next day not either.
	for _, back := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		w.clock.Move(back)
		_, err = w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(1))
		wantReason(t, "after the clock was set", err, disclosure.ReasonBudgetSpent)
	}
	w.restart()
	_, err = w.broker.EvaluatePseudonyms(t.Context(), caller, blinded(1))
	wantReason(t, "after a restart", err, disclosure.ReasonBudgetSpent)
}
