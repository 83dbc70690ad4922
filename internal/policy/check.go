package policy

import (
	"errors"
	"fmt"
	"slices"

	"sluis/internal/disclosure"
)

// check lists everything that is wrong with a catalogue: a code that does not exist, a row without citation, a row that contradicts a hard
// denial, a source bound by secrecy whose row does not say what releases it.
func (c *Catalogue) check(confidence map[string]string) error {
	f := faults{}
	f.need(c.revision != "" && c.status != "", "catalogue without revision or status")
	f.need(c.target.Youngest > 0 && c.target.Oldest >= c.target.Youngest, "target group without ages")
	for i, phase := range c.phases {
		_, err := disclosure.ParsePhase(string(phase.Code))
		f.need(err == nil && int(phase.Code[1]-'0') == i, "phase %s out of order", phase.Code)
	}
	f.need(len(c.phases) == 9, "phases F0 to F8 expected")
	for _, domain := range c.domains {
		_, err := disclosure.ParseDomain(string(domain.Code))
		f.need(err == nil && domain.Group != "" && domain.NL != "" && domain.EN != "", "domain %s incomplete", domain.Code)
		f.need(!domain.Care || domain.Secrecy != "", "domain %s: secrecy of care without article", domain.Code)
	}
	for _, purpose := range c.purposes {
		_, err := disclosure.ParsePurpose(string(purpose.Code))
		f.need(err == nil && purpose.NL != "" && purpose.EN != "", "purpose %s incomplete", purpose.Code)
	}
	for _, category := range c.categories {
		c.checkCategory(&f, category)
	}
	f.need(len(c.conditions) <= 64 && len(c.domains) < 64, "more than 64 conditions or domains")
	for _, code := range []disclosure.Condition{"PH", "CASE", "TARGET", kindGrant, kindConsent, kindHit, "OBJ"} {
		f.need(c.conditionOf[code] != nil, "condition %s is missing: the rules speak of it", code)
	}
	for _, condition := range c.conditions {
		c.checkCondition(&f, condition)
	}
	for _, d := range c.duties {
		f.need(d.Code != "" && d.Article != "" && d.NL != "" && d.EN != "", "obligation %s incomplete", d.Code)
		for _, source := range d.Sources {
			f.need(c.domainOf[source] != nil, "obligation %s: unknown domain %s", d.Code, source)
		}
		for _, condition := range d.Conditions {
			f.need(c.conditionOf[condition] != nil, "obligation %s: unknown condition %s", d.Code, condition)
		}
		for _, code := range d.Retention {
			f.need(c.retentionOf[code] != nil, "obligation %s: unknown retention %s", d.Code, code)
		}
	}
	for _, rule := range c.retention {
		f.need(rule.Source != "" && rule.NL != "" && rule.EN != "", "retention %s incomplete", rule.Code)
	}
	for _, row := range c.rows {
		f.need(confidence[row.Confidence] != "", "row %s: unknown confidence %q", row.ID, row.Confidence)
		c.checkRow(&f, row)
	}
	if err := errors.Join(f...); err != nil {
		return fmt.Errorf("%w: %w", ErrCatalogue, err)
	}
	return nil
}

type faults []error

func (f *faults) need(ok bool, format string, args ...any) {
	if !ok {
		*f = append(*f, fmt.Errorf(format, args...))
	}
}

func (c *Catalogue) checkCategory(f *faults, category Category) {
	_, err := disclosure.ParseCategory(string(category.Code))
	f.need(err == nil && category.NL != "" && category.EN != "" && len(category.Fields) > 0, "category %s incomplete", category.Code)
	f.need(len(category.Class) > 0, "category %s without class", category.Code)
	for source, class := range category.ClassFrom {
		f.need(c.domainOf[source] != nil && len(class) > 0, "category %s: class from unknown domain %s", category.Code, source)
	}
	for _, field := range category.Fields {
		_, err := disclosure.ParseField(string(category.Code) + "." + field.Name)
		f.need(err == nil && field.Name != "*" && field.NL != "" && field.EN != "", "field %s.%s incomplete", category.Code, field.Name)
		f.need(slices.Contains([]string{"text", "date", "number", "boolean"}, field.Type), "field %s.%s: unknown type", category.Code, field.Name)
	}
}

func (c *Catalogue) checkCondition(f *faults, k Condition) {
	_, err := disclosure.ParseCondition(string(k.Code))
	f.need(err == nil && k.Article != "" && k.NL != "" && k.EN != "" && k.Supply.NL != "" && k.Supply.EN != "",
		"condition %s incomplete", k.Code)
	f.need(slices.Contains([]string{ProofCase, ProofRequest, ProofGrant, ProofEvidence}, k.Proof),
		"condition %s: unknown proof %q", k.Code, k.Proof)
	f.need((len(k.Facts) > 0) == (k.Proof == ProofRequest || k.Proof == ProofCase && k.Code != "PH"),
		"condition %s: facts stated wrongly", k.Code)
	for _, fact := range k.Facts {
		f.need(slices.Contains(knownFacts(), fact), "condition %s: unknown fact %s", k.Code, fact)
	}
	if k.Proof != ProofEvidence {
		return
	}
	f.need(len(k.Recorders) > 0 && len(k.Roles) > 0 && len(k.About) > 0 && k.MaxDays > 0, "evidence %s incomplete", k.Code)
	for _, recorder := range k.Recorders {
		f.need(c.domainOf[recorder] != nil, "evidence %s: unknown domain %s", k.Code, recorder)
	}
	for _, list := range k.MustName {
		f.need(slices.Contains([]string{"sources", "recipients", "purposes", "categories"}, list), "evidence %s: unknown list %s", k.Code, list)
	}
	for _, about := range k.About {
		f.need(about == "person" || about == "organisation", "evidence %s: unknown about %s", k.Code, about)
	}
	for _, d := range k.Details {
		f.need(d.Name != "" && d.NL != "" && d.EN != "", "evidence %s: detail %s incomplete", k.Code, d.Name)
	}
}

func (c *Catalogue) checkRow(f *faults, r Row) {
	for _, domain := range []disclosure.Domain{r.Source, r.Recipient} {
		f.need(domain == every || c.domainOf[domain] != nil, "row %s: unknown domain %s", r.ID, domain)
	}
	f.need(r.Ground != "" && len(r.Law) > 0, "row %s cites no law", r.ID)
	f.need(len(r.Purposes) > 0 && len(r.Allowed) > 0 && len(r.Conditions) > 0, "row %s incomplete", r.ID)
	f.need(c.retentionOf[r.Retention] != nil, "row %s: unknown retention %s", r.ID, r.Retention)
	for _, purpose := range r.Purposes {
		known := c.purposeOf[purpose]
		f.need(known != nil, "row %s: unknown purpose %s", r.ID, purpose)
		f.need(known == nil || !known.Incompatible, "row %s: purpose %s is always incompatible", r.ID, purpose)
	}
	for _, condition := range r.Conditions {
		known := c.conditionOf[condition]
		f.need(known != nil && condition != "PH", "row %s: unknown condition %s", r.ID, condition)
	}
	f.need(r.Phases == nil || r.Phases.First <= r.Phases.Last && c.phaseKnown(r.Phases.First) && c.phaseKnown(r.Phases.Last),
		"row %s: impossible phases", r.ID)
	for _, category := range slices.Concat(r.Allowed, r.Forbidden) {
		f.need(c.categoryOf[category] != nil, "row %s: unknown category %s", r.ID, category)
	}
	for _, category := range r.Allowed {
		known := c.categoryOf[category]
		if known == nil {
			continue
		}
		f.need(!known.HardDenied, "row %s allows %s, which is never disclosed", r.ID, category)
		f.need(!slices.Contains(r.Forbidden, category), "row %s both allows and forbids %s", r.ID, category)
		f.need(category != "BSN" || c.MayHoldBSN(r.Recipient), "row %s gives a BSN to %s", r.ID, r.Recipient)
		f.need(!slices.Contains(r.Purposes, "TOEKOMST") || !slices.Contains(known.ClassFor(r.Source), "S"),
			"row %s mixes a future plan with criminal data", r.ID)
	}
	c.checkSecrecy(f, r)
}

// checkSecrecy holds a row to the second key: where a source may be bound by secrecy, the row says what releases it.
func (c *Catalogue) checkSecrecy(f *faults, r Row) {
	source := c.domainOf[r.Source]
	bound := r.Source == every || source != nil && source.Secrecy != ""
	f.need(bound == (len(r.Secrecy) > 0), "row %s: secrecy of the source stated wrongly", r.ID)
	for _, word := range r.Secrecy {
		condition := disclosure.Condition(word)
		f.need(word == releasedByStatute || word == consentIfBound || slices.Contains(r.Conditions, condition),
			"row %s: secrecy released by %s, which is not a condition of the row", r.ID, word)
	}
}

func (c *Catalogue) phaseKnown(code disclosure.Phase) bool {
	return slices.ContainsFunc(c.phases, func(p Phase) bool { return p.Code == code })
}
