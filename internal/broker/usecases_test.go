package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
)

func TestOpenCase(t *testing.T) {
	w := newWorld(t)
	c := newCase()
	c.Phase, c.ClosedAt, c.OpenedBy = "F6", new(time.Time), "somebody else" // not the caller's to say
	c.Participants = []disclosure.Participant{{Party: officer()}}
	opened, first, err := w.broker.OpenCase(t.Context(), expert(), c)
	must(t, err)
	want := disclosure.Case{
		ID: c.ID, Reference: c.Reference, Owner: process(), OpenedBy: expert().Person, Regime: c.Regime, Phase: "F1", Subject: c.Subject,
		Facts: c.Facts, OpenedAt: w.clock.Now(),
		Participants: []disclosure.Participant{{Party: process(), JoinedAt: w.clock.Now()}},
	}
	if diff := cmp.Diff(want, opened); diff != "" {
		t.Errorf("case (-want +got):\n%s", diff)
	}
	w.clock.Move(time.Hour)
	_, _, err = w.broker.ChangePhase(t.Context(), expert(), c.ID, "F1", "F2")
	must(t, err)
	again, second, err := w.broker.OpenCase(t.Context(), expert(), c)
	must(t, err)
	if diff := cmp.Diff(first, second); diff != "" || again.Phase != "F2" {
		t.Errorf("again gives phase %s and another receipt (-first +again):\n%s", again.Phase, diff)
	}
	if got := w.countKind(disclosure.KindCaseOpened); got != 1 {
		t.Errorf("%d entries", got)
	}
	for name, change := range map[string]func(*disclosure.Case){
		"reference": func(c *disclosure.Case) { c.Reference = "2026-002" },
		"regime":    func(c *disclosure.Case) { c.Regime = disclosure.RegimeZVH },
		"subject":   func(c *disclosure.Case) { c.Subject = "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" },
		"facts":     func(c *disclosure.Case) { c.Facts.Resident = false },
	} {
		other := c
		change(&other)
		_, _, err := w.broker.OpenCase(t.Context(), expert(), other)
		wantReason(t, "the same id with another "+name, err, disclosure.ReasonAlreadyExists)
	}
}

func TestOpenCaseRefuses(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name   string
		caller disclosure.Caller
		change func(*disclosure.Case)
		want   error
	}{
		{"professional", person("x", disclosure.RoleProfessional, process()), nil, disclosure.ReasonRoleNotAllowed},
		{"privacy officer", person("x", disclosure.RolePrivacyOfficer, process()), nil, disclosure.ReasonRoleNotAllowed},
		{"operator", person("x", disclosure.RoleOperator, process()), nil, disclosure.ReasonRoleNotAllowed},
		{
			"other hat of the municipality", person("x", disclosure.RolePGAExpert, benefits()),
			func(c *disclosure.Case) { c.Owner = benefits() }, disclosure.ReasonRoleNotAllowed,
		},
		{"hat of a colleague", person("x", disclosure.RolePGAExpert, benefits()), nil, disclosure.ReasonHatNotAllowed},
		{
			"another organisation", person("x", disclosure.RolePGAExpert, constable()),
			func(c *disclosure.Case) { c.Owner.Domain = "P" }, disclosure.ReasonRoleNotAllowed,
		},
		{"nobody", disclosure.Caller{Organisation: municipality, Domains: []disclosure.Domain{"ME"}}, nil, disclosure.ReasonHatNotAllowed},
		{"name in the reference", expert(), func(c *disclosure.Case) { c.Reference = "Jan Jansen" }, disclosure.ErrMalformed},
		{"empty reference", expert(), func(c *disclosure.Case) { c.Reference = "" }, disclosure.ErrMalformed},
		{"date of birth", expert(), func(c *disclosure.Case) { c.Facts.BirthMonth = "1990-05-01" }, disclosure.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			size, c := w.log.Size(), newCase()
			if test.change != nil {
				test.change(&c)
			}
			_, _, err := w.broker.OpenCase(t.Context(), test.caller, c)
			if !errors.Is(err, test.want) || w.log.Size() != size {
				t.Errorf("got %v and %d entries, want %v", err, w.log.Size()-size, test.want)
			}
		})
	}
}

// TestWhoMay tries everything that is done to a case as everybody.
func TestWhoMay(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	g := w.grant(id, "CONT.*")
	consent, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
	must(t, err)
	callers := map[string]disclosure.Caller{
		"expert": expert(), "colleague": person("x", disclosure.RoleProfessional, process()),
		"other hat": person("x", disclosure.RolePGAExpert, benefits()), "policeman": policeman(), "caregiver": caregiver(),
		"expert of a participant": person("x", disclosure.RolePGAExpert, constable()), "outsider": probator(),
		"officer": policeFG(), "nobody": {Organisation: municipality},
	}
	const ok, role, none, hat = disclosure.ReasonCode(""), disclosure.ReasonRoleNotAllowed, disclosure.ReasonNotFound, disclosure.ReasonHatNotAllowed
	owner := map[string]disclosure.ReasonCode{
		"expert": ok, "colleague": role, "other hat": none, "policeman": role, "caregiver": role, "expert of a participant": role,
		"outsider": none, "officer": role, "nobody": none,
	}
	member := map[string]disclosure.ReasonCode{
		"expert": ok, "colleague": ok, "other hat": none, "policeman": ok, "caregiver": ok, "expert of a participant": ok, "outsider": none,
		"officer": ok, "nobody": none,
	}
	for _, test := range []struct {
		name string
		do   func(c disclosure.Caller) error
		want map[string]disclosure.ReasonCode
	}{
		{"get case", func(c disclosure.Caller) error {
			_, err := w.broker.GetCase(t.Context(), c, id)
			return err
		}, member},
		{"get grant", func(c disclosure.Caller) error {
			_, err := w.broker.GetGrant(t.Context(), c, g.ID)
			return err
		}, member},
		{"list grants", func(c disclosure.Caller) error {
			_, _, err := w.broker.ListGrants(t.Context(), c, id, "", 10)
			return err
		}, member},
		{"list evidence", func(c disclosure.Caller) error {
			_, _, err := w.broker.ListEvidence(t.Context(), c, id, "", 10)
			return err
		}, member},
		{"add participant", func(c disclosure.Caller) error {
			_, _, err := w.broker.AddParticipant(t.Context(), c, id, nurse(), identity(id, nurse()))
			return err
		}, owner},
		{"remove participant", func(c disclosure.Caller) error {
			_, _, err := w.broker.RemoveParticipant(t.Context(), c, id, officer())
			if errors.Is(err, disclosure.ReasonNotFound) && c.Person == expert().Person {
				return nil // he takes no part, so there is nothing to remove
			}
			return err
		}, owner},
		{"change phase", func(c disclosure.Caller) error {
			_, _, err := w.broker.ChangePhase(t.Context(), c, id, "F1", "F2")
			return err
		}, owner},
		{"create grant", func(c disclosure.Caller) error {
			_, _, err := w.broker.CreateGrant(t.Context(), c, w.newGrant(id, nurse(), constable(), "CONT.phone"))
			return err
		}, owner},
		{"revoke grant", func(c disclosure.Caller) error {
			_, _, err := w.broker.RevokeGrant(t.Context(), c, g.ID, "over")
			return err
		}, owner},
		{"record evidence", func(c disclosure.Caller) error {
			e := w.consent(id)
			e.RecordedFor.Domain = "P"
			_, _, err := w.broker.RecordEvidence(t.Context(), c, e)
			return err
		}, map[string]disclosure.ReasonCode{
			"expert": hat, "colleague": hat, "other hat": hat, "policeman": ok, "caregiver": hat, "expert of a participant": role,
			"outsider": hat, "officer": role, "nobody": hat,
		}},
		{"withdraw evidence", func(c disclosure.Caller) error {
			_, _, err := w.broker.WithdrawEvidence(t.Context(), c, id, consent.ID, "asked to")
			return err
		}, map[string]disclosure.ReasonCode{ // who recorded it, and the owner of the case
			"expert": ok, "colleague": ok, "other hat": none, "policeman": hat, "caregiver": ok, "expert of a participant": hat,
			"outsider": none, "officer": hat, "nobody": none,
		}},
		{"close case", func(c disclosure.Caller) error {
			_, _, err := w.broker.CloseCase(t.Context(), c, id, "done")
			return err
		}, owner},
	} {
		// The refused first, so that they find things as they were.
		names := slices.SortedFunc(slices.Values([]string{
			"expert", "colleague", "other hat", "policeman", "caregiver", "expert of a participant", "outsider", "officer", "nobody",
		}), func(a, b string) int { return len(test.want[b]) - len(test.want[a]) })
		for _, name := range names {
			size, want := w.log.Size(), test.want[name]
			err := test.do(callers[name])
			if want == "" && err != nil || want != "" && !errors.Is(err, want) {
				t.Errorf("%s by %s: got %v, want %q", test.name, name, err, want)
			}
			if want != "" && w.log.Size() != size {
				t.Errorf("%s by %s: refused with an entry", test.name, name)
			}
		}
	}
}

func TestParticipants(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable())
	before := w.clock.Now()
	w.clock.Move(time.Hour)
	c, written, err := w.broker.AddParticipant(t.Context(), expert(), id, nurse(), identity(id, nurse()))
	must(t, err)
	if !c.Has(nurse()) || !written.Time.Equal(w.clock.Now()) {
		t.Errorf("got %+v", c.Participants)
	}
	// Again replaces the identity, and not when he joined.
	again, _, err := w.broker.AddParticipant(t.Context(), expert(), id, constable(), []byte("another identity"))
	must(t, err)
	if got := again.Participants; len(got) != 3 || !got[1].JoinedAt.Equal(before) {
		t.Errorf("got %+v", got)
	}
	for _, test := range []struct {
		name   string
		party  disclosure.Party
		sealed []byte
		want   error
	}{
		{"no identity", officer(), nil, disclosure.ReasonIdentityMissing},
		{"too large an identity", officer(), make([]byte, disclosure.MaxSealed+1), disclosure.ReasonIdentityMissing},
		{"unknown organisation", disclosure.Party{OIN: processor, Domain: "P"}, []byte("identity"), disclosure.ReasonUnknownOrganisation},
		{"unknown hat", disclosure.Party{OIN: police, Domain: "ME"}, []byte("identity"), disclosure.ReasonHatNotAllowed},
	} {
		_, _, err := w.broker.AddParticipant(t.Context(), expert(), id, test.party, test.sealed)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	if _, _, err := w.broker.RemoveParticipant(t.Context(), expert(), id, process()); !errors.Is(err, disclosure.ErrMalformed) {
		t.Errorf("owner leaves: %v", err)
	}
	c, _, err = w.broker.RemoveParticipant(t.Context(), expert(), id, constable())
	must(t, err)
	if c.Has(constable()) {
		t.Error("still takes part")
	}
	_, _, err = w.broker.RemoveParticipant(t.Context(), expert(), id, constable())
	wantReason(t, "remove again", err, disclosure.ReasonNotFound)
	_, err = w.broker.GetCase(t.Context(), policeman(), id)
	wantReason(t, "get case by who left", err, disclosure.ReasonNotFound)
}

func TestParticipantLimit(t *testing.T) {
	w := newWorld(t)
	id := w.openCase()
	for i := range disclosure.MaxListed - 1 {
		p := disclosure.Party{OIN: disclosure.OIN(fmt.Sprintf("%020d", i+1)), Domain: "P"}
		_, err := w.broker.AddPartner(t.Context(), disclosure.Partner{OIN: p.OIN, Name: "One of many", Domains: []disclosure.Domain{"P"}})
		must(t, err)
		_, _, err = w.broker.AddParticipant(t.Context(), expert(), id, p, []byte("identity"))
		must(t, err)
	}
	if _, _, err := w.broker.AddParticipant(t.Context(), expert(), id, constable(), []byte("identity")); !errors.Is(err, disclosure.ErrMalformed) {
		t.Errorf("one more than fits: %v", err)
	}
}

func TestPhases(t *testing.T) {
	w := newWorld(t)
	id := w.openCase()
	for _, test := range []struct {
		from, to disclosure.Phase
		want     error
	}{
		{"F1", "F3", nil},
		{"F1", "F2", disclosure.ReasonWrongPhase}, // it is in F3
		{"F3", "F3", disclosure.ReasonWrongPhase},
		{"F3", "F0", disclosure.ErrMalformed},
		{"F3", "F7", disclosure.ErrMalformed},
		{"F3", "F8", disclosure.ErrMalformed},
		{"F3", "", disclosure.ErrMalformed},
		{"F3", "F1", nil},
	} {
		c, _, err := w.broker.ChangePhase(t.Context(), expert(), id, test.from, test.to)
		if !errors.Is(err, test.want) || err == nil && c.Phase != test.to {
			t.Errorf("from %s to %s: got %s, %v, want %v", test.from, test.to, c.Phase, err, test.want)
		}
	}
}

// TestClosedCase tries everything that could still happen in a closed case.
func TestClosedCase(t *testing.T) {
	w, id, g := talked(t)
	consent, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
	must(t, err)
	for _, reason := range []string{"", strings.Repeat("x", disclosure.MaxText+1), "\xff"} {
		if _, _, err := w.broker.CloseCase(t.Context(), expert(), id, reason); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("closing for %q: %v", reason, err)
		}
	}
	c, _, err := w.broker.CloseCase(t.Context(), expert(), id, "done")
	must(t, err)
	if c.Phase != "F7" || c.ClosedAt == nil || !c.ClosedAt.Equal(w.clock.Now()) {
		t.Errorf("got phase %s, closed at %v", c.Phase, c.ClosedAt)
	}
	d, err := w.ask(policeman(), newID[disclosure.RequestID](), talk(id, "CONT.phone"))
	w.wantDenied(d, err, disclosure.ReasonWrongPhase)
	size := w.log.Size()
	for name, do := range map[string]func() error{
		"add participant": func() error {
			_, _, err := w.broker.AddParticipant(t.Context(), expert(), id, officer(), []byte("identity"))
			return err
		},
		"remove participant": func() error {
			_, _, err := w.broker.RemoveParticipant(t.Context(), expert(), id, nurse())
			return err
		},
		"change phase": func() error {
			_, _, err := w.broker.ChangePhase(t.Context(), expert(), id, "F7", "F1")
			return err
		},
		"close": func() error {
			_, _, err := w.broker.CloseCase(t.Context(), expert(), id, "again")
			return err
		},
		"create grant": func() error {
			_, _, err := w.broker.CreateGrant(t.Context(), expert(), w.newGrant(id, nurse(), constable(), "CONT.*"))
			return err
		},
		"revoke grant": func() error {
			_, _, err := w.broker.RevokeGrant(t.Context(), expert(), g.ID, "over")
			return err
		},
		"record evidence": func() error {
			_, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
			return err
		},
		"withdraw evidence": func() error {
			_, _, err := w.broker.WithdrawEvidence(t.Context(), caregiver(), id, consent.ID, "asked to")
			return err
		},
	} {
		wantReason(t, name, do(), disclosure.ReasonCaseClosed)
	}
	if w.log.Size() != size {
		t.Error("something was written")
	}
	// What is repeated still gives what there is.
	_, _, err = w.broker.CreateGrant(t.Context(), expert(), g)
	must(t, err)
	_, _, err = w.broker.RecordEvidence(t.Context(), caregiver(), consent)
	must(t, err)
	if c, err := w.broker.GetCase(t.Context(), policeman(), id); err != nil || c.ClosedAt == nil {
		t.Errorf("reading a closed case: %v", err)
	}
}

// pages goes through all pages of a list.
func pages[T any](t *testing.T, limit int, list func(after string) ([]T, string, error)) (all []T) {
	t.Helper()
	for after, n := "", 0; ; n++ {
		page, next, err := list(after)
		must(t, err)
		if len(page) > limit || n > 1000 {
			t.Fatalf("page %d of %d, limit %d", n, len(page), limit)
		}
		if all = append(all, page...); next == "" {
			return all
		}
		after = next
	}
}

func TestListCases(t *testing.T) {
	w := newWorld(t)
	var want []disclosure.CaseID
	for i := range 7 {
		id := w.openCase()
		if i%2 == 0 {
			_, _, err := w.broker.AddParticipant(t.Context(), expert(), id, constable(), []byte("identity"))
			must(t, err)
			want = append([]disclosure.CaseID{id}, want...)
		}
	}
	ids := func(cases []disclosure.Case) (ids []disclosure.CaseID) {
		for _, c := range cases {
			ids = append(ids, c.ID)
		}
		return ids
	}
	for _, limit := range []int{1, 2, 3, 100} {
		got := ids(pages(t, limit, func(after string) ([]disclosure.Case, string, error) {
			return w.broker.ListCases(t.Context(), policeman(), after, limit)
		}))
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: got %v, want %v", limit, got, want)
		}
	}
	own := pages(t, 3, func(after string) ([]disclosure.Case, string, error) {
		return w.broker.ListCases(t.Context(), expert(), after, 3)
	})
	if len(own) != 7 {
		t.Errorf("the owner sees %d cases", len(own))
	}
	for name, c := range map[string]disclosure.Caller{
		"another hat": person("x", disclosure.RoleProfessional, benefits()), "outsider": probator(), "nobody": {Organisation: municipality},
	} {
		if got, _, err := w.broker.ListCases(t.Context(), c, "", 100); err != nil || len(got) > 0 {
			t.Errorf("%s sees %v, %v", name, ids(got), err)
		}
	}
	// A limit that nobody checked neither fails nor gives everything.
	if got, next, err := w.broker.ListCases(t.Context(), expert(), "", 0); err != nil || len(got) != 1 || next == "" {
		t.Errorf("limit 0: %d cases, next %q, %v", len(got), next, err)
	}
	_, _, err := w.broker.RemoveParticipant(t.Context(), expert(), want[1], constable())
	must(t, err)
	got, _, err := w.broker.ListCases(t.Context(), policeman(), "", 100)
	if must(t, err); slices.Contains(ids(got), want[1]) || len(got) != len(want)-1 {
		t.Errorf("after leaving: %v", ids(got))
	}
}

func TestCreateGrant(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	g := w.newGrant(id, nurse(), constable(), "CONT.*", "POLNUIS.kind")
	g.GrantedBy, g.RevokedAt = "somebody else", new(time.Time)
	first, receipt, err := w.broker.CreateGrant(t.Context(), expert(), g)
	must(t, err)
	want := g
	want.GrantedBy, want.RevokedAt = expert().Person, nil
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
	w.clock.Move(11 * 24 * time.Hour) // it has expired, but it is the same
	again, same, err := w.broker.CreateGrant(t.Context(), expert(), g)
	must(t, err)
	if diff := cmp.Diff(first, again) + cmp.Diff(receipt, same); diff != "" {
		t.Errorf("again (-first +again):\n%s", diff)
	}
	colleague := person("colleague", disclosure.RolePGAExpert, process())
	_, _, err = w.broker.CreateGrant(t.Context(), colleague, g)
	wantReason(t, "the same by another", err, disclosure.ReasonAlreadyExists)
	for name, change := range map[string]func(*disclosure.Grant){
		"case":       func(g *disclosure.Grant) { g.Case = w.openCase(constable(), nurse()) },
		"source":     func(g *disclosure.Grant) { g.Source = process() },
		"recipient":  func(g *disclosure.Grant) { g.Recipient = process() },
		"purpose":    func(g *disclosure.Grant) { g.Purpose = "CONSENTED" },
		"fields":     func(g *disclosure.Grant) { g.Fields = []disclosure.Field{"CONT.*"} },
		"first":      func(g *disclosure.Grant) { g.FirstPhase = "F2" },
		"last":       func(g *disclosure.Grant) { g.LastPhase = "F5" },
		"start":      func(g *disclosure.Grant) { g.NotBefore = g.NotBefore.Add(time.Second) },
		"end":        func(g *disclosure.Grant) { g.ExpiresAt = g.ExpiresAt.Add(time.Second) },
		"motivation": func(g *disclosure.Grant) { g.Motive.Aim = "another" },
	} {
		other := g
		change(&other)
		_, _, err := w.broker.CreateGrant(t.Context(), expert(), other)
		wantReason(t, "the same id with another "+name, err, disclosure.ReasonAlreadyExists)
	}
	if got := w.countKind(disclosure.KindGrantCreated); got != 1 {
		t.Errorf("%d entries", got)
	}
}

func TestCreateGrantRefuses(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	for _, test := range []struct {
		name   string
		change func(*disclosure.Grant)
		want   error
	}{
		{"no case", func(g *disclosure.Grant) { g.Case = newID[disclosure.CaseID]() }, disclosure.ReasonNotFound},
		{"source takes no part", func(g *disclosure.Grant) { g.Source = officer() }, disclosure.ReasonNotMember},
		{"recipient takes no part", func(g *disclosure.Grant) { g.Recipient = officer() }, disclosure.ReasonNotMember},
		{"unknown organisation", func(g *disclosure.Grant) { g.Source.OIN = processor }, disclosure.ReasonUnknownOrganisation},
		{"hat of nobody", func(g *disclosure.Grant) { g.Source.Domain = "X" }, disclosure.ReasonHatNotAllowed},
		{"unlawful", func(g *disclosure.Grant) { g.Purpose = "CURIOSITY" }, disclosure.ReasonNoRow},
		{"expired", func(g *disclosure.Grant) {
			g.NotBefore, g.ExpiresAt = w.clock.Now().Add(-2*time.Hour), w.clock.Now()
		}, disclosure.ReasonGrantExpired},
		{"too long", func(g *disclosure.Grant) { g.ExpiresAt = g.NotBefore.Add(disclosure.MaxGrantTerm + 1) }, disclosure.ErrMalformed},
		{"no fields", func(g *disclosure.Grant) { g.Fields = nil }, disclosure.ErrMalformed},
		{"phases backwards", func(g *disclosure.Grant) { g.FirstPhase, g.LastPhase = "F3", "F2" }, disclosure.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, size := w.newGrant(id, nurse(), constable(), "CONT.*"), w.log.Size()
			test.change(&g)
			_, _, err := w.broker.CreateGrant(t.Context(), expert(), g)
			if !errors.Is(err, test.want) || w.log.Size() != size {
				t.Errorf("got %v and %d entries, want %v", err, w.log.Size()-size, test.want)
			}
		})
	}
}

func TestRevokeGrant(t *testing.T) {
	w, id, g := talked(t)
	other := w.grant(id, "CONT.email")
	if _, _, err := w.broker.RevokeGrant(t.Context(), expert(), g.ID, ""); !errors.Is(err, disclosure.ErrMalformed) {
		t.Errorf("without a reason: %v", err)
	}
	w.clock.Move(time.Minute)
	revoked, receipt, err := w.broker.RevokeGrant(t.Context(), expert(), g.ID, "over")
	must(t, err)
	if receipt == nil || revoked.RevokedAt == nil || !revoked.RevokedAt.Equal(receipt.Time) {
		t.Fatalf("got %+v, %v", revoked, receipt)
	}
	w.clock.Move(time.Minute)
	again, none, err := w.broker.RevokeGrant(t.Context(), expert(), g.ID, "again")
	must(t, err)
	if none != nil || !again.RevokedAt.Equal(*revoked.RevokedAt) {
		t.Errorf("again: %v, %v", again.RevokedAt, none)
	}
	created, _, err := w.broker.CreateGrant(t.Context(), expert(), g)
	must(t, err)
	if created.RevokedAt == nil {
		t.Error("creating it again gives it as if it was not revoked")
	}
	_, _, err = w.broker.RevokeGrant(t.Context(), expert(), newID[disclosure.GrantID](), "over")
	wantReason(t, "no grant", err, disclosure.ReasonNotFound)
	list := pages(t, 1, func(after string) ([]disclosure.Grant, string, error) {
		return w.broker.ListGrants(t.Context(), policeman(), id, after, 1)
	})
	if len(list) != 2 || !slices.ContainsFunc(list, func(g disclosure.Grant) bool { return g.ID == other.ID && g.RevokedAt == nil }) {
		t.Errorf("list: %+v", list)
	}
}

func TestRecordEvidence(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	e := w.consent(id)
	e.RecordedBy, e.WithdrawnAt = "somebody else", new(time.Time)
	first, receipt, err := w.broker.RecordEvidence(t.Context(), caregiver(), e)
	must(t, err)
	if first.Subject != subject || first.RecordedBy != caregiver().Person || first.WithdrawnAt != nil {
		t.Errorf("got %+v", first)
	}
	for _, when := range []string{"again", "after it was withdrawn"} {
		again, same, err := w.broker.RecordEvidence(t.Context(), caregiver(), e)
		must(t, err)
		if diff := cmp.Diff(receipt, same); diff != "" || again.ID != e.ID {
			t.Errorf("%s: another receipt (-first +again):\n%s", when, diff)
		}
		_, _, err = w.broker.WithdrawEvidence(t.Context(), caregiver(), id, e.ID, "asked to")
		must(t, err)
	}
	for name, change := range map[string]func(*disclosure.Evidence){
		"kind":       func(e *disclosure.Evidence) { e.Kind = "COVENANT" },
		"sources":    func(e *disclosure.Evidence) { e.Sources = []disclosure.Party{nurse()} },
		"recipients": func(e *disclosure.Evidence) { e.Recipients = []disclosure.Party{nurse()} },
		"purposes":   func(e *disclosure.Evidence) { e.Purposes = []disclosure.Purpose{"CASE_TALK"} },
		"categories": func(e *disclosure.Evidence) { e.Categories = []disclosure.Category{"CONT"} },
		"details":    func(e *disclosure.Evidence) { e.Details = map[string]string{"giver": "another"} },
		"start":      func(e *disclosure.Evidence) { e.ValidFrom = e.ValidFrom.Add(time.Second) },
		"end":        func(e *disclosure.Evidence) { e.ValidUntil = e.ValidUntil.Add(time.Second) },
		"subject":    func(e *disclosure.Evidence) { e.Subject = "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" },
	} {
		other := e
		change(&other)
		_, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), other)
		wantReason(t, "the same id with another "+name, err, disclosure.ReasonAlreadyExists)
	}
	byPolice := e
	byPolice.RecordedFor = constable()
	_, _, err = w.broker.RecordEvidence(t.Context(), policeman(), byPolice)
	wantReason(t, "the same id by another", err, disclosure.ReasonAlreadyExists)
	// In another case, and outside cases, the id is free.
	elsewhere := e
	elsewhere.Case = w.openCase(nurse())
	_, _, err = w.broker.RecordEvidence(t.Context(), caregiver(), elsewhere)
	must(t, err)
}

func TestRecordEvidenceRefuses(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	for _, test := range []struct {
		name   string
		caller disclosure.Caller
		change func(*disclosure.Evidence)
		want   error
	}{
		{"outsider", probator(), func(e *disclosure.Evidence) { e.RecordedFor = officer() }, disclosure.ReasonNotFound},
		{"no case", caregiver(), func(e *disclosure.Evidence) { e.Case = newID[disclosure.CaseID]() }, disclosure.ReasonNotFound},
		{
			"another hat of a participant", person("x", disclosure.RoleProfessional, process(), benefits()),
			func(e *disclosure.Evidence) { e.RecordedFor = benefits() }, disclosure.ReasonNotMember,
		},
		{
			"another person", caregiver(),
			func(e *disclosure.Evidence) { e.Subject = "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" }, disclosure.ErrMalformed,
		},
		{"ends before it starts", caregiver(), func(e *disclosure.Evidence) { e.ValidUntil = e.ValidFrom }, disclosure.ErrMalformed},
		{"unknown kind", caregiver(), func(e *disclosure.Evidence) { e.Kind = "RUMOUR" }, disclosure.ReasonUnknownCode},
		{"larger than an entry", caregiver(), func(e *disclosure.Evidence) {
			for i := range 70 {
				e.Details[fmt.Sprint(i)] = strings.Repeat("x", 1000)
			}
		}, disclosure.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, size := w.consent(id), w.log.Size()
			test.change(&e)
			_, _, err := w.broker.RecordEvidence(t.Context(), test.caller, e)
			if !errors.Is(err, test.want) || w.log.Size() != size {
				t.Errorf("got %v and %d entries, want %v", err, w.log.Size()-size, test.want)
			}
		})
	}
}

func TestWithdrawEvidence(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	covenant := disclosure.Evidence{
		ID: newID[disclosure.EvidenceID](), Kind: "COVENANT", RecordedFor: constable(),
		ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(time.Hour),
	}
	_, _, err := w.broker.RecordEvidence(t.Context(), policeman(), covenant)
	must(t, err)
	consent, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
	must(t, err)
	for _, test := range []struct {
		name   string
		caller disclosure.Caller
		id     disclosure.CaseID
		e      disclosure.EvidenceID
	}{{"in a case", caregiver(), id, consent.ID}, {"outside cases", policeman(), "", covenant.ID}} {
		t.Run(test.name, func(t *testing.T) {
			if _, _, err := w.broker.WithdrawEvidence(t.Context(), test.caller, test.id, test.e, ""); !errors.Is(err, disclosure.ErrMalformed) {
				t.Errorf("without a reason: %v", err)
			}
			_, _, err := w.broker.WithdrawEvidence(t.Context(), test.caller, test.id, newID[disclosure.EvidenceID](), "asked to")
			wantReason(t, "no such evidence", err, disclosure.ReasonNotFound)
			first, receipt, err := w.broker.WithdrawEvidence(t.Context(), test.caller, test.id, test.e, "asked to")
			must(t, err)
			if receipt == nil || first.WithdrawnAt == nil || !first.WithdrawnAt.Equal(receipt.Time) {
				t.Fatalf("got %+v, %v", first, receipt)
			}
			w.clock.Move(time.Minute)
			again, none, err := w.broker.WithdrawEvidence(t.Context(), test.caller, test.id, test.e, "again")
			must(t, err)
			if none != nil || !again.WithdrawnAt.Equal(*first.WithdrawnAt) {
				t.Errorf("again: %v, %v", again.WithdrawnAt, none)
			}
		})
	}
	_, _, err = w.broker.WithdrawEvidence(t.Context(), caregiver(), "", covenant.ID, "not mine")
	wantReason(t, "of others outside cases", err, disclosure.ReasonNotFound)
	list := func(c disclosure.Caller, id disclosure.CaseID) []disclosure.Evidence {
		return pages(t, 2, func(after string) ([]disclosure.Evidence, string, error) {
			return w.broker.ListEvidence(t.Context(), c, id, after, 2)
		})
	}
	if got := list(expert(), id); len(got) != 1 || got[0].ID != consent.ID || got[0].WithdrawnAt == nil {
		t.Errorf("list of the case: %+v", got)
	}
	if got := list(policeman(), ""); len(got) != 1 || got[0].ID != covenant.ID {
		t.Errorf("list outside cases: %+v", got)
	}
	for name, c := range map[string]disclosure.Caller{
		"another organisation": caregiver(), "nobody": {Organisation: police},
		"another hat": person("x", disclosure.RoleProfessional, disclosure.Party{OIN: police, Domain: "X"}),
	} {
		if got := list(c, ""); len(got) > 0 {
			t.Errorf("%s sees %+v", name, got)
		}
	}
}

// TestWithdrawHats withdraws evidence in hats that are nearly the right ones.
func TestWithdrawHats(t *testing.T) {
	w := newWorld(t)
	namesake := disclosure.Party{OIN: probation, Domain: "ME"} // wears the owner's hat, at another organisation
	must(t, w.hats(probation, "ME", "R"))
	id := w.openCase(nurse(), benefits(), namesake)
	byNurse, _, err := w.broker.RecordEvidence(t.Context(), caregiver(), w.consent(id))
	must(t, err)
	e := w.consent(id)
	e.RecordedFor = benefits()
	byBenefits, _, err := w.broker.RecordEvidence(t.Context(), person("x", disclosure.RoleProfessional, benefits()), e)
	must(t, err)
	withdraw := func(c disclosure.Caller, e disclosure.Evidence) error {
		_, _, err := w.broker.WithdrawEvidence(t.Context(), c, id, e.ID, "asked to")
		return err
	}
	wantReason(t, "namesake of the owner", withdraw(person("x", disclosure.RolePGAExpert, namesake), byNurse), disclosure.ReasonHatNotAllowed)
	another := person("x", disclosure.RoleProfessional, benefits())
	wantReason(t, "another hat of the owner", withdraw(another, byNurse), disclosure.ReasonHatNotAllowed)
	must(t, withdraw(expert(), byBenefits)) // the owner, in its own hat
	must(t, withdraw(caregiver(), byNurse))
}

// TestWithdrawAtOnce lets two withdraw the same evidence outside cases at the same time: one does, the other finds it done.
func TestWithdrawAtOnce(t *testing.T) {
	w := newWorld(t)
	const times = 16
	e := disclosure.Evidence{
		ID: newID[disclosure.EvidenceID](), Kind: "COVENANT", RecordedFor: constable(),
		ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(time.Hour),
	}
	_, _, err := w.broker.RecordEvidence(t.Context(), policeman(), e)
	must(t, err)
	done := make(chan int, times)
	for range times {
		go func() {
			_, receipt, err := w.broker.WithdrawEvidence(t.Context(), policeman(), "", e.ID, "ended")
			if err != nil {
				t.Error(err)
			}
			if receipt == nil {
				done <- 0
			} else {
				done <- 1
			}
		}()
	}
	receipts := 0
	for range times {
		receipts += <-done
	}
	if receipts != 1 || w.countKind(disclosure.KindEvidenceWithdrawn) != 1 {
		t.Errorf("%d receipts, %d entries", receipts, w.countKind(disclosure.KindEvidenceWithdrawn))
	}
}

// TestCreateAtOnce lets many create the same thing at the same time: it is created once, and all are told of that one entry.
func TestCreateAtOnce(t *testing.T) {
	w := newWorld(t)
	id := w.openCase(constable(), nurse())
	c, g, e := newCase(), w.newGrant(id, nurse(), constable(), "CONT.*"), w.consent(id)
	for name, create := range map[string]func() (disclosure.Receipt, error){
		"case": func() (disclosure.Receipt, error) {
			_, receipt, err := w.broker.OpenCase(t.Context(), expert(), c)
			return receipt, err
		},
		"grant": func() (disclosure.Receipt, error) {
			_, receipt, err := w.broker.CreateGrant(t.Context(), expert(), g)
			return receipt, err
		},
		"evidence": func() (disclosure.Receipt, error) {
			_, receipt, err := w.broker.RecordEvidence(t.Context(), caregiver(), e)
			return receipt, err
		},
	} {
		const times = 16
		size := w.log.Size()
		receipts := make([]disclosure.Receipt, times)
		var group sync.WaitGroup
		for i := range times {
			group.Go(func() {
				var err error
				if receipts[i], err = create(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		group.Wait()
		for _, receipt := range receipts {
			if diff := cmp.Diff(receipts[0], receipt); diff != "" {
				t.Errorf("%s: another receipt:\n%s", name, diff)
			}
		}
		if w.log.Size() != size+1 {
			t.Errorf("%s: %d entries", name, w.log.Size()-size)
		}
	}
}
