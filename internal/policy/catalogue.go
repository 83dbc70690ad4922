package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluis/internal/disclosure"
)

// ErrCatalogue is wrapped by every error about what a policies folder says, as opposed to how it is read.
var ErrCatalogue = errors.New("policy: catalogue")

// maxFields bounds the fields of a catalogue, so that a set of them fits a fieldSet.
const maxFields = 256

// every stands for each domain that can take part in a case, in the source or recipient of a row.
const every disclosure.Domain = "*"

// Catalogue is the reviewed data of a policy: domains, purposes, categories, conditions and rows. It is read-only; what its methods return
// is shared and must not be changed.
type Catalogue struct {
	revision   string
	status     string
	target     target
	phases     []Phase
	domains    []Domain
	purposes   []Purpose
	categories []Category
	conditions []Condition
	rows       []Row
	duties     []duty
	retention  []Retention

	domainOf    map[disclosure.Domain]*Domain
	purposeOf   map[disclosure.Purpose]*Purpose
	categoryOf  map[disclosure.Category]*Category
	conditionOf map[disclosure.Condition]*Condition
	rowOf       map[disclosure.RowID]*Row
	retentionOf map[string]*Retention
	fields      []disclosure.Field
	fieldOf     map[disclosure.Field]int // index in fields
	inCategory  map[disclosure.Category]fieldSet
}

type target struct {
	Youngest int `yaml:"youngest"`
	Oldest   int `yaml:"oldest"`
}

// Phase is a phase of a case. Disclosures between participants happen in the open ones only.
type Phase struct {
	Code disclosure.Phase `yaml:"code"`
	Open bool             `yaml:"open"`
	NL   string           `yaml:"nl"`
	EN   string           `yaml:"en"`
}

// Domain is a hat that an organisation can wear.
type Domain struct {
	Code    disclosure.Domain `yaml:"code"`
	Group   string            `yaml:"group"`   // its side of the table; two domains of one group count once
	Member  bool              `yaml:"member"`  // can take part in a case
	BSN     string            `yaml:"bsn"`     // the article under which it may hold a BSN; empty: never
	Secrecy string            `yaml:"secrecy"` // the article that binds it to secrecy
	Care    bool              `yaml:"care"`    // that secrecy is of care or the social domain
	NL      string            `yaml:"nl"`
	EN      string            `yaml:"en"`
}

// Purpose is a specified aim of a disclosure (AVG art. 5(1)(b)).
type Purpose struct {
	Code          disclosure.Purpose `yaml:"code"`
	Incompatible  bool               `yaml:"incompatible"`   // always denied
	OutsideTarget bool               `yaml:"outside_target"` // may concern someone outside the target group
	Roles         []disclosure.Role  `yaml:"roles"`          // who may ask for it
	NL            string             `yaml:"nl"`
	EN            string             `yaml:"en"`
}

// Category is a data category with its fields.
type Category struct {
	Code        disclosure.Category            `yaml:"code"`
	Class       []string                       `yaml:"class"`      // O, O+, N, B (AVG 9), S (AVG 10)
	ClassFrom   map[disclosure.Domain][]string `yaml:"class_from"` // where the class depends on the source
	Overlay     string                         `yaml:"overlay"`    // the secrecy that lies over it
	HardDenied  bool                           `yaml:"hard_denied"`
	Because     disclosure.ReasonCode          `yaml:"because"` // told besides HARD_DENY
	ThirdPerson bool                           `yaml:"third_person"`
	Fields      []Field                        `yaml:"fields"`
	NL          string                         `yaml:"nl"`
	EN          string                         `yaml:"en"`
}

// ClassFor returns the classes of the category when it comes from source.
func (c Category) ClassFor(source disclosure.Domain) []string {
	if class, ok := c.ClassFrom[source]; ok {
		return class
	}
	return c.Class
}

// Field is a field of a category.
type Field struct {
	Name string `yaml:"name"`
	Type string `yaml:"type"` // text, date, number or boolean
	NL   string `yaml:"nl"`
	EN   string `yaml:"en"`
}

// The ways in which a condition can be proven.
const (
	ProofCase     = "case"     // facts and participants of the case
	ProofRequest  = "request"  // what the request itself says
	ProofGrant    = "grant"    // a grant
	ProofEvidence = "evidence" // recorded evidence of the kind of the condition's code
)

// Condition is a condition of rows, and the kind of evidence that proves it where Proof is [ProofEvidence].
type Condition struct {
	Code      disclosure.Condition `yaml:"code"`
	Proof     string               `yaml:"proof"`
	Facts     []string             `yaml:"facts"`  // what must hold where the case or the request proves it
	Judged    bool                 `yaml:"judged"` // evidence proves it only if the rules say so
	Article   string               `yaml:"article"`
	NL        string               `yaml:"nl"`
	EN        string               `yaml:"en"`
	Supply    Text                 `yaml:"supply"` // who can solve it when it is missing
	Recorders []disclosure.Domain  `yaml:"recorders"`
	Roles     []disclosure.Role    `yaml:"roles"`
	BySource  bool                 `yaml:"by_source"` // only the source of the disclosure itself may record it
	About     []string             `yaml:"about"`     // person, organisation
	MustName  []string             `yaml:"must_name"` // sources, recipients, purposes, categories
	Limits    bool                 `yaml:"limits"`    // nothing beyond the categories it names is released on it
	Details   []Detail             `yaml:"details"`
	MaxDays   int                  `yaml:"max_days"`
}

// MaxValidity returns how long one piece of evidence of this kind may be valid.
func (c Condition) MaxValidity() time.Duration { return time.Duration(c.MaxDays) * 24 * time.Hour }

// Detail is something that evidence must or may state.
type Detail struct {
	Name     string   `yaml:"name"`
	Required bool     `yaml:"required"`
	When     *When    `yaml:"required_when"` // required when another detail has this value
	Values   []string `yaml:"values"`        // the only answers allowed; empty: any text
	NL       string   `yaml:"nl"`
	EN       string   `yaml:"en"`
}

// When names a value of another detail.
type When struct {
	Detail string `yaml:"detail"`
	Is     string `yaml:"is"`
}

// Text is a sentence in both languages.
type Text struct {
	NL string `yaml:"nl"`
	EN string `yaml:"en"`
}

// Row is one legal basis: who may tell whom what, for which purposes, under which law, on which conditions.
type Row struct {
	ID         disclosure.RowID       `yaml:"id"`
	Source     disclosure.Domain      `yaml:"source"` // "*": every domain that can take part in a case
	Recipient  disclosure.Domain      `yaml:"recipient"`
	Purposes   []disclosure.Purpose   `yaml:"purposes"`
	Ground     string                 `yaml:"ground"`    // AVG 6(1)
	Article9   []string               `yaml:"article_9"` // exceptions for special categories
	Article10  []string               `yaml:"article_10"`
	Law        []string               `yaml:"law"`
	Conditions []disclosure.Condition `yaml:"conditions"`
	Phases     *Window                `yaml:"phases"`
	Secrecy    []string               `yaml:"secrecy"` // conditions that release the source's secrecy, or one of the words below
	Allowed    []disclosure.Category  `yaml:"allowed"`
	Forbidden  []disclosure.Category  `yaml:"forbidden"`
	Retention  string                 `yaml:"retention"`
	Confidence string                 `yaml:"confidence"` // V text read, P partly, K knowledge only
	Note       string                 `yaml:"note"`
}

// Words in Row.Secrecy that are not conditions.
const (
	releasedByStatute = "statute"          // the law of the row releases it
	consentIfBound    = "consent_if_bound" // consent, where the source is bound by the secrecy of care
)

// Articles returns ground, exceptions and national law, in that order.
func (r Row) Articles() []string {
	var articles []string
	for _, article := range slices.Concat([]string{r.Ground}, r.Article9, r.Article10, r.Law) {
		if !slices.Contains(articles, article) {
			articles = append(articles, article)
		}
	}
	return articles
}

// Window is a range of phases.
type Window struct {
	First disclosure.Phase `yaml:"first"`
	Last  disclosure.Phase `yaml:"last"`
}

// duty is an obligation with the permits that it holds for: those that match each of its lists.
type duty struct {
	Code       string                 `yaml:"code"`
	Article    string                 `yaml:"article"`
	Sources    []disclosure.Domain    `yaml:"sources"`
	Conditions []disclosure.Condition `yaml:"conditions"`
	Retention  []string               `yaml:"retention"`
	NL         string                 `yaml:"nl"`
	EN         string                 `yaml:"en"`
}

func (d duty) holds(source disclosure.Domain, conditions []disclosure.Condition, retention string) bool {
	asked := func(c disclosure.Condition) bool { return slices.Contains(conditions, c) }
	return (len(d.Sources) == 0 || slices.Contains(d.Sources, source)) &&
		(len(d.Conditions) == 0 || slices.ContainsFunc(d.Conditions, asked)) &&
		(len(d.Retention) == 0 || slices.Contains(d.Retention, retention))
}

// Retention is a retention rule for the recipient (AVG art. 5(1)(e)).
type Retention struct {
	Code   string `yaml:"code"`
	Source string `yaml:"source"`
	NL     string `yaml:"nl"`
	EN     string `yaml:"en"`
}

// Revision returns the catalogue's own name of its version.
func (c *Catalogue) Revision() string { return c.revision }

// Status says how far the catalogue may be relied on, such as "research draft, not legal advice".
func (c *Catalogue) Status() string { return c.status }

// Phases returns the phases of a case, in order.
func (c *Catalogue) Phases() []Phase { return c.phases }

// Domains returns all domains, in the order of the catalogue.
func (c *Catalogue) Domains() []Domain { return c.domains }

// Purposes returns all purposes, in the order of the catalogue.
func (c *Catalogue) Purposes() []Purpose { return c.purposes }

// Categories returns all categories, in the order of the catalogue.
func (c *Catalogue) Categories() []Category { return c.categories }

// Conditions returns all conditions, in the order of the catalogue.
func (c *Catalogue) Conditions() []Condition { return c.conditions }

// Rows returns all rows, in the order of the catalogue.
func (c *Catalogue) Rows() []Row { return c.rows }

func find[K comparable, V any](index map[K]*V, key K) (V, bool) {
	if found, ok := index[key]; ok {
		return *found, true
	}
	var none V
	return none, false
}

// Domain returns the domain with this code.
func (c *Catalogue) Domain(code disclosure.Domain) (Domain, bool) { return find(c.domainOf, code) }

// Purpose returns the purpose with this code.
func (c *Catalogue) Purpose(code disclosure.Purpose) (Purpose, bool) { return find(c.purposeOf, code) }

// Category returns the category with this code.
func (c *Catalogue) Category(code disclosure.Category) (Category, bool) {
	return find(c.categoryOf, code)
}

// Condition returns the condition with this code.
func (c *Catalogue) Condition(code disclosure.Condition) (Condition, bool) {
	return find(c.conditionOf, code)
}

// EvidenceKind returns the condition with this code if evidence proves it.
func (c *Catalogue) EvidenceKind(code disclosure.Condition) (Condition, bool) {
	condition, ok := find(c.conditionOf, code)
	if !ok || condition.Proof != ProofEvidence {
		return Condition{}, false
	}
	return condition, true
}

// Row returns the row with this ID.
func (c *Catalogue) Row(id disclosure.RowID) (Row, bool) { return find(c.rowOf, id) }

// Retention returns the retention rule with this code.
func (c *Catalogue) Retention(code string) (Retention, bool) { return find(c.retentionOf, code) }

// ObligationText returns the texts of an obligation as it is in a decision.
func (c *Catalogue) ObligationText(o disclosure.Obligation) (Text, bool) {
	for _, d := range c.duties {
		if d.Code == o.Type && d.Article == o.Article {
			return Text{NL: d.NL, EN: d.EN}, true
		}
	}
	return Text{}, false
}

// Field returns a concrete field; CATEGORY.* is not one.
func (c *Catalogue) Field(f disclosure.Field) (Field, bool) {
	if category, ok := c.categoryOf[f.Category()]; ok {
		if i := slices.IndexFunc(category.Fields, func(g Field) bool { return g.Name == f.Name() }); i >= 0 {
			return category.Fields[i], true
		}
	}
	return Field{}, false
}

// FieldsOf returns the concrete fields of a category, in its order; none if the catalogue does not know it.
func (c *Catalogue) FieldsOf(category disclosure.Category) []disclosure.Field {
	known, ok := c.categoryOf[category]
	if !ok {
		return nil
	}
	fields := make([]disclosure.Field, 0, len(known.Fields))
	for _, f := range known.Fields {
		fields = append(fields, disclosure.Field(string(category)+"."+f.Name))
	}
	return fields
}

// Expand replaces CATEGORY.* by the fields of the category, sorts, and drops duplicates. It reports false when a field is unknown.
func (c *Catalogue) Expand(fields []disclosure.Field) ([]disclosure.Field, bool) {
	set, known := c.fieldSet(fields)
	return c.list(set), known
}

// MayHoldBSN reports whether the law lets this domain hold a citizen service number in a local PGA case (Wabb art. 10, UAVG art. 46). A
// participant that may not gets the person's identity without one.
func (c *Catalogue) MayHoldBSN(domain disclosure.Domain) bool {
	known, ok := c.domainOf[domain]
	return ok && known.BSN != ""
}

// fieldSet is a set of fields of one catalogue, by their number.
type fieldSet [maxFields / 64]uint64

func (s fieldSet) with(i int) fieldSet {
	s[i/64] |= 1 << (i % 64)
	return s
}

func (s fieldSet) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

func (s fieldSet) and(t fieldSet) fieldSet {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

func (s fieldSet) or(t fieldSet) fieldSet {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

// fieldSet returns the known fields among fields, and whether all of them are known.
func (c *Catalogue) fieldSet(fields []disclosure.Field) (fieldSet, bool) {
	var set fieldSet
	known := true
	for _, f := range fields {
		if i, ok := c.fieldOf[f]; ok {
			set = set.with(i)
		} else if all, ok := c.inCategory[f.Category()]; ok && f.All() {
			set = set.or(all)
		} else {
			known = false
		}
	}
	return set, known
}

func (c *Catalogue) list(set fieldSet) []disclosure.Field {
	var list []disclosure.Field
	for i, f := range c.fields {
		if set.has(i) {
			list = append(list, f)
		}
	}
	return list
}

// loadCatalogue reads and checks the catalogue folder of a policy.
func loadCatalogue(fsys fs.FS) (*Catalogue, error) {
	c := &Catalogue{}
	var head struct {
		Revision   string            `yaml:"revision"`
		Status     string            `yaml:"status"`
		Confidence map[string]string `yaml:"confidence"`
		Target     target            `yaml:"target"`
		Phases     []Phase           `yaml:"phases"`
	}
	var tail struct {
		Obligations []duty      `yaml:"obligations"`
		Retention   []Retention `yaml:"retention"`
	}
	for name, into := range map[string]any{
		"catalogue/catalogue.yaml":   &head,
		"catalogue/domains.yaml":     &c.domains,
		"catalogue/purposes.yaml":    &c.purposes,
		"catalogue/categories.yaml":  &c.categories,
		"catalogue/conditions.yaml":  &c.conditions,
		"catalogue/obligations.yaml": &tail,
		"catalogue/legal-bases.yaml": &c.rows,
	} {
		if err := readYAML(fsys, name, into); err != nil {
			return nil, err
		}
	}
	c.revision, c.status, c.target, c.phases = head.Revision, head.Status, head.Target, head.Phases
	c.duties, c.retention = tail.Obligations, tail.Retention
	if err := c.number(); err != nil {
		return nil, err
	}
	if err := c.check(head.Confidence); err != nil {
		return nil, err
	}
	return c, nil
}

func readYAML(fsys fs.FS, name string, into any) error {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return fmt.Errorf("policy: reading: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCatalogue, name, err)
	}
	return nil
}

// number fills the look-ups by code. It refuses a code that occurs twice.
func (c *Catalogue) number() error {
	var faults []error
	c.domainOf = byCode(&faults, "domain", c.domains, func(d *Domain) disclosure.Domain { return d.Code })
	c.purposeOf = byCode(&faults, "purpose", c.purposes, func(p *Purpose) disclosure.Purpose { return p.Code })
	c.categoryOf = byCode(&faults, "category", c.categories, func(k *Category) disclosure.Category { return k.Code })
	c.conditionOf = byCode(&faults, "condition", c.conditions, func(k *Condition) disclosure.Condition { return k.Code })
	c.rowOf = byCode(&faults, "row", c.rows, func(r *Row) disclosure.RowID { return r.ID })
	c.retentionOf = byCode(&faults, "retention", c.retention, func(r *Retention) string { return r.Code })
	for i := range c.purposes {
		if len(c.purposes[i].Roles) == 0 {
			c.purposes[i].Roles = []disclosure.Role{
				disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional,
			}
		}
	}
	for _, category := range c.categories {
		c.fields = append(c.fields, c.FieldsOf(category.Code)...)
	}
	slices.Sort(c.fields)
	if len(c.fields) > maxFields {
		faults = append(faults, fmt.Errorf("more than %d fields", maxFields))
		return fmt.Errorf("%w: %w", ErrCatalogue, errors.Join(faults...))
	}
	c.fieldOf = make(map[disclosure.Field]int, len(c.fields))
	c.inCategory = make(map[disclosure.Category]fieldSet, len(c.categories))
	for i, f := range c.fields {
		if _, twice := c.fieldOf[f]; twice {
			faults = append(faults, fmt.Errorf("field %s occurs twice", f))
		}
		c.fieldOf[f] = i
		c.inCategory[f.Category()] = c.inCategory[f.Category()].with(i)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w: %w", ErrCatalogue, err)
	}
	return nil
}

func byCode[K ~string, V any](faults *[]error, what string, list []V, code func(*V) K) map[K]*V {
	index := make(map[K]*V, len(list))
	for i := range list {
		key := code(&list[i])
		if _, twice := index[key]; twice || key == "" {
			*faults = append(*faults, fmt.Errorf("%s %q is empty or occurs twice", what, key))
		}
		index[key] = &list[i]
	}
	return index
}

func (c *Catalogue) phaseOpen(code disclosure.Phase) bool {
	return slices.ContainsFunc(c.phases, func(p Phase) bool { return p.Code == code && p.Open })
}

// condition returns the condition, and the fact, that stands for a range of phases.
func (w Window) condition() string { return "PH(" + string(w.First) + "-" + string(w.Last) + ")" }

// plainCondition turns the condition codes that only the index uses back into those of the catalogue.
func plainCondition(code string) disclosure.Condition {
	switch {
	case strings.HasPrefix(code, "PH("):
		return "PH"
	case code == openCase:
		return "CASE"
	default:
		return disclosure.Condition(code)
	}
}
