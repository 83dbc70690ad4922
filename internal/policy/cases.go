package policy

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluis/internal/disclosure"
)

// Case is a golden case of a policy: what is given, and what must be decided. cases/README.md of the policies folder says how it is
// written.
type Case struct {
	Name     string   `yaml:"name"`
	Why      string   `yaml:"why"`
	Given    Given    `yaml:"given"`
	Expected Expected `yaml:"expected"`
}

// Given is a request in its situation. What is left out is as it should be for a permit.
type Given struct {
	At      time.Time    `yaml:"at"`
	Request GivenRequest `yaml:"request"`
	Case    *GivenCase   `yaml:"case"`
	Grants  []GivenGrant `yaml:"grants"`
	Proof   []string     `yaml:"proof"`
	Others  []GivenProof `yaml:"evidence"`
}

// GivenRequest is who asks whom what.
type GivenRequest struct {
	From        disclosure.Domain  `yaml:"from"`
	To          disclosure.Domain  `yaml:"to"`
	Purpose     disclosure.Purpose `yaml:"purpose"`
	Fields      []disclosure.Field `yaml:"fields"`
	Roles       []disclosure.Role  `yaml:"roles"`
	Unmotivated bool               `yaml:"unmotivated"`
}

// GivenCase is the case that the request belongs to.
type GivenCase struct {
	Phase     disclosure.Phase    `yaml:"phase"`
	Regime    disclosure.Regime   `yaml:"regime"`
	Age       int                 `yaml:"age"`
	Elsewhere bool                `yaml:"lives_elsewhere"`
	Single    bool                `yaml:"single_problem"`
	Closed    bool                `yaml:"closed"`
	Without   []disclosure.Domain `yaml:"without"` // parties of the request that do not take part
	Stranger  bool                `yaml:"stranger"`
}

// GivenGrant is a grant for the parties of the request.
type GivenGrant struct {
	Purpose disclosure.Purpose `yaml:"purpose"`
	Fields  []disclosure.Field `yaml:"fields"`
	First   disclosure.Phase   `yaml:"first"`
	Last    disclosure.Phase   `yaml:"last"`
	Days    int                `yaml:"days"` // until it expires; negative: that many days ago
	Starts  int                `yaml:"starts"`
	Revoked bool               `yaml:"revoked"`
	Own     bool               `yaml:"own"` // given by the person who asks
}

// GivenProof is a piece of evidence that is not as it should be.
type GivenProof struct {
	Kind       disclosure.Condition  `yaml:"kind"`
	By         disclosure.Domain     `yaml:"by"`
	Sources    []disclosure.Domain   `yaml:"sources"`
	Recipients []disclosure.Domain   `yaml:"recipients"`
	Purposes   []disclosure.Purpose  `yaml:"purposes"`
	Categories []disclosure.Category `yaml:"categories"`
	Details    map[string]string     `yaml:"details"`
	Days       int                   `yaml:"days"` // until it ends; negative: that many days ago
	Withdrawn  bool                  `yaml:"withdrawn"`
	Standing   bool                  `yaml:"standing"` // about the organisation, not this person
	Stranger   bool                  `yaml:"stranger"` // about someone else
}

// Expected is what must be decided. Lists that are left out must be empty, except obligations, which are not looked at then.
type Expected struct {
	Effect      disclosure.Effect                          `yaml:"effect"`
	Row         disclosure.RowID                           `yaml:"row"`
	Released    []disclosure.Field                         `yaml:"released"` // may be CATEGORY.*: all its fields that were asked for
	Withheld    map[disclosure.Field]disclosure.ReasonCode `yaml:"withheld"`
	Reasons     []string                                   `yaml:"reasons"` // CODE, or CODE CONDITION
	Obligations []string                                   `yaml:"obligations"`
	Days        *int                                       `yaml:"valid_days"`
}

// ReadCases reads cases/*.yaml of a policies folder.
func ReadCases(fsys fs.FS) ([]Case, error) {
	names, err := fs.Glob(fsys, "cases/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("policy: reading: %w", err)
	}
	var all []Case
	for _, name := range names {
		var cases []Case
		if err := readYAML(fsys, name, &cases); err != nil {
			return nil, err
		}
		all = append(all, cases...)
	}
	for i, c := range all {
		if c.Name == "" || slices.ContainsFunc(all[:i], func(other Case) bool { return other.Name == c.Name }) {
			return nil, fmt.Errorf("%w: name %q is empty or occurs twice", ErrCases, c.Name)
		}
	}
	return all, nil
}

const (
	caseID  disclosure.CaseID    = "00000000-0000-4000-8000-000000000001"
	subject disclosure.Pseudonym = "ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	someone disclosure.Pseudonym = "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// party returns the organisation that wears a hat in the cases: one municipality, one police, and so on.
func party(c *Catalogue, domain disclosure.Domain) disclosure.Party {
	known, _ := c.Domain(domain)
	n := slices.IndexFunc(c.domains, func(d Domain) bool { return d.Group == known.Group })
	return disclosure.Party{OIN: disclosure.OIN(fmt.Sprintf("%020d", 1000+n)), Domain: domain}
}

func parties(c *Catalogue, domains []disclosure.Domain) []disclosure.Party {
	var list []disclosure.Party
	for _, d := range domains {
		list = append(list, party(c, d))
	}
	return list
}

// Input writes a case out into what the broker would ask.
func (k Case) Input(c *Catalogue) (disclosure.DecisionInput, error) {
	g := k.Given
	now := g.At
	if now.IsZero() {
		now = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	}
	request := disclosure.Request{
		ID:        "00000000-0000-4000-8000-000000000002",
		Requester: party(c, g.Request.To), Source: party(c, g.Request.From),
		Roles:   g.Request.Roles,
		Subject: subject, Purpose: g.Request.Purpose, Fields: g.Request.Fields,
		Motive: &disclosure.Motivation{Aim: "aim", Necessity: "necessity"},
	}
	request.Person = disclosure.PersonRef(request.Requester.OIN + "/asker")
	if len(request.Roles) == 0 {
		request.Roles = []disclosure.Role{disclosure.RoleProfessional}
	}
	if g.Request.Unmotivated {
		request.Motive = nil
	}
	in := disclosure.DecisionInput{Time: now, Request: request}
	if g.Case != nil {
		in.Request.Case = caseID
		in.Case = givenCase(c, g.Case, &in)
	}
	for i, given := range g.Grants {
		in.Grants = append(in.Grants, givenGrant(given, i, &in))
	}
	for _, kind := range g.Proof {
		g.Others = append(g.Others, GivenProof{Kind: disclosure.Condition(kind)})
	}
	for i, given := range g.Others {
		kind, ok := c.EvidenceKind(given.Kind)
		if !ok {
			return disclosure.DecisionInput{}, fmt.Errorf("%w: %s: unknown evidence %s", ErrCases, k.Name, given.Kind)
		}
		in.Evidence = append(in.Evidence, givenEvidence(c, given, kind, i, &in))
	}
	return in, nil
}

func givenCase(c *Catalogue, g *GivenCase, in *disclosure.DecisionInput) *disclosure.Case {
	age := g.Age
	if age == 0 {
		age = 19
	}
	k := &disclosure.Case{
		ID: caseID, Reference: "CASE-1", Owner: party(c, "ME"), Regime: g.Regime, Phase: g.Phase, Subject: subject,
		Facts: disclosure.SubjectFacts{
			BirthMonth: in.Time.AddDate(-age, -2, 0).Format("2006-01"), Resident: !g.Elsewhere, MultiProblem: !g.Single,
		},
		OpenedAt: in.Time.AddDate(0, -1, 0),
	}
	if k.Regime == "" {
		k.Regime = disclosure.RegimeLPGA
	}
	if k.Phase == "" {
		k.Phase = "F3"
	}
	if g.Stranger {
		k.Subject = someone
	}
	if g.Closed {
		closed := in.Time.AddDate(0, 0, -1)
		k.ClosedAt = &closed
	}
	for _, p := range []disclosure.Party{in.Request.Source, in.Request.Requester} {
		if !slices.Contains(g.Without, p.Domain) {
			k.Participants = append(k.Participants, disclosure.Participant{Party: p, JoinedAt: k.OpenedAt})
		}
	}
	return k
}

func id(kind, n int) string { return fmt.Sprintf("00000000-0000-4000-8%03d-%012d", kind, n) }

func or[T comparable](value, otherwise T) T {
	var none T
	if value == none {
		return otherwise
	}
	return value
}

func givenGrant(given GivenGrant, n int, in *disclosure.DecisionInput) disclosure.Grant {
	g := disclosure.Grant{
		ID: disclosure.GrantID(id(1, n)), Case: in.Request.Case, Source: in.Request.Source, Recipient: in.Request.Requester,
		Purpose: or(given.Purpose, in.Request.Purpose), Fields: given.Fields,
		FirstPhase: or(given.First, "F1"), LastPhase: or(given.Last, "F6"),
		ExpiresAt: in.Time.AddDate(0, 0, or(given.Days, 30)), GrantedBy: "00000000000000001000/granter",
	}
	g.NotBefore = in.Time.AddDate(0, 0, -30)
	if given.Starts > 0 {
		g.NotBefore = in.Time.AddDate(0, 0, given.Starts)
	}
	if len(g.Fields) == 0 {
		g.Fields = in.Request.Fields
	}
	if given.Own {
		g.GrantedBy = in.Request.Person
	}
	if given.Revoked {
		revoked := in.Time.AddDate(0, 0, -1)
		g.RevokedAt = &revoked
	}
	return g
}

func givenEvidence(c *Catalogue, given GivenProof, kind Condition, n int, in *disclosure.DecisionInput) disclosure.Evidence {
	r := in.Request
	recorder := kind.Recorders[0]
	switch {
	case given.By != "":
		recorder = given.By
	case kind.BySource:
		recorder = r.Source.Domain
	}
	e := disclosure.Evidence{
		ID: disclosure.EvidenceID(id(2, n)), Kind: given.Kind, Case: r.Case, Subject: r.Subject,
		Sources: parties(c, given.Sources), Recipients: parties(c, given.Recipients),
		Purposes: given.Purposes, Categories: given.Categories, Details: map[string]string{},
		RecordedBy: "00000000000000001000/recorder", RecordedFor: party(c, recorder),
	}
	for _, list := range kind.MustName {
		switch {
		case list == "sources" && len(e.Sources) == 0:
			e.Sources = []disclosure.Party{r.Source}
		case list == "recipients" && len(e.Recipients) == 0:
			e.Recipients = []disclosure.Party{r.Requester}
		case list == "purposes" && len(e.Purposes) == 0:
			e.Purposes = []disclosure.Purpose{r.Purpose}
		case list == "categories" && len(e.Categories) == 0:
			e.Categories = categoriesOf(r.Fields)
		}
	}
	for _, d := range kind.Details {
		switch {
		case len(d.Values) > 0 && d.Required:
			e.Details[d.Name] = d.Values[0]
		case d.Required:
			e.Details[d.Name] = "stated"
		}
	}
	if kind.Code == "HIT2" {
		e.Details["domains"] = "P,MW"
	}
	maps.Copy(e.Details, given.Details)
	validity(&e, given, kind, in.Time)
	if given.Standing {
		e.Case, e.Subject = "", ""
	}
	if given.Stranger {
		e.Subject = someone
	}
	if given.Withdrawn {
		withdrawn := in.Time.Add(-time.Hour)
		e.WithdrawnAt = &withdrawn
	}
	return e
}

// validity makes evidence last half of what its kind allows, from a quarter of that ago.
func validity(e *disclosure.Evidence, given GivenProof, kind Condition, now time.Time) {
	quarter := kind.MaxValidity() / 4
	e.ValidFrom, e.ValidUntil = now.Add(-quarter), now.Add(quarter)
	if given.Days != 0 {
		e.ValidUntil = now.AddDate(0, 0, given.Days)
		e.ValidFrom = e.ValidUntil.Add(-kind.MaxValidity())
		if e.ValidFrom.After(now) {
			e.ValidFrom = now.Add(-time.Hour)
		}
	}
}

func categoriesOf(fields []disclosure.Field) []disclosure.Category {
	var list []disclosure.Category
	for _, f := range fields {
		if !slices.Contains(list, f.Category()) {
			list = append(list, f.Category())
		}
	}
	return list
}

// Faults says in what a decision differs from what the case expects.
func (k Case) Faults(c *Catalogue, in disclosure.DecisionInput, got disclosure.Decision) []string {
	want := k.Expected
	var faults []string
	differ := func(what string, got, want []string) {
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(slices.Compact(got), slices.Compact(want)) {
			faults = append(faults, fmt.Sprintf("%s: got %v, want %v", what, got, want))
		}
	}
	differ("effect", []string{string(got.Effect)}, []string{string(want.Effect)})
	differ("rows", words(got.Rows), words(nonEmpty(want.Row)))
	released, _ := c.fieldSet(want.Released)
	asked, _ := c.fieldSet(in.Request.Fields)
	differ("released", words(got.Released), words(c.list(released.and(asked))))
	var gotWithheld, wantWithheld []string
	for _, w := range got.Withheld {
		gotWithheld = append(gotWithheld, string(w.Field)+" "+string(w.Reason.Code))
	}
	for field, code := range want.Withheld {
		set, _ := c.fieldSet([]disclosure.Field{field})
		for _, f := range c.list(set.and(asked)) {
			wantWithheld = append(wantWithheld, string(f)+" "+string(code))
		}
	}
	differ("withheld", gotWithheld, wantWithheld)
	var gotReasons []string
	for _, r := range got.Reasons {
		reason := string(r.Code)
		if slices.ContainsFunc(want.Reasons, func(s string) bool { return strings.HasPrefix(s, reason+" ") }) && r.Condition != "" {
			reason += " " + string(r.Condition)
		}
		gotReasons = append(gotReasons, reason)
	}
	differ("reasons", gotReasons, slices.Clone(want.Reasons))
	if want.Obligations != nil {
		var types []string
		for _, o := range got.Obligations {
			types = append(types, o.Type)
		}
		differ("obligations", types, slices.Clone(want.Obligations))
	}
	if want.Days != nil {
		days := "never"
		if got.ValidUntil != nil {
			days = strconv.Itoa(int(got.ValidUntil.Sub(in.Time).Hours() / 24))
		}
		differ("valid days", []string{days}, []string{strconv.Itoa(*want.Days)})
	}
	return faults
}

func words[T ~string](list []T) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, string(s))
	}
	return out
}

func nonEmpty[T ~string](s T) []T {
	if s == "" {
		return nil
	}
	return []T{s}
}
