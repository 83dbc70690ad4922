package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"sluis/internal/disclosure"
)

// Facts that conditions of the catalogue come down to, by their number in knownFacts. What they mean is said in facts.
const (
	factCaseOpen = iota
	factSamePerson
	factSourceTakesPart
	factRequesterTakesPart
	factAgeInTarget
	factMinor
	factResident
	factSeveralProblems
	factAim
	factNecessity
)

func knownFacts() []string {
	return []string{
		factCaseOpen: "case_open", factSamePerson: "same_person", factSourceTakesPart: "source_takes_part",
		factRequesterTakesPart: "requester_takes_part", factAgeInTarget: "age_in_target", factMinor: "minor",
		factResident: "resident", factSeveralProblems: "several_problems", factAim: "aim", factNecessity: "necessity",
	}
}

// relation is the set of what is so of a grant or piece of evidence, seen from the request.
type relation uint16

const (
	isBefore relation = 1 << iota // its term has not begun
	isWithin
	isAfter
	isKept      // not revoked or withdrawn
	isSound     // evidence: recorded as the catalogue says
	isSource    // names the source of the request, or none
	isRecipient // the same of the recipient
	isPurpose   // the same of the purpose
	isPhase     // grant: the phase of the case is in its window
	isByAnother // grant: not given by the person who asks
	relations   = 1 << iota
)

// alwaysOfEvidence and alwaysOfGrants are what only the other can fall short of.
const (
	alwaysOfEvidence = isPhase | isByAnother
	alwaysOfGrants   = isSound | isSource | isRecipient
)

func relationWords() []string {
	return []string{"before", "within", "after", "kept", "sound", "source", "recipient", "purpose", "phase", "by_another"}
}

func when(is bool, r relation) relation {
	if is {
		return r
	}
	return 0
}

// termOf treats the end as exclusive: what expires at t has expired at t.
func termOf(from, until, t time.Time) relation {
	switch {
	case t.Before(from):
		return isBefore
	case t.Before(until):
		return isWithin
	default:
		return isAfter
	}
}

// vocabulary holds the terms that inputs are made of, so that a decision makes few of its own.
type vocabulary struct {
	catalogue *Catalogue
	fields    []*ast.Term // by the number of the field
	category  []*ast.Term // of the field with that number
	words     map[string]*ast.Term
	relations [relations]*ast.Term // the set of words
	windows   map[disclosure.Phase][]*ast.Term
	flows     map[flow]*ast.Term // that have rows
	sides     []string           // of the table
	grant     *Condition
	numbers   map[disclosure.Condition]int // of conditions
	nothing   *ast.Term                    // the empty object
}

func newVocabulary(c *Catalogue) *vocabulary {
	v := &vocabulary{
		catalogue: c, words: map[string]*ast.Term{}, windows: map[disclosure.Phase][]*ast.Term{},
		grant: c.conditionOf[kindGrant], numbers: map[disclosure.Condition]int{},
		flows:   map[flow]*ast.Term{},
		nothing: ast.ObjectTerm(),
	}
	for _, f := range c.fields {
		v.fields = append(v.fields, text(f))
		v.category = append(v.category, v.learn(string(f.Category())))
	}
	for _, d := range c.domains {
		v.learn(string(d.Code))
		if v.learn(d.Group); !slices.Contains(v.sides, d.Group) {
			v.sides = append(v.sides, d.Group)
		}
	}
	v.sides = append(v.sides, careUndisclosed)
	for _, p := range c.purposes {
		v.learn(string(p.Code))
		for _, role := range p.Roles {
			v.learn(string(role))
		}
	}
	for i := range c.conditions {
		v.learn(string(c.conditions[i].Code))
		v.numbers[c.conditions[i].Code] = i
	}
	for _, p := range c.phases {
		v.learn(string(p.Code))
		for _, r := range c.rows {
			if r.Phases != nil && r.Phases.First <= p.Code && p.Code <= r.Phases.Last {
				if window := v.learn(r.Phases.condition()); !slices.Contains(v.windows[p.Code], window) {
					v.windows[p.Code] = append(v.windows[p.Code], window)
				}
			}
		}
	}
	for _, word := range slices.Concat(knownFacts(), []string{
		string(disclosure.RegimeLPGA), string(disclosure.RegimeZVH), careUndisclosed, "self", "representative", "curator",
		"known", "flow", "source", "recipient", "purpose", "roles", "fields", "categories", "facts", "case", "regime", "age", "phase", "phases",
		"evidence", "n", "relation", "kinds", "consents", "sides", requestLimit,
		"effect", "row", "released", "obligations", "relies_on", "reasons", "lawful", "decision", "missing",
	}) {
		v.learn(word)
	}
	v.learnRelations()
	for i := range c.rows {
		for _, source := range c.writtenOut(c.rows[i].Source) {
			for _, recipient := range c.writtenOut(c.rows[i].Recipient) {
				for _, purpose := range c.rows[i].Purposes {
					f := flow{source: source, recipient: recipient, purpose: purpose}
					v.flows[f] = v.learn(f.key())
				}
			}
		}
	}
	return v
}

func (v *vocabulary) learn(word string) *ast.Term {
	if known, ok := v.words[word]; ok {
		return known
	}
	v.words[word] = ast.StringTerm(word)
	return v.words[word]
}

func (v *vocabulary) learnRelations() {
	for r := range v.relations {
		var holds []string
		for bit, word := range relationWords() {
			if r>>bit&1 == 1 {
				holds = append(holds, word)
			}
		}
		v.relations[r] = textSet(holds)
	}
}

// wordTerm returns the term of a word. Words of outside that the catalogue does not know get a term of their own, which no rule matches.
func wordTerm[T ~string](v *vocabulary, word T) *ast.Term {
	if known, ok := v.words[string(word)]; ok {
		return known
	}
	return ast.StringTerm(string(word))
}

func (v *vocabulary) pair(key string, value *ast.Term) [2]*ast.Term {
	return ast.Item(v.words[key], value)
}

// question is a request as the rules are told it.
type question struct {
	asked  fieldSet
	value  ast.Object
	groups []group
}

// group is the grants and evidence that relate to the request alike.
type group struct {
	relation relation
	pieces   []piece
	sides    uint64 // of confirmed hits, by their number in vocabulary.sides
}

// piece is the grants, or the evidence of one kind, in a group; of consents, those of one capacity.
type piece struct {
	kind     *Condition
	capacity string
	fields   fieldSet
	until    time.Time // the earliest end among them
}

// limits reports whether the rules look at what the piece reaches. Of consents they look at each by its capacity.
func (p *piece) limits() bool {
	return p.kind.Code == kindGrant || p.kind.Limits && p.kind.Code != kindConsent
}

// Kinds of which the rules are told more than that they are there, and the limit that every row has.
const (
	kindGrant    disclosure.Condition = "GRANT"
	kindConsent  disclosure.Condition = "CONS"
	kindHit      disclosure.Condition = "HIT2"
	requestLimit                      = "REQUEST"
)

// group returns the group of what relates to the request in this way.
func (q *question) group(of relation) *group {
	for i := range q.groups {
		if q.groups[i].relation == of {
			return &q.groups[i]
		}
	}
	q.groups = append(q.groups, group{relation: of, pieces: make([]piece, 0, 8)})
	return &q.groups[len(q.groups)-1]
}

func (g *group) add(kind *Condition, capacity string, fields fieldSet, until time.Time) {
	at := slices.IndexFunc(g.pieces, func(known piece) bool { return known.kind == kind && known.capacity == capacity })
	if at < 0 {
		at = len(g.pieces)
		g.pieces = append(g.pieces, piece{kind: kind, capacity: capacity, until: until})
	}
	p := &g.pieces[at]
	p.fields = p.fields.or(fields)
	if until.Before(p.until) {
		p.until = until
	}
}

// memo keeps the terms of what comes back in request after request. It belongs to one evaluator. It is bounded, since what it is asked for
// comes from outside.
type memo struct {
	sets  map[fieldSet]*ast.Term
	names map[fieldSet]*ast.Term // of the categories of a set of fields
	reach map[reachKey]*ast.Term
	sides map[uint64]*ast.Term
	facts map[factsKey]*ast.Term
	kinds map[uint64]*ast.Term
	cases map[caseKey]*ast.Term
	roles map[disclosure.Role]*ast.Term
}

// reachKey is limits that all reach the same fields.
type reachKey struct {
	fields fieldSet
	kinds  uint64
}

type factsKey struct {
	holds uint16
	phase disclosure.Phase
}

type caseKey struct {
	regime disclosure.Regime
	phase  disclosure.Phase
	age    int // below zero: not known
}

const maxMemo = 4096

// remember returns what is known under key, or builds and keeps it.
func remember[K comparable](known *map[K]*ast.Term, key K, build func() *ast.Term) *ast.Term {
	if found, ok := (*known)[key]; ok {
		return found
	}
	if *known == nil || len(*known) >= maxMemo {
		*known = map[K]*ast.Term{}
	}
	built := build()
	(*known)[key] = built
	return built
}

func (v *vocabulary) ask(m *memo, in *disclosure.DecisionInput) question {
	r := &in.Request
	c := v.catalogue
	asked, known := c.fieldSet(r.Fields)
	known = known && len(r.Fields) > 0 &&
		c.domainOf[r.Source.Domain] != nil && c.domainOf[r.Requester.Domain] != nil && c.purposeOf[r.Purpose] != nil
	q := question{asked: asked}
	all := v.set(m, asked)
	inside := in.Case != nil && in.Case.ID == r.Case && r.Case != ""
	flow := flow{source: r.Source.Domain, recipient: r.Requester.Domain, purpose: r.Purpose}
	flowTerm, ok := v.flows[flow]
	if !ok {
		flowTerm = ast.StringTerm(flow.key())
	}
	pairs := [...][2]*ast.Term{
		v.pair("known", truth(known)),
		v.pair("flow", flowTerm),
		v.pair("source", wordTerm(v, r.Source.Domain)),
		v.pair("recipient", wordTerm(v, r.Requester.Domain)),
		v.pair("purpose", wordTerm(v, r.Purpose)),
		v.pair("roles", v.roles(m, r.Roles)),
		v.pair("fields", all),
		v.pair("categories", v.categories(m, asked)),
		v.pair("facts", v.facts(m, in, inside)),
		v.pair("evidence", v.evidence(m, &q, in, all)),
		v.pair("case", v.nothing),
	}
	switch {
	case inside:
		pairs[len(pairs)-1][1] = v.caseTerm(m, in)
		q.value = ast.NewObject(pairs[:]...)
	case r.Case != "":
		q.value = ast.NewObject(pairs[:]...)
	default:
		q.value = ast.NewObject(pairs[:len(pairs)-1]...)
	}
	return q
}

func (v *vocabulary) roles(m *memo, roles []disclosure.Role) *ast.Term {
	if len(roles) == 1 {
		return remember(&m.roles, roles[0], func() *ast.Term { return ast.SetTerm(wordTerm(v, roles[0])) })
	}
	set := ast.NewSetWithCapacity(len(roles))
	for _, role := range roles {
		set.Add(wordTerm(v, role))
	}
	return ast.NewTerm(set)
}

func (v *vocabulary) set(m *memo, fields fieldSet) *ast.Term {
	return remember(&m.sets, fields, func() *ast.Term {
		set := ast.NewSet()
		for i, field := range v.fields {
			if fields.has(i) {
				set.Add(field)
			}
		}
		return ast.NewTerm(set)
	})
}

func (v *vocabulary) categories(m *memo, fields fieldSet) *ast.Term {
	return remember(&m.names, fields, func() *ast.Term {
		set := ast.NewSet()
		for i, category := range v.category {
			if fields.has(i) {
				set.Add(category)
			}
		}
		return ast.NewTerm(set)
	})
}

// facts returns the facts that hold, and the windows of phases that the case is in.
func (v *vocabulary) facts(m *memo, in *disclosure.DecisionInput, inside bool) *ast.Term {
	r, c := &in.Request, in.Case
	var key factsKey
	fact := func(n int, holds bool) {
		if holds {
			key.holds |= 1 << n
		}
	}
	if r.Motive != nil {
		fact(factAim, strings.TrimSpace(r.Motive.Aim) != "")
		fact(factNecessity, strings.TrimSpace(r.Motive.Necessity) != "")
	}
	if inside {
		key.phase = c.Phase
		fact(factSamePerson, c.Subject == r.Subject && r.Subject != "")
		fact(factCaseOpen, (c.ClosedAt == nil || in.Time.Before(*c.ClosedAt)) && v.catalogue.phaseOpen(c.Phase))
		fact(factSourceTakesPart, takesPart(c, r.Source))
		fact(factRequesterTakesPart, takesPart(c, r.Requester))
		fact(factResident, c.Facts.Resident)
		fact(factSeveralProblems, c.Facts.MultiProblem)
		if age, err := c.Facts.Age(in.Time); err == nil {
			fact(factAgeInTarget, v.catalogue.target.Youngest <= age && age <= v.catalogue.target.Oldest)
			fact(factMinor, age < 18)
		}
	}
	return remember(&m.facts, key, func() *ast.Term {
		set := ast.NewSet(v.windows[key.phase]...)
		for n, word := range knownFacts() {
			if key.holds>>n&1 == 1 {
				set.Add(v.words[word])
			}
		}
		return ast.NewTerm(set)
	})
}

func (v *vocabulary) caseTerm(m *memo, in *disclosure.DecisionInput) *ast.Term {
	key := caseKey{regime: in.Case.Regime, phase: in.Case.Phase, age: -1}
	if age, err := in.Case.Facts.Age(in.Time); err == nil {
		key.age = age
	}
	return remember(&m.cases, key, func() *ast.Term {
		pairs := [][2]*ast.Term{v.pair("regime", wordTerm(v, key.regime)), v.pair("phase", wordTerm(v, key.phase))}
		if key.age >= 0 {
			pairs = append(pairs, v.pair("age", ast.InternedTerm(key.age)))
		}
		return object(pairs...)
	})
}

// takesPart counts the owner of a case among its participants.
func takesPart(c *disclosure.Case, p disclosure.Party) bool { return c.Owner == p || c.Has(p) }

func (v *vocabulary) evidence(m *memo, q *question, in *disclosure.DecisionInput, all *ast.Term) *ast.Term {
	for i := range in.Grants {
		v.relateGrant(q, in, &in.Grants[i])
	}
	for i := range in.Evidence {
		v.relate(q, in, &in.Evidence[i])
	}
	terms := make([]*ast.Term, len(q.groups))
	for n := range q.groups {
		terms[n] = v.groupTerm(m, q, n, all)
	}
	return ast.ArrayTerm(terms...)
}

// relateGrant puts a grant into the group of what relates to the request as it does. It leaves out those of other cases and parties.
func (v *vocabulary) relateGrant(q *question, in *disclosure.DecisionInput, g *disclosure.Grant) {
	r := &in.Request
	if r.Case == "" || g.Case != r.Case || g.Source != r.Source || g.Recipient != r.Requester {
		return
	}
	fields, _ := v.catalogue.fieldSet(g.Fields)
	q.group(alwaysOfGrants|termOf(g.NotBefore, g.ExpiresAt, in.Time)|
		when(g.RevokedAt == nil || g.RevokedAt.After(in.Time), isKept)|
		when(g.Purpose == r.Purpose, isPurpose)|
		when(in.Case != nil && g.FirstPhase <= in.Case.Phase && in.Case.Phase <= g.LastPhase, isPhase)|
		when(g.GrantedBy != r.Person && g.GrantedBy != "", isByAnother),
	).add(v.grant, "", fields.and(q.asked), g.ExpiresAt)
}

// relate puts a piece of evidence into the group of those that relate to the request as it does. It leaves out what is about somebody
// else, and what names categories but none that is asked for.
func (v *vocabulary) relate(q *question, in *disclosure.DecisionInput, e *disclosure.Evidence) {
	r := &in.Request
	kind := v.catalogue.conditionOf[e.Kind]
	if kind == nil || kind.Proof != ProofEvidence || !concerns(e, kind, r) {
		return
	}
	fields := q.asked
	if len(e.Categories) > 0 {
		var named fieldSet
		for _, category := range e.Categories {
			named = named.or(v.catalogue.inCategory[category])
		}
		if fields = fields.and(named); fields == (fieldSet{}) {
			return
		}
	}
	g := q.group(alwaysOfEvidence | termOf(e.ValidFrom, e.ValidUntil, in.Time) |
		when(e.WithdrawnAt == nil || e.WithdrawnAt.After(in.Time), isKept) |
		when(v.catalogue.sound(e, kind) && (!kind.BySource || e.RecordedFor == r.Source), isSound) |
		when(namesOrNone(e.Sources, r.Source), isSource) |
		when(namesOrNone(e.Recipients, r.Requester), isRecipient) |
		when(namesOrNone(e.Purposes, r.Purpose), isPurpose))
	capacity := ""
	switch e.Kind {
	case kindConsent:
		capacity = e.Details["capacity"]
	case kindHit:
		g.sides |= v.sidesOf(e)
	}
	g.add(kind, capacity, fields, e.ValidUntil)
}

// concerns reports whether evidence is about the person of the request, or about an organisation where its kind allows that.
func concerns(e *disclosure.Evidence, kind *Condition, r *disclosure.Request) bool {
	if e.Subject == "" && e.Case == "" {
		return slices.Contains(kind.About, "organisation")
	}
	return slices.Contains(kind.About, "person") && e.Subject == r.Subject && e.Subject != "" && (e.Case == "" || e.Case == r.Case)
}

func namesOrNone[T comparable](list []T, want T) bool {
	return len(list) == 0 || slices.Contains(list, want)
}

// careUndisclosed stands for care on a confirmed hit that does not say how it was learnt that care knows the person.
const careUndisclosed = "care_undisclosed"

// sidesOf returns the sides of the table that a confirmed hit names. The process of the municipality itself knows everyone in a case, so it
// does not count; nor do domains that the catalogue does not know.
func (v *vocabulary) sidesOf(hit *disclosure.Evidence) uint64 {
	var sides uint64
	for code := range strings.SplitSeq(hit.Details["domains"], ",") {
		domain := v.catalogue.domainOf[disclosure.Domain(strings.TrimSpace(code))]
		if domain == nil || !domain.Member || domain.Code == "ME" {
			continue
		}
		side := domain.Group
		if side == "care" && strings.TrimSpace(hit.Details["care_known_from"]) == "" {
			side = careUndisclosed
		}
		sides |= 1 << slices.Index(v.sides, side)
	}
	return sides
}

func (v *vocabulary) groupTerm(m *memo, q *question, n int, all *ast.Term) *ast.Term {
	g := &q.groups[n]
	var kinds uint64
	consents := v.nothing
	for i := range g.pieces {
		kinds |= 1 << v.numbers[g.pieces[i].kind.Code]
		if g.pieces[i].kind.Code == kindConsent {
			consents = v.consents(m, g, q.asked, all)
		}
	}
	return object(
		v.pair("n", ast.InternedTerm(n)),
		v.pair("relation", v.relations[g.relation]),
		v.pair("kinds", v.kinds(m, kinds)),
		v.pair("fields", v.limits(m, g, q.asked, all)),
		v.pair("consents", consents),
		v.pair("sides", remember(&m.sides, g.sides, func() *ast.Term {
			set := ast.NewSet()
			for i, side := range v.sides {
				if g.sides>>i&1 == 1 {
					set.Add(v.words[side])
				}
			}
			return ast.NewTerm(set)
		})),
	)
}

// reached returns the term of fields, which is that of all that was asked when they are the same.
func (v *vocabulary) reached(m *memo, fields, asked fieldSet, all *ast.Term) *ast.Term {
	if fields == asked {
		return all
	}
	return v.set(m, fields)
}

func (v *vocabulary) consents(m *memo, g *group, asked fieldSet, all *ast.Term) *ast.Term {
	var pairs [][2]*ast.Term
	for i := range g.pieces {
		if p := &g.pieces[i]; p.kind.Code == kindConsent {
			pairs = append(pairs, ast.Item(wordTerm(v, p.capacity), v.reached(m, p.fields, asked, all)))
		}
	}
	return object(pairs...)
}

// limits returns the fields that each limiting kind in a group reaches, and those asked for.
func (v *vocabulary) limits(m *memo, g *group, asked fieldSet, all *ast.Term) *ast.Term {
	key, alike := reachKey{fields: asked}, true
	for i := range g.pieces {
		if p := &g.pieces[i]; p.limits() {
			key.kinds |= 1 << v.numbers[p.kind.Code]
			alike = alike && p.fields == asked
		}
	}
	list := func() *ast.Term {
		pairs := [][2]*ast.Term{v.pair(requestLimit, all)}
		for i := range g.pieces {
			if p := &g.pieces[i]; p.limits() {
				pairs = append(pairs, v.pair(string(p.kind.Code), v.reached(m, p.fields, asked, all)))
			}
		}
		return object(pairs...)
	}
	if !alike {
		return list()
	}
	return remember(&m.reach, key, list)
}

func (v *vocabulary) kinds(m *memo, kinds uint64) *ast.Term {
	return remember(&m.kinds, kinds, func() *ast.Term {
		set := ast.NewSet()
		for _, k := range v.catalogue.conditions {
			if kinds>>v.numbers[k.Code]&1 == 1 {
				set.Add(v.words[string(k.Code)])
			}
		}
		return ast.NewTerm(set)
	})
}

// until returns when the first of the grants and pieces of evidence ends that a permit on this row rests on; nil if it rests on none. Group
// is the one that holds.
func (q *question) until(row *Row, group int) *time.Time {
	if group < 0 || group >= len(q.groups) {
		return nil
	}
	var first *time.Time
	for i := range q.groups[group].pieces {
		p := &q.groups[group].pieces[i]
		needed := slices.Contains(row.Conditions, p.kind.Code) ||
			p.kind.Code == kindConsent && slices.Contains(row.Secrecy, consentIfBound)
		if needed && (first == nil || p.until.Before(*first)) {
			first = &p.until
		}
	}
	if first == nil {
		return nil
	}
	until := *first
	return &until
}
