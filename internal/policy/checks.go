package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"sluis/internal/disclosure"
)

// CheckGrant refuses a grant that could never carry a lawful disclosure; the error wraps a [disclosure.ReasonCode] for each reason. A grant
// is lawful when rows of the catalogue between its source and recipient serve its purpose, in a phase of its window, and reach every field
// of it; source and recipient take part in the case; and the case is open. Whether the conditions of those rows hold is decided at each
// disclosure, and so is whether the person who uses a grant is the one who gave it (SELF_APPROVAL): a grant names no person.
func (e *Engine) CheckGrant(c disclosure.Case, g disclosure.Grant) error {
	reasons, err := e.GrantReasons(c, g)
	if err != nil {
		return err
	}
	var refusals []error
	for _, r := range reasons {
		refusals = append(refusals, r.Code)
	}
	if len(refusals) > 0 {
		return fmt.Errorf("grant: %w", errors.Join(refusals...))
	}
	return nil
}

// GrantReasons says why a grant would not be lawful, as [Engine.CheckGrant] does; no reasons mean that it would be. It does not need
// [Engine.Run].
func (e *Engine) GrantReasons(c disclosure.Case, g disclosure.Grant) ([]disclosure.Reason, error) {
	ctx := context.Background() // a fraction of a millisecond of computing, which nobody needs to cancel
	v, err := e.rules.evaluator(ctx)
	if err != nil {
		return nil, err
	}
	defer v.close(ctx)
	in := disclosure.DecisionInput{
		Time: g.NotBefore,
		Request: disclosure.Request{
			Requester: g.Recipient, Source: g.Source, Person: g.GrantedBy, Case: g.Case,
			Subject: c.Subject, Purpose: g.Purpose, Fields: g.Fields,
		},
		Case: &c,
	}
	return e.checkGrant(ctx, v, &g, &in), nil
}

func (e *Engine) checkGrant(ctx context.Context, v *evaluator, g *disclosure.Grant, in *disclosure.DecisionInput) []disclosure.Reason {
	var reasons []disclosure.Reason
	if in.Case.ID != g.Case || !takesPart(in.Case, g.Source) || !takesPart(in.Case, g.Recipient) {
		reasons = append(reasons, e.reason(disclosure.ReasonNotMember, "", "CASE", in))
	}
	if in.Case.ClosedAt != nil {
		reasons = append(reasons, e.reason(disclosure.ReasonWrongPhase, "", "CASE", in))
	}
	q := e.words.ask(&v.memo, in)
	var phases []*ast.Term
	for _, phase := range e.catalogue.phases {
		if g.FirstPhase <= phase.Code && phase.Code <= g.LastPhase {
			phases = append(phases, text(phase.Code))
		}
	}
	q.value.Insert(ast.StringTerm("phases"), ast.ArrayTerm(phases...))
	answer, err := v.ask(ctx, askGrant, q.value)
	if err == nil && answer != nil {
		if lawful, _ := get(answer, e.words.words["lawful"]).(ast.Boolean); bool(lawful) {
			return reasons
		}
		reasons = append(reasons, e.reasons(answer, "reasons", in)...)
	}
	if len(reasons) == 0 {
		reasons = append(reasons, e.reason(disclosure.ReasonPolicyUndefined, "", "", in))
	}
	return reasons
}

// Fault says why evidence cannot be recorded.
type Fault struct {
	Code   disclosure.ReasonCode
	Detail string // the name of the detail or list it is about
}

// CheckEvidence refuses evidence that a person with these roles, in the hat of RecordedFor, may not record, or that lacks what its kind
// asks for. The error wraps a [disclosure.ReasonCode] for each fault and names the detail, never its value.
func (e *Engine) CheckEvidence(ev disclosure.Evidence, roles []disclosure.Role) error {
	var refusals []error
	for _, fault := range e.EvidenceFaults(ev, roles) {
		refusals = append(refusals, fmt.Errorf("%s: %w", fault.Detail, fault.Code))
	}
	if len(refusals) > 0 {
		return fmt.Errorf("evidence: %w", errors.Join(refusals...))
	}
	return nil
}

// EvidenceFaults says why a person with these roles, in the hat of RecordedFor, cannot record this evidence; no faults mean that he can.
func (e *Engine) EvidenceFaults(ev disclosure.Evidence, roles []disclosure.Role) []Fault {
	kind, ok := e.catalogue.EvidenceKind(ev.Kind)
	if !ok {
		return []Fault{{Code: disclosure.ReasonUnknownCode, Detail: "kind"}}
	}
	faults := e.catalogue.unsound(&ev, &kind)
	if !slices.ContainsFunc(roles, func(r disclosure.Role) bool { return slices.Contains(kind.Roles, r) }) {
		faults = append(faults, Fault{Code: disclosure.ReasonRoleNotAllowed, Detail: "role"})
	}
	if kind.BySource && len(ev.Sources) > 0 && !slices.Contains(ev.Sources, ev.RecordedFor) {
		faults = append(faults, Fault{Code: disclosure.ReasonHatNotAllowed, Detail: "sources"})
	}
	about := "person"
	if ev.Case == "" && ev.Subject == "" {
		about = "organisation"
	}
	if !slices.Contains(kind.About, about) {
		faults = append(faults, Fault{Code: disclosure.ReasonInvalidRequest, Detail: "case"})
	}
	for _, party := range slices.Concat(ev.Sources, ev.Recipients) {
		if _, known := e.catalogue.Domain(party.Domain); !known {
			faults = append(faults, Fault{Code: disclosure.ReasonUnknownCode, Detail: "domain"})
		}
	}
	for _, purpose := range ev.Purposes {
		if _, known := e.catalogue.Purpose(purpose); !known {
			faults = append(faults, Fault{Code: disclosure.ReasonUnknownCode, Detail: "purposes"})
		}
	}
	for _, category := range ev.Categories {
		if known, ok := e.catalogue.Category(category); !ok || known.HardDenied {
			faults = append(faults, Fault{Code: disclosure.ReasonUnknownCode, Detail: "categories"})
		}
	}
	return faults
}

func (c *Catalogue) sound(ev *disclosure.Evidence, kind *Condition) bool {
	return len(c.unsound(ev, kind)) == 0
}

// unsound says what keeps evidence from proving anything, wherever it is used.
func (c *Catalogue) unsound(ev *disclosure.Evidence, kind *Condition) []Fault {
	var faults []Fault
	fault := func(code disclosure.ReasonCode, detail string) {
		faults = append(faults, Fault{Code: code, Detail: detail})
	}
	if !slices.Contains(kind.Recorders, ev.RecordedFor.Domain) {
		fault(disclosure.ReasonHatNotAllowed, "recorded_for")
	}
	if ev.RecordedBy == "" {
		fault(disclosure.ReasonInvalidRequest, "recorded_by")
	}
	if !ev.ValidUntil.After(ev.ValidFrom) || ev.ValidUntil.Sub(ev.ValidFrom) > kind.MaxValidity() {
		fault(disclosure.ReasonInvalidRequest, "valid_until")
	}
	for _, list := range kind.MustName {
		if namesNone(ev, list) {
			fault(disclosure.ReasonInvalidRequest, list)
		}
	}
	for i := range kind.Details {
		d := &kind.Details[i]
		given := strings.TrimSpace(ev.Details[d.Name])
		required := d.Required || d.When != nil && ev.Details[d.When.Detail] == d.When.Is
		if given == "" && required || given != "" && len(d.Values) > 0 && !slices.Contains(d.Values, given) {
			fault(disclosure.ReasonInvalidRequest, d.Name)
		}
	}
	return faults
}

func namesNone(ev *disclosure.Evidence, list string) bool {
	switch list {
	case "sources":
		return len(ev.Sources) == 0
	case "recipients":
		return len(ev.Recipients) == 0
	case "purposes":
		return len(ev.Purposes) == 0
	default:
		return len(ev.Categories) == 0
	}
}
