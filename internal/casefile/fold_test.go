package casefile_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

func wantReason(t testing.TB, what string, err error, want disclosure.ReasonCode) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

// TestEveryKind folds one of each, and checks what an event changes: each of a case gives the case a new version, and none of those that
// only tell changes anything.
func TestEveryKind(t *testing.T) {
	m, folded := newMemory(t), map[disclosure.Kind]bool{}
	for _, e := range oneOfEach() {
		before := len(m.items)
		index := m.must(e)
		folded[e.Kind] = true
		switch e.Kind {
		case disclosure.KindLogRead, disclosure.KindExplained:
			if changed(m, index) > 0 || len(m.items) != before {
				t.Errorf("%s changes the state", e.Kind)
			}
		case disclosure.KindDecisionMade, disclosure.KindOutcomeRecorded:
		default:
			if changed(m, index) == 0 {
				t.Errorf("%s changes nothing", e.Kind)
			}
			if e.Case == "" {
				continue
			}
			if _, version, err := m.view().Case(t.Context(), e.Case); err != nil || version.Version != index+1 {
				t.Errorf("%s leaves its case as it was: version %d, want %d (%v)", e.Kind, version.Version, index+1, err)
			}
		}
	}
	for _, kind := range allKinds() {
		if !folded[kind] {
			t.Errorf("no %s was folded", kind)
		}
	}
}

// changed counts the items that an entry put.
func changed(m *memory, index uint64) (n int) {
	for _, item := range m.items {
		if item.Version == index+1 {
			n++
		}
	}
	return n
}

func TestCase(t *testing.T) {
	m := newMemory(t)
	at := m.must(opened("c1"))
	m.now = m.now.Add(time.Minute)
	m.must(joined("c1", constable(), "first"))
	m.must(joined("c1", nurse(), "for the nurse"))
	m.must(joined("c1", benefits(), "for the benefits office"))
	m.now = m.now.Add(time.Minute)
	m.must(joined("c1", constable(), "second"))
	m.must(phase("c1", "F1", "F3"))
	c, _, err := m.view().Case(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	joinedAt := epoch().Add(time.Minute)
	want := disclosure.Case{
		ID: "c1", Reference: "2026-001", Owner: process(), Regime: disclosure.RegimeLPGA, Phase: "F3", Subject: subject, OpenedAt: epoch(),
		Participants: []disclosure.Participant{
			{Party: process(), JoinedAt: epoch()},
			{Party: constable(), JoinedAt: joinedAt},
			{Party: nurse(), JoinedAt: joinedAt},
			{Party: benefits(), JoinedAt: joinedAt},
		},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("case (-want +got):\n%s", diff)
	}
	if index, err := m.view().OpenedAt(t.Context(), "c1"); err != nil || index != at {
		t.Errorf("opened at %d, %v, want %d", index, err, at)
	}
	identity := func(p disclosure.Party) string {
		sealed, err := m.view().Identity(t.Context(), "c1", p)
		if err != nil {
			return err.Error()
		}
		return string(sealed)
	}
	if got := identity(constable()); got != "second" {
		t.Errorf("identity: %q", got)
	}
	m.must(left("c1", constable()))
	if _, err := m.view().Identity(t.Context(), "c1", constable()); !errors.Is(err, disclosure.ReasonNotFound) {
		t.Errorf("identity for who left: %v", err)
	}
	if got := identity(nurse()); got != "for the nurse" {
		t.Errorf("identity for who stays: %q", got)
	}
	// The municipality takes part in two hats: one of them leaving does not hide the case from the other.
	m.must(left("c1", benefits()))
	if list, _, err := m.view().Cases(t.Context(), municipality, "", 10); err != nil || len(list) != 1 {
		t.Errorf("cases of the municipality: %v, %v", list, err)
	}
	m.must(closed("c1"))
	c, _, err = m.view().Case(t.Context(), "c1")
	if err != nil || c.Phase != "F7" || c.ClosedAt == nil || !c.ClosedAt.Equal(m.now) {
		t.Errorf("closed: %+v, %v", c, err)
	}
}

// TestRefused holds what the fold refuses, whatever a use case may have thought of it.
func TestRefused(t *testing.T) {
	past, now := epoch(), epoch().Add(time.Minute)
	m := newMemory(t)
	for _, e := range []disclosure.Event{
		brokerKeys(10), partner(municipality, "ME"), partner(police, "P"), partner(care, "CG"), opened("open"), opened("closed"),
		joined("open", nurse(), "x"), joined("closed", nurse(), "x"), granted("open", "live", nurse(), process()),
		granted("open", "ended", nurse(), process()), revoked("open", "ended"), granted("closed", "old", nurse(), process()),
		recorded("open", "live", nurse(), subject), recorded("open", "ended", nurse(), subject), withdrawn("open", "ended", nurse()),
		recorded("closed", "old", nurse(), subject), recorded("", "live", nurse(), ""), recorded("", "ended", nurse(), ""),
		withdrawn("", "ended", nurse()), closed("closed"), decided("denied", "body", disclosure.Deny, nil),
	} {
		m.must(e)
	}
	m.now = now
	underWay := m.must(decided("under way", "body", disclosure.Permit, nil))
	finish := func(request disclosure.RequestID, outcome disclosure.Outcome) uint64 {
		index := m.must(decided(request, "body", disclosure.Permit, nil))
		m.must(ended(index, request, outcome))
		return index
	}
	disclosed := finish("disclosed", disclosure.Disclosed)
	finish("refused", disclosure.Refused)
	const ok disclosure.ReasonCode = ""
	for _, test := range []struct {
		name  string
		event disclosure.Event
		want  disclosure.ReasonCode
	}{
		{"case opened twice", opened("open"), disclosure.ReasonAlreadyExists},
		{"closed case opened", opened("closed"), disclosure.ReasonAlreadyExists},
		{"phase of no case", phase("none", "F1", "F2"), disclosure.ReasonNotFound},
		{"phase of a closed case", phase("closed", "F7", "F2"), disclosure.ReasonCaseClosed},
		{"participant of no case", joined("none", nurse(), "x"), disclosure.ReasonNotFound},
		{"participant of a closed case", joined("closed", constable(), "x"), disclosure.ReasonCaseClosed},
		{"leaving no case", left("none", nurse()), disclosure.ReasonNotFound},
		{"leaving a closed case", left("closed", nurse()), disclosure.ReasonCaseClosed},
		{"closing no case", closed("none"), disclosure.ReasonNotFound},
		{"closing twice", closed("closed"), disclosure.ReasonCaseClosed},
		{"grant in no case", granted("none", "g", nurse(), process()), disclosure.ReasonNotFound},
		{"grant in a closed case", granted("closed", "g", nurse(), process()), disclosure.ReasonCaseClosed},
		{"grant twice", granted("open", "live", nurse(), process()), disclosure.ReasonAlreadyExists},
		{"grant of another case", granted("open", "old", nurse(), process()), disclosure.ReasonAlreadyExists},
		{"revoking no grant", revoked("open", "none"), disclosure.ReasonNotFound},
		{"revoking a grant of another case", revoked("open", "old"), disclosure.ReasonNotFound},
		{"revoking in a closed case", revoked("closed", "old"), disclosure.ReasonCaseClosed},
		{"revoking twice", revoked("open", "ended"), disclosure.ReasonContention},
		{"evidence in no case", recorded("none", "e", nurse(), subject), disclosure.ReasonNotFound},
		{"evidence in a closed case", recorded("closed", "e", nurse(), subject), disclosure.ReasonCaseClosed},
		{"evidence twice", recorded("open", "live", nurse(), subject), disclosure.ReasonAlreadyExists},
		{"evidence twice by another", recorded("open", "live", constable(), subject), disclosure.ReasonAlreadyExists},
		{"evidence twice outside", recorded("", "live", nurse(), ""), disclosure.ReasonAlreadyExists},
		{"evidence of a stranger", recorded("", "e", disclosure.Party{OIN: processor}, ""), disclosure.ReasonNotFound},
		{"withdrawing nothing", withdrawn("open", "none", nurse()), disclosure.ReasonNotFound},
		{"withdrawing in a closed case", withdrawn("closed", "old", nurse()), disclosure.ReasonCaseClosed},
		{"withdrawing twice", withdrawn("open", "ended", nurse()), disclosure.ReasonContention},
		{"withdrawing twice outside", withdrawn("", "ended", nurse()), disclosure.ReasonContention},
		{"withdrawing what another recorded outside", withdrawn("", "live", constable()), disclosure.ReasonNotFound},
		{"deciding again while under way", decided("under way", "body", disclosure.Permit, nil), disclosure.ReasonRequestInProgress},
		{"denying while under way", decided("under way", "body", disclosure.Deny, nil), disclosure.ReasonRequestInProgress},
		{"deciding again after a denial", decided("denied", "body", disclosure.Permit, nil), disclosure.ReasonRequestInProgress},
		{"deciding again after the disclosure", decided("disclosed", "body", disclosure.Permit, nil), disclosure.ReasonRequestInProgress},
		{"deciding again after a refusal", decided("refused", "body", disclosure.Permit, nil), disclosure.ReasonRequestInProgress},
		{"another body", decided("disclosed", "other", disclosure.Permit, nil), disclosure.ReasonRequestIDReused},
		{"another body while under way", decided("under way", "other", disclosure.Deny, nil), disclosure.ReasonRequestIDReused},
		{"another body after a denial", decided("denied", "other", disclosure.Deny, nil), disclosure.ReasonRequestIDReused},
		{"outcome of nothing", ended(1000, "none", disclosure.Disclosed), disclosure.ReasonContention},
		{"second outcome", ended(disclosed, "disclosed", disclosure.Failed), disclosure.ReasonContention},
		{"pseudonyms beyond the budget", pseudonyms(police, "2026-03-02", 11), disclosure.ReasonBudgetSpent},

		{"grant under a free id", granted("open", "free", nurse(), process()), ok},
		{"evidence under an id of elsewhere", recorded("open", "old", nurse(), subject), ok},
		{"evidence outside under an id of another", recorded("", "live", constable(), ""), ok},
		{"late answer", ended(disclosed, "disclosed", disclosure.Dropped), ok},
		{"late answer while under way", ended(underWay, "under way", disclosure.Dropped), ok},
		{"outcome", ended(underWay, "under way", disclosure.Failed), ok},
		{"deciding again after a failure", decided("under way", "body", disclosure.Permit, nil), ok},
		{"denial on what has run out", decided("late denial", "body", disclosure.Deny, &past), ok},
	} {
		size := m.size
		if _, err := m.fold(test.event); test.want == ok && err != nil || test.want != ok && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if test.want != ok && m.size != size {
			t.Errorf("%s: accepted", test.name)
		}
	}
	for _, until := range []time.Time{past, now} {
		if _, err := m.fold(decided("late", "body", disclosure.Permit, &until)); !errors.Is(err, casefile.ErrStale) {
			t.Errorf("permit until %v at %v: %v", until, now, err)
		}
	}
	just := now.Add(1)
	m.must(decided("late", "body", disclosure.Permit, &just))
}

func TestProgress(t *testing.T) {
	m := newMemory(t)
	for _, outcome := range []disclosure.Outcome{disclosure.Disclosed, disclosure.Refused, disclosure.Failed, disclosure.Abandoned} {
		request := disclosure.RequestID(outcome)
		index := m.must(decided(request, "body", disclosure.Permit, nil))
		got, err := m.view().Progress(t.Context(), police, request)
		want := casefile.Progress{BodyDigest: []byte("body"), Decision: index, Permit: true}
		if diff := cmp.Diff(want, got); diff != "" || err != nil || got.Ended() {
			t.Errorf("under way (-want +got): %v\n%s", err, diff)
		}
		open, err := m.view().Unfinished(t.Context())
		wantOpen := map[uint64]casefile.Unfinished{index: {Requester: constable(), Source: nurse(), Request: request}}
		if diff := cmp.Diff(wantOpen, open); diff != "" || err != nil {
			t.Errorf("unfinished (-want +got): %v\n%s", err, diff)
		}
		// A late answer to this or another permit says nothing about how this one ends.
		m.must(ended(index, request, disclosure.Dropped))
		at := m.must(ended(index, request, outcome))
		m.must(ended(index, request, disclosure.Dropped))
		want.Outcome, want.OutcomeAt = outcome, at
		got, err = m.view().Progress(t.Context(), police, request)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ended (-want +got): %v\n%s", err, diff)
		}
		if final := outcome == disclosure.Disclosed || outcome == disclosure.Refused; got.Ended() != final {
			t.Errorf("%s: ended %t, want %t", outcome, got.Ended(), final)
		}
		if open, err := m.view().Unfinished(t.Context()); len(open) > 0 || err != nil {
			t.Errorf("still unfinished: %v, %v", open, err)
		}
	}
	m.must(decided("denied", "body", disclosure.Deny, nil))
	if got, err := m.view().Progress(t.Context(), police, "denied"); err != nil || !got.Ended() || got.Permit {
		t.Errorf("denied: %+v, %v", got, err)
	}
	_, err := m.view().Progress(t.Context(), care, "denied")
	wantReason(t, "request of another organisation", err, disclosure.ReasonNotFound)
}

func TestBudget(t *testing.T) {
	m := newMemory(t)
	_, err := m.fold(pseudonyms(police, "2026-03-02", 1))
	wantReason(t, "before there are keys", err, disclosure.ReasonNotFound)
	m.must(brokerKeys(10))
	const first, second, third = "2026-03-02", "2026-03-03", "2026-03-04"
	for _, step := range []struct {
		by    disclosure.OIN
		day   string
		count int
		ok    bool
	}{
		{police, second, 6, true},
		{police, second, 5, false},
		{police, second, 4, true},
		{police, second, 1, false},
		{care, second, 10, true},
		// An entry of the day before counts for the day that has begun, and does not begin another.
		{police, first, 1, false},
		{police, second, 1, false},
		{police, third, 9, true},
		{police, second, 1, true},
		{police, third, 1, false},
		{police, first, 1, false},
	} {
		_, err := m.fold(pseudonyms(step.by, step.day, step.count))
		if step.ok && err != nil || !step.ok && !errors.Is(err, disclosure.ReasonBudgetSpent) {
			t.Errorf("%d on %s: %v, want it accepted: %t", step.count, step.day, err, step.ok)
		}
	}
	for day, want := range map[string]int{first: 10, third: 10, "2026-03-05": 0} {
		if got, err := m.view().Budget(t.Context(), police, day); err != nil || got != want {
			t.Errorf("spent on %s: %d, %v, want %d", day, got, err, want)
		}
	}
	m.must(brokerKeys(12)) // a larger budget holds at once
	m.must(pseudonyms(police, third, 2))
}

func TestPrepareRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		event  disclosure.Event
		change func(*disclosure.Event)
	}{
		{"case of another id", opened("c1"), func(e *disclosure.Event) { e.Case = "c2" }},
		{"case outside cases", opened(""), nil},
		{"grant of another case", granted("c1", "g1", nurse(), process()), func(e *disclosure.Event) { e.Case = "c2" }},
		{"grant outside cases", granted("", "g1", nurse(), process()), nil},
		{"evidence of another case", recorded("c1", "e1", nurse(), subject), func(e *disclosure.Event) { e.Case = "" }},
		{"evidence by another", recorded("c1", "e1", nurse(), subject), func(e *disclosure.Event) { e.By = constable() }},
		{"phase outside cases", phase("", "F1", "F2"), nil},
		{"participant outside cases", joined("", nurse(), "x"), nil},
		{"leaving outside cases", left("", nurse()), nil},
		{"closing outside cases", closed(""), nil},
		{"revoking outside cases", revoked("", "g1"), nil},
		{"no pseudonyms", pseudonyms(police, "2026-03-02", 0), nil},
		{"budget given back", pseudonyms(police, "2026-03-02", -5), nil},
		{"no day", pseudonyms(police, "today", 1), nil},
		{"no effect", decided("r1", "body", "", nil), nil},
		{"unknown effect", decided("r1", "body", "PERHAPS", nil), nil},
		{"no outcome", ended(1, "r1", ""), nil},
		{"unknown outcome", ended(1, "r1", "SOMEHOW"), nil},
		{"two members", lookedUp(), func(e *disclosure.Event) { e.CaseClosed = &disclosure.CaseClosed{} }},
		{"member of another kind", lookedUp(), func(e *disclosure.Event) { e.Kind = disclosure.KindCaseClosed }},
		{"unknown kind", lookedUp(), func(e *disclosure.Event) { e.Kind = "GOSSIP" }},
	} {
		if test.change != nil {
			test.change(&test.event)
		}
		payload, err := test.event.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (casefile.Folder{}).Prepare(payload); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	if err := (casefile.Folder{}).Fold(&pending{memory: newMemory(t)}, 0, epoch(), "not an event"); err == nil {
		t.Error("folded what was not prepared")
	}
	if terms := (casefile.Folder{}).Terms("not an event"); terms != nil {
		t.Errorf("terms of what was not prepared: %v", terms)
	}
}

// FuzzPrepare folds whatever is accepted on a state in which everything is there, and checks that it says what it said when written again.
func FuzzPrepare(f *testing.F) {
	for _, e := range oneOfEach() {
		payload, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte(`{"v":1,"kind":"CASE_CLOSED","by":{"oin":"","domain":""},"case_closed":null}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		prepared, err := casefile.Folder{}.Prepare(payload)
		if err != nil {
			if !errors.Is(err, disclosure.ErrMalformed) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		e, ok := prepared.(*disclosure.Event)
		if !ok {
			t.Fatalf("prepared a %T", prepared)
		}
		written, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := casefile.Folder{}.Prepare(written)
		if err != nil {
			t.Fatalf("refused when written again: %v", err)
		}
		if diff := cmp.Diff(jsonOf(t, prepared), jsonOf(t, again)); diff != "" {
			t.Errorf("says something else when written again:\n%s", diff)
		}
		if diff := cmp.Diff(casefile.Folder{}.Terms(prepared), casefile.Folder{}.Terms(again)); diff != "" {
			t.Errorf("other terms when written again:\n%s", diff)
		}
		m := newMemory(t)
		for _, e := range oneOfEach() {
			m.must(e)
		}
		first := jsonOf(t, prepared)
		a := &pending{memory: m, changed: map[string]ledger.Item{}}
		b := &pending{memory: m, changed: map[string]ledger.Item{}}
		errA := casefile.Folder{}.Fold(a, m.size, m.now, prepared)
		errB := casefile.Folder{}.Fold(b, m.size, m.now, prepared)
		if (errA == nil) != (errB == nil) || errA == nil && cmp.Diff(a.changed, b.changed) != "" {
			t.Errorf("folds otherwise the second time: %v, %v", errA, errB)
		}
		if jsonOf(t, prepared) != first {
			t.Error("the fold changes the event")
		}
	})
}

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	encoded, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

func TestTerms(t *testing.T) {
	c := disclosure.CaseID("00000000-0000-4000-8000-000000000001")
	inCase := decided("r1", "body", disclosure.Deny, nil)
	inCase.Case, inCase.DecisionMade.Input.Request.Case = c, c
	for _, test := range []struct {
		event disclosure.Event
		want  []string
	}{
		{inCase, []string{
			"case=" + string(c), "kind=DECISION_MADE", "org=" + string(care), "org=" + string(police), "purpose=DANGER",
			"reason=NOT_GRANTED", "reason=NO_GRANT", "requester=" + string(police), "source=" + string(care), "subject=" + string(subject),
		}},
		{ended(1, "r1", disclosure.Failed), []string{
			"kind=OUTCOME_RECORDED", "org=" + string(care), "org=" + string(police), "org=" + string(processor), "reason=SOURCE_TIMEOUT",
		}},
		{granted(c, "g1", nurse(), constable()), []string{
			"case=" + string(c), "kind=GRANT_CREATED", "org=" + string(municipality), "org=" + string(care), "org=" + string(police), "purpose=CASE_TALK",
		}},
		{joined(c, nurse(), "x"), []string{"case=" + string(c), "kind=PARTICIPANT_ADDED", "org=" + string(municipality), "org=" + string(care)}},
		{left(c, nurse()), []string{"case=" + string(c), "kind=PARTICIPANT_REMOVED", "org=" + string(municipality), "org=" + string(care)}},
		{opened(c), []string{"case=" + string(c), "kind=CASE_OPENED", "org=" + string(municipality), "subject=" + string(subject)}},
		{lookedUp(), []string{"kind=LOG_READ", "org=" + string(police)}},
	} {
		got := casefile.Folder{}.Terms(&test.event)
		slices.Sort(got)
		slices.Sort(test.want)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.event.Kind, diff)
		}
	}
}

// TestQueryAgrees checks that a query finds an event by each thing that it says about it, and by nothing that it does not.
func TestQueryAgrees(t *testing.T) {
	for _, e := range append(oneOfEach(), explained()) {
		terms := casefile.Folder{}.Terms(&e)
		finds := func(org disclosure.OIN, q disclosure.EntryQuery) bool {
			return !slices.ContainsFunc(casefile.Query(org, q), func(term string) bool { return !slices.Contains(terms, term) })
		}
		for _, org := range []disclosure.OIN{municipality, police, care, processor, ""} {
			concerns := casefile.Concerns(e, org)
			if found := finds(org, disclosure.EntryQuery{}); found != concerns {
				t.Errorf("%s: found for %q: %t, concerns it: %t", e.Kind, org, found, concerns)
			}
			if found := finds(org, disclosure.EntryQuery{Kind: e.Kind, Case: e.Case}); found != concerns {
				t.Errorf("%s: found for %q by kind and case: %t", e.Kind, org, found)
			}
			for _, q := range []disclosure.EntryQuery{
				{Kind: "OTHER"}, {Case: "other"}, {Subject: other}, {Requester: processor}, {Source: processor}, {Purpose: "OTHER"}, {Reason: "OTHER"},
			} {
				if finds(org, q) {
					t.Errorf("%s: found for %q by %+v", e.Kind, org, q)
				}
			}
		}
		if !casefile.Concerns(e, e.By.OIN) || casefile.Concerns(e, "") {
			t.Errorf("%s: does not concern who acted, or concerns nobody", e.Kind)
		}
	}
	q := disclosure.EntryQuery{
		Kind: disclosure.KindDecisionMade, Subject: subject, Requester: police, Source: care, Purpose: "DANGER", Reason: disclosure.ReasonNoGrant,
	}
	e := decided("r1", "body", disclosure.Deny, nil)
	terms := casefile.Folder{}.Terms(&e)
	for _, term := range casefile.Query(care, q) {
		if !slices.Contains(terms, term) {
			t.Errorf("a decision is not found by %s", term)
		}
	}
}
