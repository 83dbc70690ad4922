package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"sluis/internal/disclosure"
)

// openCase is a condition that no row names: inside a case, that case must be open. The index adds it to rows without CASE.
const openCase = "OPEN"

func text[T ~string](s T) *ast.Term { return ast.StringTerm(string(s)) }

func truth(b bool) *ast.Term { return ast.InternedTerm(b) }

func textSet[T ~string](list []T) *ast.Term {
	set := ast.NewSetWithCapacity(len(list))
	for _, s := range list {
		set.Add(text(s))
	}
	return ast.NewTerm(set)
}

func object(pairs ...[2]*ast.Term) *ast.Term { return ast.NewTerm(ast.NewObject(pairs...)) }

func pair(key string, value *ast.Term) [2]*ast.Term { return ast.Item(ast.InternedTerm(key), value) }

// data returns what the rules see. Rows are indexed by source, recipient and purpose, with "*" written out and in one flat key, so that a
// decision takes as long with ten thousand rows as with ten.
func (c *Catalogue) data() ast.Object {
	purposes := ast.NewObject()
	for _, p := range c.purposes {
		purposes.Insert(text(p.Code), object(
			pair("compatible", truth(!p.Incompatible)),
			pair("roles", textSet(p.Roles)),
		))
	}
	care := ast.NewObject()
	for _, d := range c.domains {
		if d.Care {
			care.Insert(text(d.Code), truth(true))
		}
	}
	var disclosable, removed []disclosure.Category
	for _, k := range c.categories {
		if !k.HardDenied {
			disclosable = append(disclosable, k.Code)
		}
		if k.Because == disclosure.ReasonRetentionOver {
			removed = append(removed, k.Code)
		}
	}
	inside, outside, pairs := c.index(textSet(disclosable))
	return ast.NewObject(pair("inside", inside), pair("outside", outside), pair("catalogue", object(
		pair("pairs", pairs),
		pair("purposes", ast.NewTerm(purposes)),
		pair("care", ast.NewTerm(care)),
		pair("disclosable", textSet(disclosable)),
		pair("removed", textSet(removed)),
		pair("windows", c.windows()),
		pair("every_window", c.everyWindow()),
	)))
}

// windows maps each phase to the windows (conditions PH) that it falls in.
func (c *Catalogue) windows() *ast.Term {
	windows := ast.NewObject()
	for _, p := range c.phases {
		var within []string
		for _, r := range c.rows {
			if r.Phases != nil && r.Phases.First <= p.Code && p.Code <= r.Phases.Last {
				within = append(within, r.Phases.condition())
			}
		}
		windows.Insert(text(p.Code), textSet(within))
	}
	return ast.NewTerm(windows)
}

func (c *Catalogue) everyWindow() *ast.Term {
	var all []string
	for _, r := range c.rows {
		if r.Phases != nil {
			all = append(all, r.Phases.condition())
		}
	}
	return textSet(all)
}

// flow is what rows are looked up by.
type flow struct {
	inside            bool // the request belongs to a case
	source, recipient disclosure.Domain
	purpose           disclosure.Purpose
}

// indexed is a row as the rules see it for one flow.
type indexed struct {
	term     *ast.Term
	forCases bool // it asks for an open case
	granted  bool // it asks for a grant
}

func termsOf(rows []indexed, which func(indexed) bool) []*ast.Term {
	var terms []*ast.Term
	for _, row := range rows {
		if which(row) {
			terms = append(terms, row.term)
		}
	}
	return terms
}

// key returns what a flow is looked up by, inside or outside a case.
func (f flow) key() string {
	return string(f.source) + " " + string(f.recipient) + " " + string(f.purpose)
}

// index returns the rows by flow, inside and outside a case, and the pairs that a row names itself.
func (c *Catalogue) index(disclosable *ast.Term) (inside, outside, pairs *ast.Term) {
	rows := map[flow][]indexed{}
	named := map[[2]disclosure.Domain]bool{}
	for i := range c.rows {
		c.indexRow(&c.rows[i], rows, named)
	}
	flows := map[bool]ast.Object{true: ast.NewObjectWithCapacity(len(rows)), false: ast.NewObjectWithCapacity(len(rows))}
	for f, found := range rows {
		all := termsOf(found, func(indexed) bool { return true })
		told := termsOf(found, func(row indexed) bool { return f.inside && row.forCases })
		if told == nil {
			told = all
		}
		granted := termsOf(found, func(row indexed) bool { return row.granted })
		if granted == nil {
			granted = all
		}
		flows[f.inside].Insert(ast.StringTerm(f.key()), object(
			pair("rows", ast.ArrayTerm(all...)),
			pair("told", ast.ArrayTerm(told...)),
			pair("granted", ast.ArrayTerm(granted...)),
			pair("roles", textSet(c.purposeOf[f.purpose].Roles)),
			pair("disclosable", disclosable),
		))
	}
	pairs = c.byDomain(func(source disclosure.Domain) *ast.Term {
		return c.byDomain(func(recipient disclosure.Domain) *ast.Term {
			return truth(named[[2]disclosure.Domain{source, recipient}])
		})
	})
	return ast.NewTerm(flows[true]), ast.NewTerm(flows[false]), pairs
}

func (c *Catalogue) byDomain(of func(disclosure.Domain) *ast.Term) *ast.Term {
	index := ast.NewObjectWithCapacity(len(c.domains))
	for _, d := range c.domains {
		index.Insert(text(d.Code), of(d.Code))
	}
	return ast.NewTerm(index)
}

func (c *Catalogue) indexRow(r *Row, rows map[flow][]indexed, named map[[2]disclosure.Domain]bool) {
	for _, inside := range []bool{true, false} {
		for _, source := range c.writtenOut(r.Source) {
			for _, purpose := range r.Purposes {
				terms := map[bool]*ast.Term{} // by whether the law binds the recipient to secrecy
				for _, recipient := range c.writtenOut(r.Recipient) {
					f := flow{inside, source, recipient, purpose}
					bound := c.domainOf[recipient].Secrecy != ""
					if terms[bound] == nil {
						terms[bound] = c.rowTerm(r, f)
					}
					rows[f] = append(rows[f], indexed{terms[bound], slices.Contains(r.Conditions, "CASE"), slices.Contains(r.Conditions, kindGrant)})
					if r.Source != every || r.Recipient != every {
						named[[2]disclosure.Domain{source, recipient}] = true
					}
				}
			}
		}
	}
}

func (c *Catalogue) writtenOut(domain disclosure.Domain) []disclosure.Domain {
	if domain != every {
		return []disclosure.Domain{domain}
	}
	var members []disclosure.Domain
	for _, d := range c.domains {
		if d.Member {
			members = append(members, d.Code)
		}
	}
	return members
}

// rowTerm returns a row as the rules see it, for one flow: the class of a category, what releases secrecy and which conditions apply depend
// on it.
func (c *Catalogue) rowTerm(r *Row, f flow) *ast.Term {
	conditions := c.conditionsFor(r, f)
	var evidence, judged []string
	limits, barredBy := []string{requestLimit}, ""
	factOf := ast.NewObject()
	ask := func(condition disclosure.Condition, facts ...string) {
		for _, fact := range facts {
			factOf.Insert(ast.StringTerm(fact), text(condition))
		}
	}
	for _, code := range conditions {
		known := c.conditionOf[plainCondition(code)]
		switch {
		case known.Code == "PH":
			ask(known.Code, code)
		case code == openCase:
			ask(openCase, knownFacts()[factCaseOpen], knownFacts()[factSamePerson])
		case len(known.Facts) > 0:
			ask(known.Code, known.Facts...)
		case known.Proof == ProofGrant || known.Limits:
			limits = append(limits, code)
		case known.Code == "OBJ":
			barredBy = code
		case known.Judged:
			judged = append(judged, code)
		default:
			evidence = append(evidence, code)
		}
	}
	var facts []*ast.Term
	factOf.Foreach(func(fact, _ *ast.Term) { facts = append(facts, fact) })
	reach, refused := c.reach(r, f.source)
	var fields []disclosure.Field
	for _, category := range reach {
		fields = append(fields, c.FieldsOf(category)...)
	}
	var duties []*ast.Term
	for i, d := range c.duties {
		if d.holds(f.source, plain(conditions), r.Retention) {
			duties = append(duties, ast.InternedTerm(i))
		}
	}
	return object(
		pair("id", text(r.ID)),
		pair("facts", ast.SetTerm(facts...)),
		pair("fact_of", ast.NewTerm(factOf)),
		pair("evidence", textSet(evidence)),
		pair("judged", textSet(judged)),
		pair("limits", textSet(limits)),
		pair("barred_by", ast.StringTerm(barredBy)),
		pair("secrecy", textSet(c.releases(r, f.source))),
		pair("categories", textSet(reach)),
		pair("fields", textSet(fields)),
		pair("refused", refused),
		pair("obligations", ast.ArrayTerm(duties...)),
	)
}

// releases returns the conditions that release the secrecy of care or the social domain.
func (c *Catalogue) releases(r *Row, source disclosure.Domain) []string {
	if !c.domainOf[source].Care {
		return nil
	}
	var list []string
	for _, word := range r.Secrecy {
		switch word {
		case releasedByStatute:
		case consentIfBound:
			list = append(list, "CONS")
		default:
			list = append(list, word)
		}
	}
	return list
}

// reach returns the categories that a row can release from a source, and what keeps it from releasing each of the others.
func (c *Catalogue) reach(r *Row, source disclosure.Domain) (categories []disclosure.Category, refused *ast.Term) {
	because := ast.NewObjectWithCapacity(len(c.categories))
	for _, k := range c.categories {
		if why := refusal(r, &k, source); why != "" {
			because.Insert(text(k.Code), ast.InternedTerm(why))
		} else {
			categories = append(categories, k.Code)
		}
	}
	return categories, ast.NewTerm(because)
}

// refusal returns what keeps a row from releasing a category; empty if nothing does. See reason_category in reasons.rego.
func refusal(r *Row, k *Category, source disclosure.Domain) string {
	allowed, class := slices.Contains(r.Allowed, k.Code), k.ClassFor(source)
	switch {
	case !allowed && slices.Contains(class, "N"):
		return "bsn"
	case !allowed && k.ThirdPerson:
		return "third_person"
	case slices.Contains(r.Forbidden, k.Code):
		return "forbidden"
	case !allowed:
		return "not_in_row"
	case slices.Contains(class, "B") && len(r.Article9) == 0:
		return "article_9"
	case slices.Contains(class, "S") && len(r.Article10) == 0:
		return "article_10"
	default:
		return ""
	}
}

func plain(conditions []string) []disclosure.Condition {
	list := make([]disclosure.Condition, 0, len(conditions))
	for _, code := range conditions {
		list = append(list, plainCondition(code))
	}
	return list
}

// conditionsFor returns the conditions of a row and those that hold without being written in it: the target group and an open case for
// requests inside a case (steps 3 and 4 of the order of evaluation), no sustained objection against a public task or legitimate interest
// (AVG 21), consent where a row for every source meets one that is bound by the secrecy of care. It leaves out a duty of secrecy that the
// law puts on the recipient anyway.
func (c *Catalogue) conditionsFor(r *Row, f flow) []string {
	var list []string
	for _, code := range r.Conditions {
		if code == "SECR" && c.domainOf[f.recipient].Secrecy != "" {
			continue
		}
		list = append(list, string(code))
	}
	if r.Phases != nil {
		list = append(list, r.Phases.condition())
	}
	if slices.Contains(r.Secrecy, consentIfBound) && c.domainOf[f.source].Care {
		list = append(list, "CONS")
	}
	if r.Ground == "AVG 6(1)(e)" || r.Ground == "AVG 6(1)(f)" {
		list = append(list, "OBJ")
	}
	if !f.inside {
		return list
	}
	if !slices.Contains(r.Conditions, "TARGET") && !slices.Contains(r.Conditions, "LAW") && !c.purposeOf[f.purpose].OutsideTarget {
		list = append(list, "TARGET")
	}
	if !slices.Contains(r.Conditions, "CASE") && f.purpose != "RECHTEN" && f.purpose != "AUDIT" {
		list = append(list, openCase)
	}
	return list
}
