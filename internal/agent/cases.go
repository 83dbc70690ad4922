package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

// Cases is the part of the broker that keeps cases.
type Cases interface {
	OpenCase(ctx context.Context, c disclosure.Case) (disclosure.Case, disclosure.Receipt, error)
	GetCase(ctx context.Context, id disclosure.CaseID) (disclosure.Case, error)
	AddParticipant(
		ctx context.Context, id disclosure.CaseID, p disclosure.Party, sealed []byte,
	) (disclosure.Case, disclosure.Receipt, error)
}

// CaseManager is the side of the municipality's PGA process. What needs no identity (phases, grants, evidence) is asked of
// the broker as it is; [Agent.Keep] keeps the receipts.
type CaseManager struct {
	*Agent
	broker Cases
}

// NewCaseManager makes the case side of an agent.
func NewCaseManager(a *Agent, broker Cases) *CaseManager {
	return &CaseManager{Agent: a, broker: broker}
}

// NewCase is a case to open.
type NewCase struct {
	ID        disclosure.CaseID // chosen by the caller, so that a retry is the same case; empty: a new one
	Domain    disclosure.Domain // the hat of the owner, such as ME
	Reference string            // the municipality's own case number; no names
	Regime    disclosure.Regime
	Facts     disclosure.SubjectFacts // an empty month of birth is taken from Person
	Person    envelope.Identity       // with a BSN; it stays here
}

// OpenCase opens a case about a person, and gives the case and the file of its receipt. The broker is told the
// pseudonym and the facts.
func (m *CaseManager) OpenCase(ctx context.Context, n NewCase) (disclosure.Case, string, error) {
	if !m.wears(n.Domain) {
		return disclosure.Case{}, "", fmt.Errorf("%w: domain %s is not one of this agent's", disclosure.ReasonHatNotAllowed, n.Domain)
	}
	if n.ID == "" {
		n.ID = disclosure.CaseID(uuid.NewString())
	}
	if n.Facts.BirthMonth == "" && len(n.Person.BirthDate) >= len("2006-01") {
		n.Facts.BirthMonth = n.Person.BirthDate[:len("2006-01")]
	}
	subject, err := m.subject(ctx, n.Person)
	if err != nil {
		return disclosure.Case{}, "", err
	}
	owner := disclosure.Party{OIN: m.cfg.OIN, Domain: n.Domain}
	opened, r, err := m.broker.OpenCase(ctx, disclosure.Case{
		ID: n.ID, Reference: n.Reference, Owner: owner, Regime: n.Regime, Subject: subject, Facts: n.Facts,
	})
	if err != nil {
		return disclosure.Case{}, "", err
	}
	path, err := m.Keep(ctx, string(n.ID)+"-opened", r, func(e disclosure.Event) error {
		switch c := e.CaseOpened; {
		case e.Kind != disclosure.KindCaseOpened || c.ID != n.ID || c.Owner != owner || c.Reference != n.Reference:
			return errors.New("it is not about this case")
		case c.Subject != subject || c.Facts != n.Facts:
			return errors.New("it is about another person")
		}
		return nil
	})
	return opened, path, err
}

// subject gives the pseudonym of a person.
func (m *CaseManager) subject(ctx context.Context, person envelope.Identity) (disclosure.Pseudonym, error) {
	if err := person.Validate(); err != nil {
		return "", err
	}
	if person.BSN == "" {
		return "", fmt.Errorf("the person's citizen service number is needed to make the pseudonym: %w", disclosure.ReasonIdentityMissing)
	}
	bsn, err := m.parseBSN(person.BSN)
	if err != nil {
		return "", err
	}
	return m.pseudonymOf(ctx, bsn)
}

// AddParticipant lets an organisation take part in a case, and seals to it who the person is: with the BSN only if it may
// hold one in that hat. The person must be the person of the case. Repeating it replaces the sealed identity, as is
// needed when the certificate it was signed with has expired.
func (m *CaseManager) AddParticipant(
	ctx context.Context, id disclosure.CaseID, p disclosure.Party, person envelope.Identity,
) (disclosure.Case, string, error) {
	current, err := m.broker.GetCase(ctx, id)
	if err != nil {
		return disclosure.Case{}, "", err
	}
	subject, err := m.subject(ctx, person)
	if err != nil {
		return disclosure.Case{}, "", err
	}
	if current.ID != id || current.Subject != subject || current.Owner.OIN != m.cfg.OIN {
		return disclosure.Case{}, "", fmt.Errorf("the case is not about this person, or not of this organisation: %w",
			disclosure.ReasonIdentityMismatch)
	}
	statement, err := m.statementOf(ctx, p.OIN)
	if err != nil {
		return disclosure.Case{}, "", err
	}
	sealed, err := m.sealIdentity(person, p, statement, envelope.IdentityBinding{
		Case: string(id), Pseudonym: string(subject), Participant: participant(p), Sealer: string(m.cfg.OIN),
	})
	if err != nil {
		return disclosure.Case{}, "", err
	}
	changed, r, err := m.broker.AddParticipant(ctx, id, p, sealed)
	if err != nil {
		return disclosure.Case{}, "", err
	}
	name := fmt.Sprintf("%s-%s-%s-added", id, p.OIN, p.Domain)
	path, err := m.Keep(ctx, name, r, func(e disclosure.Event) error {
		added := e.ParticipantAdded
		if e.Kind != disclosure.KindParticipantAdded || e.Case != id || added.Participant != p ||
			string(added.SealedIdentity) != string(sealed) {
			return errors.New("it is not about this participant, or holds another identity")
		}
		return nil
	})
	return changed, path, err
}
