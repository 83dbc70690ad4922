//go:build linux

package e2e_test

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

func newRequestID() disclosure.RequestID { return disclosure.RequestID(uuid.NewString()) }

// casus is a case in which the police may tell probation about nuisance (row LB-012), and probation the municipality about the supervision
// (row LB-071).
type casus struct {
	w        *world
	id       disclosure.CaseID
	subject  disclosure.Pseudonym
	person   envelope.Identity
	grant    disclosure.GrantID
	evidence map[disclosure.Condition]disclosure.EvidenceID
}

// recordedBy says who records the evidence of the two rows. LAW and SUPACT are probation's, the rest is the municipality's.
func recordedBy() map[disclosure.Condition]person {
	return map[disclosure.Condition]person{
		"LAW": supervisor(), "SUPACT": supervisor(), "HIT2": expert(), "CONV": expert(), "INFO": expert(),
	}
}

// openCase opens a case about a person, with participants, evidence and a grant. The agents of police and probation must have published
// their keys.
func (w *world) openCase(about envelope.Identity) *casus {
	w.t.Helper()
	w.agent(policeOIN)
	w.agent(probationOIN)
	manager := agent.NewCaseManager(w.agent(municipalityOIN), w.client(expert()))
	opened, _, err := manager.OpenCase(w.t.Context(), agent.NewCase{
		Domain: "ME", Reference: "E2E-" + about.BSN[5:], Regime: disclosure.RegimeLPGA,
		Facts: disclosure.SubjectFacts{Resident: true, MultiProblem: true}, Person: about,
	})
	if err != nil {
		w.t.Fatalf("open case: %v", err)
	}
	c := &casus{w: w, id: opened.ID, subject: opened.Subject, person: about, evidence: map[disclosure.Condition]disclosure.EvidenceID{}}
	for _, p := range []disclosure.Party{police(), probation()} {
		c.addParticipant(p)
	}
	if _, _, err := w.client(expert()).ChangePhase(w.t.Context(), c.id, "F1", "F3"); err != nil {
		w.t.Fatalf("change phase: %v", err)
	}
	for kind := range recordedBy() {
		c.record(kind)
	}
	c.createGrant()
	return c
}

func (c *casus) addParticipant(p disclosure.Party) {
	c.w.t.Helper()
	manager := agent.NewCaseManager(c.w.agent(municipalityOIN), c.w.client(expert()))
	if _, _, err := manager.AddParticipant(c.w.t.Context(), c.id, p, c.person); err != nil {
		c.w.t.Fatalf("add participant %s: %v", p.Domain, err)
	}
}

// evidence makes a piece of evidence as the catalogue wants it.
func evidence(kind disclosure.Condition, by disclosure.Party) disclosure.Evidence {
	now := time.Now()
	e := disclosure.Evidence{
		ID: disclosure.EvidenceID(uuid.NewString()), Kind: kind, RecordedFor: by, ValidFrom: now.Add(-time.Minute), ValidUntil: now.Add(time.Hour),
	}
	switch kind {
	case "LAW":
		e.Recipients, e.Details = []disclosure.Party{probation()}, map[string]string{"task": "Reclasseringsregeling 1995"}
	case "SUPACT":
		e.Details = map[string]string{"reference": "T-1"}
	case "HIT2":
		e.Details = map[string]string{"domains": "P,R,ME"}
	case "CONV":
		e.Recipients, e.Details = []disclosure.Party{municipality()}, map[string]string{"reference": "C-1"}
	case "INFO":
		e.Details = map[string]string{"status": "INFORMED"}
	case "W16":
		e.Details = map[string]string{"aim": "PUBLIC_ORDER", "measure": "gebiedsverbod"}
	case "VITAL":
		e.Details = map[string]string{"danger": "acuut"}
	case "FGN":
		e.Details = map[string]string{"notified_at": now.Format(time.DateOnly)}
	case "POST":
		e.Details = map[string]string{"reviewer": "toetser", "review_by": now.AddDate(0, 0, 14).Format(time.DateOnly)}
	case "COD":
		e.ValidUntil = now.Add(time.Hour)
		e.Recipients = []disclosure.Party{police()}
		e.Details = map[string]string{}
		for _, name := range []string{
			"professional", "consent_tried", "harm", "distress", "no_other_way", "prevents", "minimum", "consulted_with", "informed_subject",
		} {
			e.Details[name] = "vastgelegd"
		}
	default:
		panic(fmt.Sprintf("no evidence of kind %s", kind)) // a slip in these tests
	}
	return e
}

// record records evidence of a kind in the case.
func (c *casus) record(kind disclosure.Condition) {
	c.w.t.Helper()
	by := recordedBy()[kind]
	e := evidence(kind, disclosure.Party{OIN: by.oin, Domain: by.hat})
	e.Case = c.id
	if _, _, err := c.w.client(by).RecordEvidence(c.w.t.Context(), e); err != nil {
		c.w.t.Fatalf("record %s: %v", kind, err)
	}
	c.evidence[kind] = e.ID
}

// createGrant lets probation tell the municipality about the supervision.
func (c *casus) createGrant() {
	c.w.t.Helper()
	now := time.Now()
	g := disclosure.Grant{
		ID: disclosure.GrantID(uuid.NewString()), Case: c.id, Source: probation(), Recipient: municipality(), Purpose: "CASUSOVERLEG",
		Fields: []disclosure.Field{"SUPV.status", "SUPV.conditions"}, FirstPhase: "F3", LastPhase: "F6",
		NotBefore: now.Add(-time.Minute), ExpiresAt: now.Add(24 * time.Hour), Motive: *motive(),
	}
	if _, _, err := c.w.client(expert()).CreateGrant(c.w.t.Context(), g); err != nil {
		c.w.t.Fatalf("create grant: %v", err)
	}
	c.grant = g.ID
}

func motive() *disclosure.Motivation {
	return &disclosure.Motivation{
		Aim: "Begeleiding", Necessity: "Zonder is geen plan te maken", Subsidiarity: "Niet anders te verkrijgen", Proportionality: "Alleen dit",
	}
}

// aboutNuisance is what probation asks the police (row LB-012).
func (c *casus) aboutNuisance() disclosure.Query {
	return disclosure.Query{
		Domain: "R", Case: c.id, Source: police(), Purpose: "TOEZICHT",
		Fields: []disclosure.Field{"POLNUIS.kind", "POLNUIS.summary"}, Motive: motive(),
	}
}

// aboutSupervision is what the municipality asks probation (row LB-071).
func (c *casus) aboutSupervision() disclosure.Query {
	return disclosure.Query{
		Domain: "ME", Case: c.id, Source: probation(), Purpose: "CASUSOVERLEG",
		Fields: []disclosure.Field{"SUPV.status", "SUPV.conditions"}, Motive: motive(),
	}
}

// ask makes of a query what an agent asks.
func ask(id disclosure.RequestID, q disclosure.Query) agent.Ask {
	return agent.Ask{ID: id, Domain: q.Domain, Case: q.Case, Source: q.Source, Purpose: q.Purpose, Fields: q.Fields, Motive: q.Motive}
}
