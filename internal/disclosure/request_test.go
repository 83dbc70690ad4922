package disclosure_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluis/internal/disclosure"
)

func manyFields(n int) (fields []disclosure.Field) {
	for i := range n {
		fields = append(fields, disclosure.Field(fmt.Sprintf("CONT.f%d", i)))
	}
	return fields
}

func TestRequestValidate(t *testing.T) {
	long := strings.Repeat("é", disclosure.MaxText) // characters, not bytes
	for _, test := range []struct {
		name   string
		fields []disclosure.Field
		motive *disclosure.Motivation
		ok     bool
	}{
		{"one field", manyFields(1), nil, true},
		{"most fields", manyFields(disclosure.MaxFields), nil, true},
		{"no fields", nil, nil, false},
		{"too many fields", manyFields(disclosure.MaxFields + 1), nil, false},
		{"a field twice", []disclosure.Field{"CONT.b", "CONT.a", "CONT.b"}, nil, false},
		{"motivation", manyFields(1), &disclosure.Motivation{Aim: long, Necessity: long, Subsidiarity: long, Proportionality: long}, true},
		{"empty motivation", manyFields(1), &disclosure.Motivation{}, true},
		{"aim too long", manyFields(1), &disclosure.Motivation{Aim: long + "x"}, false},
		{"necessity too long", manyFields(1), &disclosure.Motivation{Necessity: long + "x"}, false},
		{"subsidiarity too long", manyFields(1), &disclosure.Motivation{Subsidiarity: long + "x"}, false},
		{"proportionality too long", manyFields(1), &disclosure.Motivation{Proportionality: long + "x"}, false},
		{"not UTF-8", manyFields(1), &disclosure.Motivation{Aim: "\xff"}, false},
	} {
		before := fmt.Sprint(test.fields)
		err := disclosure.Request{Fields: test.fields, Motive: test.motive}.Validate()
		if (err == nil) != test.ok || err != nil && !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("%s: %v, want it accepted: %t", test.name, err, test.ok)
		}
		if fmt.Sprint(test.fields) != before {
			t.Errorf("%s: the fields were put in another order", test.name)
		}
	}
}

func TestGrantValidate(t *testing.T) {
	start := time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)
	good := disclosure.Grant{
		Fields: manyFields(2), FirstPhase: "F1", LastPhase: "F1", NotBefore: start, ExpiresAt: start.Add(disclosure.MaxGrantTerm),
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*disclosure.Grant){
		"no fields":         func(g *disclosure.Grant) { g.Fields = nil },
		"a field twice":     func(g *disclosure.Grant) { g.Fields = []disclosure.Field{"CONT.a", "CONT.a"} },
		"too many fields":   func(g *disclosure.Grant) { g.Fields = manyFields(disclosure.MaxFields + 1) },
		"phases backwards":  func(g *disclosure.Grant) { g.FirstPhase = "F2" },
		"too long":          func(g *disclosure.Grant) { g.ExpiresAt = g.ExpiresAt.Add(1) },
		"no time at all":    func(g *disclosure.Grant) { g.ExpiresAt = g.NotBefore },
		"ends before":       func(g *disclosure.Grant) { g.ExpiresAt = g.NotBefore.Add(-1) },
		"motivation":        func(g *disclosure.Grant) { g.Motive.Aim = strings.Repeat("x", disclosure.MaxText+1) },
		"from the year one": func(g *disclosure.Grant) { g.NotBefore = time.Time{} },
	} {
		g := good
		change(&g)
		if err := g.Validate(); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEvidenceValidate(t *testing.T) {
	start := time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)
	good := disclosure.Evidence{
		ValidFrom: start, ValidUntil: start.Add(1), Details: map[string]string{strings.Repeat("k", 40): strings.Repeat("é", 1000)},
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	many := map[string]string{}
	for i := range disclosure.MaxListed + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, change := range map[string]func(*disclosure.Evidence){
		"no time":         func(e *disclosure.Evidence) { e.ValidUntil = e.ValidFrom },
		"many sources":    func(e *disclosure.Evidence) { e.Sources = make([]disclosure.Party, disclosure.MaxListed+1) },
		"many recipients": func(e *disclosure.Evidence) { e.Recipients = make([]disclosure.Party, disclosure.MaxListed+1) },
		"many purposes":   func(e *disclosure.Evidence) { e.Purposes = make([]disclosure.Purpose, disclosure.MaxListed+1) },
		"many categories": func(e *disclosure.Evidence) { e.Categories = make([]disclosure.Category, disclosure.MaxListed+1) },
		"many details":    func(e *disclosure.Evidence) { e.Details = many },
		"long name":       func(e *disclosure.Evidence) { e.Details = map[string]string{strings.Repeat("k", 41): ""} },
		"long text":       func(e *disclosure.Evidence) { e.Details = map[string]string{"k": strings.Repeat("x", 1001)} },
		"not UTF-8":       func(e *disclosure.Evidence) { e.Details = map[string]string{"k": "\xff"} },
	} {
		e := good
		change(&e)
		if err := e.Validate(); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAge takes the last day of the month of birth for the birthday: nobody is taken for older than he certainly is.
func TestAge(t *testing.T) {
	day := func(s string) time.Time {
		at, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, test := range []struct {
		born string
		at   string
		want int
	}{
		{"2008-03", "2026-03-01", 17},
		{"2008-03", "2026-03-30", 17},
		{"2008-03", "2026-03-31", 18},
		{"2008-03", "2027-03-30", 18},
		{"2008-12", "2026-12-30", 17},
		{"2008-12", "2026-12-31", 18},
		{"2008-02", "2026-02-28", 17}, // born by 29 February: 18 on 1 March
		{"2008-02", "2026-03-01", 18},
		{"2008-02", "2028-02-29", 20},
		{"2026-03", "2026-03-02", -1},
	} {
		got, err := disclosure.SubjectFacts{BirthMonth: test.born}.Age(day(test.at))
		if err != nil || got != test.want {
			t.Errorf("born in %s, on %s: %d, %v, want %d", test.born, test.at, got, err, test.want)
		}
	}
	for _, bad := range []string{"", "2008", "2008-13", "2008-00", "2008-3", "2008-03-01", "maart 2008"} {
		if _, err := (disclosure.SubjectFacts{BirthMonth: bad}).Age(day("2026-03-02")); !errors.Is(err, disclosure.ErrMalformed) {
			t.Errorf("born in %q: %v", bad, err)
		}
	}
}

func TestCaller(t *testing.T) {
	c := disclosure.Caller{Person: "x", Roles: []disclosure.Role{disclosure.RoleProfessional, disclosure.RoleCaseDirector}}
	if !c.Is(disclosure.RolePGAExpert, disclosure.RoleCaseDirector) || c.Is(disclosure.RolePGAExpert) || c.Is() {
		t.Error("roles are told wrongly")
	}
	if c.Person = ""; c.Is(disclosure.RoleProfessional) {
		t.Error("nobody has a role")
	}
}

func TestCaseHas(t *testing.T) {
	p := disclosure.Party{OIN: "00000001001234567000", Domain: "ME"}
	c := disclosure.Case{Participants: []disclosure.Participant{{Party: p}}}
	if !c.Has(p) || c.Has(disclosure.Party{OIN: p.OIN, Domain: "MW"}) || c.Has(disclosure.Party{OIN: "1", Domain: "ME"}) {
		t.Error("participants are told wrongly")
	}
}
