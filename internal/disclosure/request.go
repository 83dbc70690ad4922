package disclosure

import (
	"slices"
	"time"
	"unicode/utf8"
)

// Limits of what a request, grant or evidence may hold. They bound what one caller can make the policy and the ledger do.
const (
	MaxFields     = 200  // fields in a request or grant
	MaxText       = 1000 // characters of a free text, such as an answer of a motivation
	MaxListed     = 100  // members of any other list
	MaxGrantTerm  = 90 * 24 * time.Hour
	MaxSealed     = 16 << 10 // bytes of a sealed identity
	MaxStatement  = 32 << 10 // bytes of a signed key statement
	MaxAnswer     = 1 << 20  // bytes of a sealed answer
	PermitTerm    = 30 * time.Second
	ClockSkew     = 30 * time.Second
	MaxConsidered = 256 // grants, and pieces of evidence, that one decision takes into account
)

// Party is an organisation in one of its hats.
type Party struct {
	OIN    OIN    `json:"oin"`
	Domain Domain `json:"domain"`
}

// Motivation is what a professional must be able to answer before sharing: which goal it serves, why it cannot be reached without these
// data, why no less intrusive way will do, and why it outweighs the harm to the person (AVG art. 5(1)(b) and (c)).
type Motivation struct {
	Aim             string `json:"aim"`
	Necessity       string `json:"necessity"`
	Subsidiarity    string `json:"subsidiarity,omitempty"`
	Proportionality string `json:"proportionality,omitempty"`
}

// Request is one request for a disclosure, as the broker understood it.
type Request struct {
	ID        RequestID   `json:"id"`
	Requester Party       `json:"requester"`
	Source    Party       `json:"source"`
	Person    PersonRef   `json:"person"`
	Roles     []Role      `json:"roles"`
	Case      CaseID      `json:"case,omitempty"` // empty outside a case: acute danger, signals
	Subject   Pseudonym   `json:"subject"`        // in a case: the pseudonym of the case
	Purpose   Purpose     `json:"purpose"`
	Fields    []Field     `json:"fields"`
	Motive    *Motivation `json:"motivation,omitempty"`
}

// Validate checks lengths and duplicates; the shapes of the codes were checked by their Parse functions.
func (r Request) Validate() error {
	switch {
	case len(r.Fields) == 0 || len(r.Fields) > MaxFields:
		return malformed("fields", "1 to 200 fields")
	case len(unique(r.Fields)) != len(r.Fields):
		return malformed("fields", "without duplicates")
	case r.Motive == nil:
		return nil
	}
	return r.Motive.validate()
}

func (m Motivation) validate() error {
	for _, text := range []string{m.Aim, m.Necessity, m.Subsidiarity, m.Proportionality} {
		if utf8.RuneCountInString(text) > MaxText || !utf8.ValidString(text) {
			return malformed("motivation", "answers of at most 1000 characters")
		}
	}
	return nil
}

func unique[T ~string](list []T) []T {
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// SubjectFacts are the few facts about the person that the law makes the decision depend on. The municipality that opens the case states
// them; a month of birth, not a date, so that ages can be told without more being known.
type SubjectFacts struct {
	BirthMonth   string `json:"birth_month"`   // YYYY-MM
	Resident     bool   `json:"resident"`      // lives in the municipality of the case
	MultiProblem bool   `json:"multi_problem"` // problems on several life domains at once
}

// BornBy returns the last day of the month of birth: someone is at least n years old when n years have passed since then.
func (f SubjectFacts) BornBy() (time.Time, error) {
	month, err := time.Parse("2006-01", f.BirthMonth)
	if err != nil {
		return time.Time{}, malformed("birth month", "YYYY-MM")
	}
	return month.AddDate(0, 1, -1), nil
}

// Age returns the whole years that have certainly passed since birth at t.
func (f SubjectFacts) Age(t time.Time) (int, error) {
	born, err := f.BornBy()
	if err != nil {
		return 0, err
	}
	age := t.Year() - born.Year()
	if t.Before(born.AddDate(age, 0, 0)) {
		age--
	}
	return age, nil
}

// Participant is an organisation, in one hat, that takes part in a case.
type Participant struct {
	Party
	JoinedAt time.Time `json:"joined_at"`
}

// Case is a case of the person-centred approach, as folded from the ledger.
type Case struct {
	ID           CaseID        `json:"id"`
	Reference    string        `json:"reference"` // the municipality's own case number; no names
	Owner        Party         `json:"owner"`     // the municipality's PGA process: opens, grants, seals identities
	OpenedBy     PersonRef     `json:"opened_by"`
	Regime       Regime        `json:"regime"`
	Phase        Phase         `json:"phase"`
	Subject      Pseudonym     `json:"subject"`
	Facts        SubjectFacts  `json:"facts"`
	Participants []Participant `json:"participants"`
	OpenedAt     time.Time     `json:"opened_at"`
	ClosedAt     *time.Time    `json:"closed_at,omitempty"`
}

// Has reports whether p takes part in the case now.
func (c Case) Has(p Party) bool {
	return slices.ContainsFunc(c.Participants, func(q Participant) bool { return q.Party == p })
}

// Grant is a purpose-bound, expiring authorisation by the PGA-expert for one recipient to ask one source. It is necessary where a row of
// the catalogue says so, and never sufficient: the law and the source decide too.
type Grant struct {
	ID         GrantID    `json:"id"`
	Case       CaseID     `json:"case"`
	Source     Party      `json:"source"`
	Recipient  Party      `json:"recipient"`
	Purpose    Purpose    `json:"purpose"`
	Fields     []Field    `json:"fields"`
	FirstPhase Phase      `json:"first_phase"`
	LastPhase  Phase      `json:"last_phase"`
	NotBefore  time.Time  `json:"not_before"`
	ExpiresAt  time.Time  `json:"expires_at"` // at most MaxGrantTerm after NotBefore
	GrantedBy  PersonRef  `json:"granted_by"`
	Motive     Motivation `json:"motivation"`
	RevokedAt  *time.Time `json:"revoked_at,omitempty"`
}

// Validate checks term, phases and lengths.
func (g Grant) Validate() error {
	switch {
	case len(g.Fields) == 0 || len(g.Fields) > MaxFields || len(unique(g.Fields)) != len(g.Fields):
		return malformed("fields", "1 to 200 fields without duplicates")
	case g.FirstPhase > g.LastPhase:
		return malformed("phases", "a first phase that is not after the last")
	case !g.ExpiresAt.After(g.NotBefore) || g.ExpiresAt.Sub(g.NotBefore) > MaxGrantTerm:
		return malformed("expiry", "after the start and at most 90 days later")
	}
	return g.Motive.validate()
}

// Evidence proves a condition of the catalogue: a consent, a decision under the police data act, a signed covenant, a confirmed hit on two
// domains. It says what was decided and by whom, never the content of the person's file.
type Evidence struct {
	ID          EvidenceID        `json:"id"`
	Kind        Condition         `json:"kind"`
	Case        CaseID            `json:"case,omitempty"`    // empty: about an organisation, such as a signed covenant
	Subject     Pseudonym         `json:"subject,omitempty"` // in a case that of the case; outside one empty for evidence about an organisation
	Sources     []Party           `json:"sources,omitempty"` // empty: any
	Recipients  []Party           `json:"recipients,omitempty"`
	Purposes    []Purpose         `json:"purposes,omitempty"`
	Categories  []Category        `json:"categories,omitempty"`
	Details     map[string]string `json:"details,omitempty"` // what the catalogue asks of this kind: giver, capacity, channel, reference, ...
	ValidFrom   time.Time         `json:"valid_from"`
	ValidUntil  time.Time         `json:"valid_until"`
	RecordedBy  PersonRef         `json:"recorded_by"`
	RecordedFor Party             `json:"recorded_for"` // the hat of the organisation that recorded it
	WithdrawnAt *time.Time        `json:"withdrawn_at,omitempty"`
}

// Validate checks the term and lengths.
func (e Evidence) Validate() error {
	switch {
	case !e.ValidUntil.After(e.ValidFrom):
		return malformed("validity", "an end after its start")
	case len(e.Sources) > MaxListed, len(e.Recipients) > MaxListed, len(e.Purposes) > MaxListed,
		len(e.Categories) > MaxListed, len(e.Details) > MaxListed:
		return malformed("evidence", "lists of at most 100 members")
	}
	for key, text := range e.Details {
		if len(key) > 40 || utf8.RuneCountInString(text) > MaxText || !utf8.ValidString(text) {
			return malformed("evidence details", "texts of at most 1000 characters under names of at most 40")
		}
	}
	return nil
}

// DecisionInput is everything that the policy is told about one request. It is recorded with the decision, so that the same decision can
// be made again. Grants and evidence are those of the case (or organisations) in question; expired, revoked and withdrawn ones are among
// them, since the reason for a denial depends on them.
type DecisionInput struct {
	Time     time.Time  `json:"time"`
	Request  Request    `json:"request"`
	Case     *Case      `json:"case,omitempty"`
	Grants   []Grant    `json:"grants,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}
