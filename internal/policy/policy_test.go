package policy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
	"sluis/policies"
)

// running returns an engine of this policy that decides until the test ends.
func running(t testing.TB, fsys fs.FS) *Engine {
	t.Helper()
	e, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e)
	return e
}

func run(t testing.TB, e *Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func goldenCases(t testing.TB) []Case {
	t.Helper()
	cases, err := ReadCases(policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 200 {
		t.Fatalf("found %d golden cases, want all of them", len(cases))
	}
	return cases
}

func golden(t testing.TB, e *Engine, name string) disclosure.DecisionInput {
	t.Helper()
	for _, c := range goldenCases(t) {
		if strings.HasPrefix(c.Name, name) {
			in, err := c.Input(e.catalogue)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
	}
	t.Fatalf("no golden case %q", name)
	return disclosure.DecisionInput{}
}

func decide(t testing.TB, e *Engine, in disclosure.DecisionInput) disclosure.Decision {
	t.Helper()
	d, err := e.Decide(context.WithoutCancel(t.Context()), in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func reasonCodes(d disclosure.Decision) []disclosure.ReasonCode {
	var list []disclosure.ReasonCode
	for _, r := range d.Reasons {
		list = append(list, r.Code)
	}
	return list
}

// TestCases decides each golden case, and checks that its decision is made again from what the ledger would hold.
func TestCases(t *testing.T) {
	e := running(t, policies.FS)
	for _, c := range goldenCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			in, err := c.Input(e.catalogue)
			if err != nil {
				t.Fatal(err)
			}
			got := decide(t, e, in)
			for _, fault := range c.Faults(e.catalogue, in, got) {
				t.Error(fault)
			}
			for _, r := range got.Reasons {
				if r.Article == "" {
					t.Errorf("reason %s cites nothing", r.Code)
				}
			}
			recorded, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			var again disclosure.DecisionInput
			if err := json.Unmarshal(recorded, &again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, decide(t, e, again)); diff != "" {
				t.Errorf("the recorded input is decided otherwise (-first +again):\n%s", diff)
			}
		})
	}
}

// TestFaults checks that a golden case can fail in each of its expectations.
func TestFaults(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T09")
	got := decide(t, e, in)
	days := 3
	for name, want := range map[string]Expected{
		"effect":      {Effect: disclosure.Deny, Row: "LB-010", Released: []disclosure.Field{"POLNUIS.*", "POLINC.*"}},
		"rows":        {Effect: disclosure.Permit, Row: "LB-011", Released: []disclosure.Field{"POLNUIS.*", "POLINC.*"}},
		"released":    {Effect: disclosure.Permit, Row: "LB-010", Released: []disclosure.Field{"POLNUIS.*"}},
		"withheld":    {Effect: disclosure.Permit, Row: "LB-010", Released: []disclosure.Field{"POLNUIS.*", "POLINC.*"}},
		"reasons":     {Effect: disclosure.Permit, Row: "LB-010", Reasons: []string{"NO_ROW"}},
		"obligations": {Effect: disclosure.Permit, Row: "LB-010", Obligations: []string{}},
		"valid days":  {Effect: disclosure.Permit, Row: "LB-010", Days: &days},
	} {
		if faults := (Case{Expected: want}).Faults(e.catalogue, in, got); !strings.Contains(strings.Join(faults, "\n"), name+":") {
			t.Errorf("another expectation of %s is not noticed: %v", name, faults)
		}
	}
}

// perfect returns the input in which everything that a row asks for is proven, for one source, recipient and purpose.
func perfect(t *testing.T, e *Engine, r *Row, f flow) disclosure.DecisionInput {
	t.Helper()
	given := Given{Request: GivenRequest{From: f.source, To: f.recipient, Purpose: f.purpose}}
	for _, category := range r.Allowed {
		given.Request.Fields = append(given.Request.Fields, disclosure.Field(category+".*"))
	}
	given.Request.Roles = e.catalogue.purposeOf[f.purpose].Roles[:1]
	if f.inside {
		given.Case = &GivenCase{Phase: "F3"}
		if r.Phases != nil {
			given.Case.Phase = r.Phases.First
		}
		if slices.Contains(r.Conditions, "MIN18") || slices.Contains(r.Conditions, "OTS") {
			given.Case.Age = 17
		}
		if slices.Contains(r.Conditions, "ZVHR") {
			given.Case.Regime = disclosure.RegimeZVH
		}
	}
	for _, code := range e.catalogue.conditionsFor(r, f) {
		switch kind := e.catalogue.conditionOf[plainCondition(code)]; {
		case kind.Proof == ProofGrant:
			given.Grants = []GivenGrant{{}}
		case kind.Proof == ProofEvidence && kind.Code != "OBJ":
			given.Proof = append(given.Proof, code)
		}
	}
	in, err := Case{Name: string(r.ID), Given: given}.Input(e.catalogue)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// flows returns the flows that a row can carry something in: inside a case, and outside unless it asks for one.
func flows(e *Engine, r *Row) []flow {
	var list []flow
	for _, inside := range []bool{true, false} {
		needsCase := slices.ContainsFunc(r.Conditions, func(k disclosure.Condition) bool {
			return len(e.catalogue.conditionOf[k].Facts) > 0 && e.catalogue.conditionOf[k].Proof == ProofCase || k == "OTS" || k == "ZVHR" || k == kindConsent
		})
		if !inside && (needsCase || slices.Contains(r.Secrecy, consentIfBound)) {
			continue
		}
		for _, source := range e.catalogue.writtenOut(r.Source) {
			for _, recipient := range e.catalogue.writtenOut(r.Recipient) {
				for _, purpose := range r.Purposes {
					list = append(list, flow{inside, source, recipient, purpose})
				}
			}
		}
	}
	return list
}

// TestEveryRow checks that each row of the catalogue permits what it allows, in every flow that it stands for, once all it asks for is
// proven; and that without any single proof it does not.
func TestEveryRow(t *testing.T) {
	e := running(t, policies.FS)
	for i := range e.catalogue.rows {
		r := &e.catalogue.rows[i]
		t.Run(string(r.ID), func(t *testing.T) {
			all := flows(e, r)
			if len(all) == 0 {
				t.Fatal("stands for no flow")
			}
			thorough := map[flow]bool{} // once for each place and purpose: "*" stands for hundreds of flows
			for _, f := range all {
				in := perfect(t, e, r, f)
				got := decide(t, e, in)
				if got.Effect != disclosure.Permit {
					t.Errorf("%v: denied: %v", f, got.Reasons)
					continue
				}
				checkPermit(t, e, in, got)
				if !slices.Contains(got.Rows, r.ID) {
					continue // another row gives as much
				}
				checkReach(t, e, r, f, got)
				if once := (flow{inside: f.inside, purpose: f.purpose}); !thorough[once] {
					thorough[once] = true
					checkConditions(t, e, r, in)
				}
			}
			if len(thorough) == 0 {
				t.Error("never carries a disclosure: other rows always give as much")
			}
		})
	}
}

// checkReach checks that a row releases all that it allows, but for special and criminal data that it has no exception or ground for.
func checkReach(t *testing.T, e *Engine, r *Row, f flow, got disclosure.Decision) {
	t.Helper()
	for _, category := range r.Allowed {
		known := e.catalogue.categoryOf[category]
		for _, field := range e.catalogue.FieldsOf(category) {
			class := known.ClassFor(f.source)
			lacking := slices.Contains(class, "B") && len(r.Article9) == 0 || slices.Contains(class, "S") && len(r.Article10) == 0
			if released := slices.Contains(got.Released, field); released == lacking {
				t.Errorf("%v: %s released: %t, want %t", f, field, released, !lacking)
			}
		}
	}
}

// checkConditions takes each proof away in turn: the row must not carry the disclosure any more.
func checkConditions(t *testing.T, e *Engine, r *Row, in disclosure.DecisionInput) {
	t.Helper()
	still := func(what string, changed disclosure.DecisionInput) {
		if got := decide(t, e, changed); slices.Contains(got.Rows, r.ID) {
			t.Errorf("%s to %s for %s still permitted without %s", in.Request.Source.Domain, in.Request.Requester.Domain, in.Request.Purpose, what)
		}
	}
	for i, piece := range in.Evidence {
		changed := in
		changed.Evidence = slices.Delete(slices.Clone(in.Evidence), i, i+1)
		still(string(piece.Kind), changed)
		at := func(change func(*disclosure.Evidence)) disclosure.DecisionInput {
			changed := in
			changed.Evidence = slices.Clone(in.Evidence)
			change(&changed.Evidence[i])
			return changed
		}
		still(string(piece.Kind)+" in time", at(func(p *disclosure.Evidence) { p.ValidUntil = in.Time }))
		still(string(piece.Kind)+" begun", at(func(p *disclosure.Evidence) { p.ValidFrom = in.Time.Add(time.Nanosecond) }))
		still(string(piece.Kind)+" kept", at(func(p *disclosure.Evidence) { p.WithdrawnAt = &in.Time }))
		still(string(piece.Kind)+" about this person", at(func(p *disclosure.Evidence) { p.Subject = someone }))
		still(string(piece.Kind)+" of this case", at(func(p *disclosure.Evidence) { p.Case = "00000000-0000-4000-8000-00000000000f" }))
		still(string(piece.Kind)+" for this recipient", at(func(p *disclosure.Evidence) { p.Recipients = []disclosure.Party{{OIN: "x", Domain: "H"}} }))
		still(string(piece.Kind)+" from this source", at(func(p *disclosure.Evidence) { p.Sources = []disclosure.Party{{OIN: "x", Domain: "H"}} }))
		still(string(piece.Kind)+" for this purpose", at(func(p *disclosure.Evidence) { p.Purposes = []disclosure.Purpose{"NONE_OF_THESE"} }))
		still(string(piece.Kind)+" by a person", at(func(p *disclosure.Evidence) { p.RecordedBy = "" }))
		still(string(piece.Kind)+" by who may", at(func(p *disclosure.Evidence) { p.RecordedFor.Domain = "BT" }))
	}
	if len(in.Grants) > 0 {
		changed := in
		changed.Grants = nil
		still("grant", changed)
	}
	if slices.Contains(r.Conditions, "NEED") {
		changed := in
		changed.Request.Motive = &disclosure.Motivation{Aim: "aim", Necessity: " \n"}
		still("necessity", changed)
	}
	if in.Case != nil {
		checkCase(in, still, r)
	}
}

func checkCase(in disclosure.DecisionInput, still func(string, disclosure.DecisionInput), r *Row) {
	with := func(change func(*disclosure.Case)) disclosure.DecisionInput {
		changed, c := in, *in.Case
		c.Participants = slices.Clone(c.Participants)
		change(&c)
		changed.Case = &c
		return changed
	}
	still("membership", with(func(c *disclosure.Case) { c.Participants, c.Owner = nil, disclosure.Party{} }))
	still("known regime", with(func(c *disclosure.Case) { c.Regime = "RAD" }))
	if r.Purposes[0] != "RECHTEN" && r.Purposes[0] != "AUDIT" {
		still("open case", with(func(c *disclosure.Case) { c.ClosedAt = &in.Time }))
		still("open phase", with(func(c *disclosure.Case) { c.Phase = "F7" }))
		still("this person", with(func(c *disclosure.Case) { c.Subject = someone }))
	}
	if slices.Contains(r.Conditions, "TARGET") {
		still("age", with(func(c *disclosure.Case) { c.Facts.BirthMonth = "1990-01" }))
		still("known age", with(func(c *disclosure.Case) { c.Facts.BirthMonth = "" }))
		still("residence", with(func(c *disclosure.Case) { c.Facts.Resident = false }))
		still("several problems", with(func(c *disclosure.Case) { c.Facts.MultiProblem = false }))
	}
}

// checkPermit checks what must hold of any permit: it releases only what was asked, what every needed grant and limiting evidence reaches,
// nothing that is hard-denied; it lists the rest; and it ends before what it rests on.
func checkPermit(t *testing.T, e *Engine, in disclosure.DecisionInput, d disclosure.Decision) {
	t.Helper()
	asked, _ := e.catalogue.Expand(in.Request.Fields)
	if len(d.Rows) != 1 || len(d.Released) == 0 || len(d.Articles) == 0 || d.Retention == "" || len(d.Reasons) > 0 || d.PolicyDigest != e.digest {
		t.Fatalf("incomplete permit: %+v", d)
	}
	row, _ := e.catalogue.Row(d.Rows[0])
	together := slices.Clone(d.Released)
	for _, w := range d.Withheld {
		if w.Reason.Code == "" || w.Reason.Code == disclosure.ReasonPolicyUndefined || w.Reason.Article == "" {
			t.Errorf("%s is withheld without a reason: %+v", w.Field, w.Reason)
		}
		together = append(together, w.Field)
	}
	slices.Sort(together)
	if !slices.Equal(together, asked) {
		t.Errorf("released and withheld are %v, want together what was asked: %v", together, asked)
	}
	for _, f := range d.Released {
		if e.catalogue.categoryOf[f.Category()].HardDenied || !slices.Contains(row.Allowed, f.Category()) || slices.Contains(row.Forbidden, f.Category()) {
			t.Errorf("released %s, which row %s does not allow", f, row.ID)
		}
		if slices.Contains(row.Conditions, "GRANT") && !slices.ContainsFunc(in.Grants, func(g disclosure.Grant) bool {
			return g.RevokedAt == nil && slices.ContainsFunc(g.Fields, func(granted disclosure.Field) bool { return granted.Covers(f) })
		}) {
			t.Errorf("released %s, which nobody granted", f)
		}
		for _, code := range row.Conditions {
			if e.catalogue.conditionOf[code].Limits && !slices.ContainsFunc(in.Evidence, func(p disclosure.Evidence) bool {
				return p.Kind == code && slices.Contains(p.Categories, f.Category())
			}) {
				t.Errorf("released %s, which no %s names", f, code)
			}
		}
	}
	if d.ValidUntil != nil && !d.ValidUntil.After(in.Time) {
		t.Errorf("valid until %v, which is not after %v", d.ValidUntil, in.Time)
	}
}

func TestValidUntil(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T01")
	first := in.Time.Add(time.Hour)
	in.Grants[0].ExpiresAt = first
	if got := decide(t, e, in).ValidUntil; got == nil || !got.Equal(first) {
		t.Errorf("valid until %v, want the end of the grant %v", got, first)
	}
	for i := range in.Evidence {
		sooner := first.Add(-time.Duration(i+1) * time.Minute)
		in.Evidence[i].ValidUntil = sooner
		if got := decide(t, e, in).ValidUntil; got == nil || !got.Equal(sooner) {
			t.Errorf("valid until %v, want the end of %s %v", got, in.Evidence[i].Kind, sooner)
		}
	}
	in.Evidence = append(in.Evidence, disclosure.Evidence{
		Kind: "LAW", Subject: in.Request.Subject, Case: in.Request.Case, Recipients: []disclosure.Party{in.Request.Requester},
		Details: map[string]string{"task": "x"}, ValidFrom: in.Time.Add(-time.Hour), ValidUntil: in.Time.Add(time.Second),
		RecordedBy: "x/y", RecordedFor: party(e.catalogue, "MB"),
	})
	if got := decide(t, e, in).ValidUntil; got == nil || got.Before(in.Time.Add(time.Minute)) {
		t.Errorf("valid until %v: evidence that the row does not ask for shortens it", got)
	}
}

// TestGrantsOfOthers checks that grants of another case, source or recipient are as good as none.
func TestGrantsOfOthers(t *testing.T) {
	e := running(t, policies.FS)
	for name, change := range map[string]func(*disclosure.Grant){
		"case":      func(g *disclosure.Grant) { g.Case = "00000000-0000-4000-8000-00000000000f" },
		"source":    func(g *disclosure.Grant) { g.Source.OIN = "00000000000000009999" },
		"recipient": func(g *disclosure.Grant) { g.Recipient.Domain = "MW" },
	} {
		in := golden(t, e, "T01")
		change(&in.Grants[0])
		if got := reasonCodes(decide(t, e, in)); !slices.Equal(got, []disclosure.ReasonCode{disclosure.ReasonNoGrant}) {
			t.Errorf("grant of another %s: reasons %v, want NO_GRANT", name, got)
		}
	}
}

// TestManyGrants checks that grants add up, that bad ones do not spoil good ones, and that their number hardly matters.
func TestManyGrants(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T01")
	good := in.Grants[0]
	in.Grants = nil
	for i := range disclosure.MaxConsidered - 2 {
		bad := good
		switch i % 4 {
		case 0:
			bad.ExpiresAt = in.Time.Add(-time.Duration(i) * time.Hour)
		case 1:
			bad.RevokedAt = &in.Time
		case 2:
			bad.Purpose = "PVA"
		case 3:
			bad.GrantedBy = in.Request.Person
		}
		in.Grants = append(in.Grants, bad)
	}
	one, other := good, good
	one.Fields, other.Fields = []disclosure.Field{"POLNUIS.date"}, []disclosure.Field{"POLINC.*"}
	in.Grants = append(in.Grants, one, other)
	got := decide(t, e, in)
	if want := []disclosure.Field{"POLINC.summary", "POLNUIS.date"}; !slices.Equal(got.Released, want) {
		t.Errorf("released %v, want %v", got.Released, want)
	}
	for _, w := range got.Withheld {
		if w.Reason.Code != disclosure.ReasonNotGranted {
			t.Errorf("%s withheld for %s, want NOT_GRANTED", w.Field, w.Reason.Code)
		}
	}
	if q := e.words.ask(&memo{}, &in); len(q.groups) > 7 {
		t.Errorf("%d grants are told as %d groups", len(in.Grants), len(q.groups))
	}
}

// TestNoExistenceOracle checks that who does not take part cannot tell a case from none.
func TestNoExistenceOracle(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "a requester who does not take part")
	none := in
	none.Case = nil
	if diff := cmp.Diff(decide(t, e, none), decide(t, e, in)); diff != "" {
		t.Errorf("a case can be told from none (-none +case):\n%s", diff)
	}
	for _, in := range []disclosure.DecisionInput{in, none} {
		x, err := e.Explain(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if len(x.Rows) > 0 {
			t.Errorf("a stranger is told the state of conditions: %+v", x.Rows)
		}
	}
}

// TestInputTellsNoIdentity checks that the rules are told no pseudonym, organisation, person or free text.
func TestInputTellsNoIdentity(t *testing.T) {
	e := running(t, policies.FS)
	for _, c := range goldenCases(t) {
		in, err := c.Input(e.catalogue)
		if err != nil {
			t.Fatal(err)
		}
		if in.Request.Motive != nil {
			in.Request.Motive.Aim = "free text"
		}
		q := e.words.ask(&memo{}, &in)
		told := q.value.String()
		for _, secret := range []string{string(in.Request.Subject), string(in.Request.Source.OIN), string(in.Request.Person), string(in.Request.Case), "free text"} {
			if secret != "" && strings.Contains(told, secret) {
				t.Errorf("%s: the rules are told %q", c.Name, secret)
			}
		}
	}
}

func TestEmptyInput(t *testing.T) {
	e := running(t, policies.FS)
	got := decide(t, e, disclosure.DecisionInput{})
	if got.Effect != disclosure.Deny || !slices.Contains(reasonCodes(got), disclosure.ReasonUnknownCode) {
		t.Errorf("empty input gives %+v, want a denial UNKNOWN_CODE", got)
	}
}

// TestUndefined checks that rules without an answer, with a nonsensical one, or releasing what was not asked, come to a denial.
func TestUndefined(t *testing.T) {
	for name, rule := range map[string]string{
		"no answer":       "decision := x if {\n\tx := input.nothing.of.the.kind\n}",
		"not an object":   "decision := true",
		"unknown row":     `decision := {"effect": "PERMIT", "row": "LB-000", "released": input.fields, "categories": {}, "fields": set(), "obligations": [], "relies_on": 0}`,
		"nothing":         `decision := {"effect": "PERMIT", "row": "LB-011", "released": set(), "categories": {}, "fields": set(), "obligations": [], "relies_on": 0}`,
		"more than asked": `decision := {"effect": "PERMIT", "row": "LB-011", "released": {"MH.diagnosis"}, "categories": {}, "fields": set(), "obligations": [], "relies_on": 0}`,
		"no reasons":      `decision := {"effect": "DENY", "reasons": set()}`,
		"two answers":     "decision := 1 if input.known\n\ndecision := 2 if input.fields",
	} {
		t.Run(name, func(t *testing.T) {
			fsys := overlay(t, nil)
			for path := range fsys {
				if strings.HasPrefix(path, "engine/") {
					delete(fsys, path)
				}
			}
			fsys["engine/decision.rego"] = &fstest.MapFile{Data: []byte("package engine\n\n" + rule + "\n\nexplanation := 1\n\ngrant := 1\n")}
			e := running(t, fsys)
			got := decide(t, e, golden(t, e, "T01"))
			if got.Effect != disclosure.Deny || len(got.Released) > 0 || !slices.Equal(reasonCodes(got), []disclosure.ReasonCode{disclosure.ReasonPolicyUndefined}) {
				t.Errorf("got %+v, want a denial POLICY_UNDEFINED", got)
			}
		})
	}
}

// overlay copies the policy with some files changed; an empty change deletes the file.
func overlay(t testing.TB, change map[string]func(string) string) fstest.MapFS {
	t.Helper()
	fsys := fstest.MapFS{}
	err := fs.WalkDir(policies.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(policies.FS, path)
		fsys[path] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, to := range change {
		if fsys[path] == nil {
			fsys[path] = &fstest.MapFile{}
		}
		before := string(fsys[path].Data)
		after := to(before)
		if after == before {
			t.Fatalf("%s was not changed", path)
		}
		fsys[path] = &fstest.MapFile{Data: []byte(after)}
	}
	return fsys
}

func replace(before, after string) func(string) string {
	return func(s string) string { return strings.Replace(s, before, after, 1) }
}

func TestNew(t *testing.T) {
	e, err := New(t.Context(), policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	if e.Revision() == "" || e.Catalogue().Status() == "" {
		t.Error("the policy does not say what it is")
	}
	if again, err := New(t.Context(), overlay(t, nil)); err != nil || again.Digest() != e.Digest() {
		t.Errorf("the same files have digest %v (%v), want %s", again, err, e.Digest())
	}
}

func TestNewRefuses(t *testing.T) {
	const rows, categories, conditions, decision = "catalogue/legal-bases.yaml", "catalogue/categories.yaml", "catalogue/conditions.yaml", "engine/decision.rego"
	for name, test := range map[string]struct {
		file   string
		change func(string) string
		want   error
	}{
		"a row without law":              {rows, replace("  law: [Wpg 20 lid 1-2]\n", "  law: []\n"), ErrCatalogue},
		"an unknown category":            {rows, replace("allowed: [KNOWN, CONT]", "allowed: [KNOWN, GOSSIP]"), ErrCatalogue},
		"a category never disclosed":     {rows, replace("allowed: [KNOWN, CONT]", "allowed: [KNOWN, POLINV]"), ErrCatalogue},
		"a category allowed and not":     {rows, replace("allowed: [KNOWN, CONT]", "allowed: [KNOWN, POLINC]"), ErrCatalogue},
		"an incompatible purpose":        {rows, replace("purposes: [TRIAGE]", "purposes: [FRAUDE]"), ErrCatalogue},
		"a BSN to who may not hold it":   {rows, replace("  allowed: [KNOWN, CONT]\n  forbidden: [SUPV, RISK, JUD]", "  allowed: [KNOWN, CONT]"), ErrCases},
		"secrecy that nothing releases":  {rows, replace("  secrecy: [W20]\n", ""), ErrCatalogue},
		"secrecy released by a stranger": {rows, replace("  secrecy: [W20]\n", "  secrecy: [CONS]\n"), ErrCatalogue},
		"an unknown condition":           {rows, replace("conditions: [TARGET, CONV, W20, CASE, NEED]", "conditions: [TARGET, CONV, W20, CASE, NEED, LUCK]"), ErrCatalogue},
		"a condition dropped":            {rows, replace("conditions: [TARGET, CONV, W20, CASE, NEED]", "conditions: [TARGET, W20, CASE, NEED]"), ErrCases},
		"phases backwards":               {rows, replace("{first: F1, last: F2}", "{first: F2, last: F1}"), ErrCatalogue},
		"a row twice":                    {rows, replace("id: LB-003", "id: LB-002"), ErrCatalogue},
		"an unknown member":              {rows, replace("confidence: K", "trust: K"), ErrCatalogue},
		"an unknown confidence":          {rows, replace("confidence: K", "confidence: X"), ErrCatalogue},
		"criminal data in a future plan": {rows, replace("allowed: [GOAL, CONT, EDU, WORK]", "allowed: [GOAL, CONT, EDU, SUPV]"), ErrCatalogue},
		"a field of an unknown type":     {categories, replace("type: date", "type: moment"), ErrCatalogue},
		"an unknown fact":                {conditions, replace("facts: [aim, necessity]", "facts: [aim, luck]"), ErrCatalogue},
		"evidence that nobody records":   {conditions, replace("recorders: [MW]", "recorders: []"), ErrCatalogue},
		"rules that do not parse":        {decision, replace("package engine", "package engine\n\nallow {"), ErrRules},
		"rules with an unused variable":  {decision, replace("\t_unbarred\n", "\t_unbarred\n\tx := 1\n"), ErrRules},
		"rules that look at the clock":   {decision, replace("\t_unbarred\n", "\t_unbarred\n\ttime.now_ns() > 0\n"), ErrRules},
		"rules that call out":            {decision, replace("\t_unbarred\n", "\t_unbarred\n\thttp.send({\"method\": \"get\", \"url\": input.flow}).status_code == 200\n"), ErrRules},
		"rules that decide otherwise":    {decision, replace("object.subset(_judged, row.judged)", "true"), ErrCases},
		"a case that fails":              {"cases/scenarios.yaml", replace("row: LB-011", "row: LB-012"), ErrCases},
		"a case with unknown evidence":   {"cases/scenarios.yaml", replace("proof: [HIT2, CONV", "proof: [HIT3, CONV"), ErrCases},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := overlay(t, map[string]func(string) string{test.file: test.change})
			if _, err := New(t.Context(), fsys); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	t.Run("no cases", func(t *testing.T) {
		fsys := overlay(t, nil)
		maps.DeleteFunc(fsys, func(path string, _ *fstest.MapFile) bool {
			return strings.HasPrefix(path, "cases/") && strings.HasSuffix(path, ".yaml")
		})
		if _, err := New(t.Context(), fsys); !errors.Is(err, ErrCases) {
			t.Errorf("got %v, want %v", err, ErrCases)
		}
	})
	t.Run("no catalogue", func(t *testing.T) {
		if _, err := New(t.Context(), fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want %v", err, fs.ErrNotExist)
		}
	})
}

// TestDigest computes the digest as the package documentation says, and checks that each file of the policy counts, and no other.
func TestDigest(t *testing.T) {
	fsys := fstest.MapFS{
		"engine/two": {Data: []byte("2")}, "catalogue/one": {Data: []byte("1")}, "cases/a/three": {Data: []byte("3")},
		"policies.go": {Data: []byte("not a part of the policy")},
	}
	lines := fmt.Sprintf("%x  cases/a/three\n%x  catalogue/one\n%x  engine/two\n",
		sha256.Sum256([]byte("3")), sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2")))
	want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(lines)))
	got, err := digest(fsys)
	if err != nil || got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
	fsys["engine/two"].Data = []byte("3")
	if changed, err := digest(fsys); err != nil || changed == want {
		t.Errorf("another content has the same digest (%v)", err)
	}
}

func TestQueue(t *testing.T) {
	e, err := load(policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	in := golden(t, e, "T01")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Decide(ended, in); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v, want %v", err, context.Canceled)
	}
	for range queueLength {
		e.queue <- &job{work: func(*evaluator) {}, done: make(chan struct{}, 1)}
	}
	if _, err := e.Decide(t.Context(), in); !errors.Is(err, ErrOverloaded) || !errors.Is(err, disclosure.ReasonOverloaded) {
		t.Errorf("with a full queue: %v, want %v", err, ErrOverloaded)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for { // the queue empties, then there is an answer
		if d, err := e.Decide(t.Context(), in); err == nil {
			if d.Effect != disclosure.Permit {
				t.Errorf("got %+v, want a permit", d)
			}
			break
		} else if !errors.Is(err, ErrOverloaded) {
			t.Fatal(err)
		}
	}
	if err := e.Run(ctx); err == nil {
		t.Error("an engine runs twice")
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := e.Decide(t.Context(), in); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %v, want %v", err, ErrStopped)
	}
	if _, err := e.Explain(t.Context(), in); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %v, want %v", err, ErrStopped)
	}
}

// TestGivenUp checks that an asker who gives up gets his own error, and that the next one gets his own answer.
func TestGivenUp(t *testing.T) {
	e := running(t, policies.FS)
	permit, deny := golden(t, e, "T01"), golden(t, e, "T14")
	for range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Microsecond)
		if d, err := e.Decide(ctx, permit); err == nil && d.Effect != disclosure.Permit {
			t.Fatalf("got %+v, want a permit", d)
		}
		cancel()
		if d := decide(t, e, deny); d.Effect != disclosure.Deny {
			t.Fatalf("got the answer of another request: %+v", d)
		}
	}
}

func TestExplain(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T15")
	x, err := e.Explain(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(decide(t, e, in), x.Decision); diff != "" {
		t.Errorf("explained otherwise than decided:\n%s", diff)
	}
	if len(x.Rows) != 1 || x.Rows[0].Row != "LB-005" || x.Rows[0].Confidence != "P" || len(x.Rows[0].Articles) == 0 || len(x.Rows[0].Categories) == 0 {
		t.Fatalf("rows %+v, want LB-005", x.Rows)
	}
	for _, k := range x.Rows[0].Conditions {
		if k.Proven == (k.Condition == "CONS") {
			t.Errorf("%s proven: %t", k.Condition, k.Proven)
		}
		if k.EN == "" || k.NL == "" {
			t.Errorf("%s has no text", k.Condition)
		}
		if k.Condition == "CONS" && !slices.Contains(k.Suppliers, "CG") {
			t.Errorf("suppliers of a consent are %v, want care among them", k.Suppliers)
		}
	}
	in.Case.Phase = "F5"
	if x, err = e.Explain(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(x.Rows[0].Conditions, func(k disclosure.ConditionExplanation) bool { return k.Condition == "PH" }); x.Rows[0].Conditions[i].Proven {
		t.Error("the wrong phase is told as right")
	}
}

func TestCheckGrant(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T01")
	if err := e.CheckGrant(*in.Case, in.Grants[0]); err != nil {
		t.Fatalf("a lawful grant is refused: %v", err)
	}
	closed := in.Time
	for name, test := range map[string]struct {
		change func(*disclosure.Case, *disclosure.Grant)
		want   disclosure.ReasonCode
	}{
		"forbidden":    {func(_ *disclosure.Case, g *disclosure.Grant) { g.Fields = []disclosure.Field{"POLNUIS.*", "JUD.*"} }, disclosure.ReasonCategoryForbidden},
		"hard denial":  {func(_ *disclosure.Case, g *disclosure.Grant) { g.Fields = []disclosure.Field{"POLINV.*"} }, disclosure.ReasonHardDeny},
		"BSN":          {func(_ *disclosure.Case, g *disclosure.Grant) { g.Fields = []disclosure.Field{"BSN.number"} }, disclosure.ReasonBSNNotAllowed},
		"third person": {func(_ *disclosure.Case, g *disclosure.Grant) { g.Fields = []disclosure.Field{"VICT.*"} }, disclosure.ReasonThirdPerson},
		"unknown":      {func(_ *disclosure.Case, g *disclosure.Grant) { g.Fields = []disclosure.Field{"GOSSIP.*"} }, disclosure.ReasonUnknownCode},
		"purpose":      {func(_ *disclosure.Case, g *disclosure.Grant) { g.Purpose = "NAZORG" }, disclosure.ReasonPurposeMismatch},
		"incompatible": {func(_ *disclosure.Case, g *disclosure.Grant) { g.Purpose = "OPSPORING" }, disclosure.ReasonPurposeIncompatible},
		"phases":       {func(_ *disclosure.Case, g *disclosure.Grant) { g.FirstPhase, g.LastPhase = "F1", "F2" }, disclosure.ReasonWrongPhase},
		"other case":   {func(_ *disclosure.Case, g *disclosure.Grant) { g.Case = "00000000-0000-4000-8000-00000000000f" }, disclosure.ReasonNotMember},
		"member":       {func(c *disclosure.Case, _ *disclosure.Grant) { c.Participants = nil }, disclosure.ReasonNotMember},
		"closed":       {func(c *disclosure.Case, _ *disclosure.Grant) { c.ClosedAt = &closed }, disclosure.ReasonWrongPhase},
		"regime":       {func(c *disclosure.Case, _ *disclosure.Grant) { c.Regime = "RAD" }, disclosure.ReasonWrongRegime},
	} {
		t.Run(name, func(t *testing.T) {
			c, g := *in.Case, in.Grants[0]
			test.change(&c, &g)
			if err := e.CheckGrant(c, g); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestCheckEvidence(t *testing.T) {
	e := running(t, policies.FS)
	in := golden(t, e, "T13")
	i := slices.IndexFunc(in.Evidence, func(p disclosure.Evidence) bool { return p.Kind == "CONS" })
	professional := []disclosure.Role{disclosure.RoleProfessional}
	if err := e.CheckEvidence(in.Evidence[i], professional); err != nil {
		t.Fatalf("a sound consent is refused: %v", err)
	}
	for name, test := range map[string]struct {
		change func(*disclosure.Evidence)
		roles  []disclosure.Role
		want   disclosure.ReasonCode
	}{
		"kind":        {func(p *disclosure.Evidence) { p.Kind = "LUCK" }, professional, disclosure.ReasonUnknownCode},
		"not a kind":  {func(p *disclosure.Evidence) { p.Kind = "TARGET" }, professional, disclosure.ReasonUnknownCode},
		"role":        {func(*disclosure.Evidence) {}, []disclosure.Role{disclosure.RoleOperator}, disclosure.ReasonRoleNotAllowed},
		"hat":         {func(p *disclosure.Evidence) { p.RecordedFor.Domain = "P" }, professional, disclosure.ReasonHatNotAllowed},
		"nobody":      {func(p *disclosure.Evidence) { p.RecordedBy = "" }, professional, disclosure.ReasonInvalidRequest},
		"too long":    {func(p *disclosure.Evidence) { p.ValidUntil = p.ValidFrom.AddDate(2, 0, 0) }, professional, disclosure.ReasonInvalidRequest},
		"no purpose":  {func(p *disclosure.Evidence) { p.Purposes = nil }, professional, disclosure.ReasonInvalidRequest},
		"recipients":  {func(p *disclosure.Evidence) { p.Recipients = nil }, professional, disclosure.ReasonInvalidRequest},
		"categories":  {func(p *disclosure.Evidence) { p.Categories = nil }, professional, disclosure.ReasonInvalidRequest},
		"no giver":    {func(p *disclosure.Evidence) { delete(p.Details, "giver") }, professional, disclosure.ReasonInvalidRequest},
		"blank giver": {func(p *disclosure.Evidence) { p.Details["giver"] = " " }, professional, disclosure.ReasonInvalidRequest},
		"capacity":    {func(p *disclosure.Evidence) { p.Details["capacity"] = "aunt" }, professional, disclosure.ReasonInvalidRequest},
		"nobody's":    {func(p *disclosure.Evidence) { p.Case, p.Subject = "", "" }, professional, disclosure.ReasonInvalidRequest},
		"category":    {func(p *disclosure.Evidence) { p.Categories = []disclosure.Category{"ETHN"} }, professional, disclosure.ReasonUnknownCode},
		"purpose":     {func(p *disclosure.Evidence) { p.Purposes = []disclosure.Purpose{"CURIOSITY"} }, professional, disclosure.ReasonUnknownCode},
		"deferral": {func(p *disclosure.Evidence) {
			p.Kind, p.Details = "INFO", map[string]string{"status": "DEFERRED"}
		}, professional, disclosure.ReasonInvalidRequest},
		"not the source": {func(p *disclosure.Evidence) { p.Kind, p.Sources = "COD", []disclosure.Party{party(e.catalogue, "CG")} }, professional, disclosure.ReasonHatNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			p := in.Evidence[i]
			p.Details = maps.Clone(p.Details)
			test.change(&p)
			if err := e.CheckEvidence(p, test.roles); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestCatalogue(t *testing.T) {
	e, err := load(policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	c := e.Catalogue()
	if got := []int{len(c.Rows()), len(c.Categories()), len(c.Domains()), len(c.Purposes()), len(c.Conditions()), len(c.Phases())}; !slices.Equal(got, []int{83, 39, 19, 30, 30, 9}) {
		t.Errorf("rows, categories, domains, purposes, conditions, phases: %v", got)
	}
	for domain, want := range map[disclosure.Domain]bool{"ME": true, "MW": true, "P": true, "R": false, "CG": false, "CJ": false, "CW": false, "H": false, "nobody": false} {
		if got := c.MayHoldBSN(domain); got != want {
			t.Errorf("%s may hold a BSN: %t, want %t", domain, got, want)
		}
	}
	if got, known := c.Expand([]disclosure.Field{"BSN.*", "ID.name", "BSN.number"}); !known || !slices.Equal(got, []disclosure.Field{"BSN.number", "ID.name"}) {
		t.Errorf("expanded to %v (%t)", got, known)
	}
	if _, known := c.Expand([]disclosure.Field{"ID.shoe_size"}); known {
		t.Error("an unknown field is known")
	}
	if f, ok := c.Field("POLNUIS.kind"); !ok || f.NL == "" || f.Type != "text" {
		t.Errorf("field is %+v (%t)", f, ok)
	}
	for _, f := range []disclosure.Field{"POLNUIS.*", "GOSSIP.kind"} {
		if _, ok := c.Field(f); ok {
			t.Errorf("%s is a concrete field", f)
		}
	}
	if _, ok := c.EvidenceKind("TARGET"); ok {
		t.Error("TARGET is a kind of evidence")
	}
	if k, ok := c.EvidenceKind("CONS"); !ok || k.MaxValidity() != 366*24*time.Hour {
		t.Errorf("CONS is %+v (%t)", k, ok)
	}
	d := decide(t, running(t, policies.FS), golden(t, e, "T01"))
	for _, o := range d.Obligations {
		if text, ok := c.ObligationText(o); !ok || text.NL == "" {
			t.Errorf("obligation %v has no text", o)
		}
	}
	if _, ok := c.ObligationText(disclosure.Obligation{Type: "SING"}); ok {
		t.Error("an unknown obligation has a text")
	}
	if r, ok := c.Retention(d.Retention); !ok || r.NL == "" {
		t.Errorf("retention %s is %+v", d.Retention, r)
	}
}

// FuzzDecide decides whatever can be recorded as an input. It must not panic, and what it permits must be a permit.
func FuzzDecide(f *testing.F) {
	e := running(f, policies.FS)
	for _, c := range goldenCases(f) {
		in, err := c.Input(e.catalogue)
		if err != nil {
			f.Fatal(err)
		}
		recorded, err := json.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(recorded)
	}
	f.Fuzz(func(t *testing.T, recorded []byte) {
		var in disclosure.DecisionInput
		if json.Unmarshal(recorded, &in) != nil {
			return
		}
		got := decide(t, e, in)
		if got.Effect == disclosure.Permit {
			checkPermit(t, e, in, got)
		} else if len(got.Released) > 0 || len(got.Reasons) == 0 {
			t.Errorf("denied with %+v", got)
		}
	})
}
