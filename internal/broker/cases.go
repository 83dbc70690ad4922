package broker

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// processDomain is the hat in which a municipality leads cases: PGA process (procesregie).
const processDomain disclosure.Domain = "ME"

var referencePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,39}$`)

// OpenCase opens a case in phase F1. Of the case, its ID, Reference, owner's hat, Regime, Subject and Facts are read. The same case again
// gives the case as it is; another one under the same id is refused.
func (b *Broker) OpenCase(
	ctx context.Context, c disclosure.Caller, opened disclosure.Case,
) (disclosure.Case, disclosure.Receipt, error) {
	owner := disclosure.Party{OIN: c.Organisation, Domain: opened.Owner.Domain}
	if err := b.mayWear(ctx, c, owner); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	switch {
	case !c.Is(disclosure.RolePGAExpert) || owner.Domain != processDomain:
		return disclosure.Case{}, disclosure.Receipt{}, fmt.Errorf("open case: %w", disclosure.ReasonRoleNotAllowed)
	case !referencePattern.MatchString(opened.Reference):
		return disclosure.Case{}, disclosure.Receipt{}, fmt.Errorf("%w: reference", disclosure.ErrMalformed)
	}
	if _, err := opened.Facts.BornBy(); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	opened = disclosure.Case{
		ID: opened.ID, Reference: opened.Reference, Owner: owner, OpenedBy: c.Person, Regime: opened.Regime, Phase: "F1",
		Subject: opened.Subject, Facts: opened.Facts, Participants: []disclosure.Participant{{Party: owner}},
	}
	written, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindCaseOpened, Actor: c.Person, By: owner, Case: opened.ID, CaseOpened: &opened,
	})
	if errors.Is(err, disclosure.ReasonAlreadyExists) {
		return b.reopened(ctx, opened)
	}
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	now, _, err := b.view.Case(ctx, opened.ID)
	return now, written, err
}

// reopened answers a repeated OpenCase.
func (b *Broker) reopened(ctx context.Context, opened disclosure.Case) (disclosure.Case, disclosure.Receipt, error) {
	now, _, err := b.view.Case(ctx, opened.ID)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	if now.Reference != opened.Reference || now.Owner != opened.Owner || now.Regime != opened.Regime ||
		now.Subject != opened.Subject || now.Facts != opened.Facts {
		return disclosure.Case{}, disclosure.Receipt{}, fmt.Errorf("open case: %w", disclosure.ReasonAlreadyExists)
	}
	index, err := b.view.OpenedAt(ctx, opened.ID)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	written, _, err := b.read(ctx, index)
	return now, written, err
}

// GetCase returns a case in which the caller's organisation takes part.
func (b *Broker) GetCase(ctx context.Context, c disclosure.Caller, id disclosure.CaseID) (disclosure.Case, error) {
	found, _, err := b.memberCase(ctx, c, id)
	return found, err
}

// memberCase reads a case for a person of an organisation that takes part in it, in a hat that the person wears. To others it does not
// exist.
func (b *Broker) memberCase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID,
) (disclosure.Case, ledger.Version, error) {
	found, version, err := b.view.Case(ctx, id)
	if err != nil {
		return disclosure.Case{}, ledger.Version{}, err
	}
	if !slices.ContainsFunc(found.Participants, func(p disclosure.Participant) bool {
		return p.OIN == c.Organisation && slices.Contains(c.Domains, p.Domain)
	}) {
		return disclosure.Case{}, ledger.Version{}, fmt.Errorf("not a participant: %w", disclosure.ReasonNotFound)
	}
	return found, version, nil
}

// ownCase reads an open case for a PGA-expert of the municipality that owns it.
func (b *Broker) ownCase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID,
) (disclosure.Case, ledger.Version, error) {
	found, version, err := b.memberCase(ctx, c, id)
	switch {
	case err != nil:
		return disclosure.Case{}, ledger.Version{}, err
	case !c.Is(disclosure.RolePGAExpert) || found.Owner.OIN != c.Organisation || !slices.Contains(c.Domains, found.Owner.Domain):
		return disclosure.Case{}, ledger.Version{}, fmt.Errorf("not the owner: %w", disclosure.ReasonRoleNotAllowed)
	}
	return found, version, nil
}

// ListCases lists the cases in which the caller's organisation takes part, newest first.
func (b *Broker) ListCases(
	ctx context.Context, c disclosure.Caller, after string, limit int,
) (cases []disclosure.Case, next string, err error) {
	found, next, err := b.view.Cases(ctx, c.Organisation, after, limit)
	if err != nil {
		return nil, "", err
	}
	return slices.DeleteFunc(found, func(theCase disclosure.Case) bool {
		return !slices.ContainsFunc(theCase.Participants, func(p disclosure.Participant) bool {
			return p.OIN == c.Organisation && slices.Contains(c.Domains, p.Domain)
		})
	}), next, nil
}

// changeCase writes an event of a case, once change has agreed to the case as it is.
func (b *Broker) changeCase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, change func(disclosure.Case) (disclosure.Event, error),
) (disclosure.Case, disclosure.Receipt, error) {
	written, err := retry(ctx, func() (disclosure.Receipt, error) {
		found, version, err := b.ownCase(ctx, c, id)
		switch {
		case err != nil:
			return disclosure.Receipt{}, err
		case found.ClosedAt != nil:
			return disclosure.Receipt{}, fmt.Errorf("case: %w", disclosure.ReasonCaseClosed)
		}
		e, err := change(found)
		if err != nil {
			return disclosure.Receipt{}, err
		}
		e.Actor, e.By, e.Case = c.Person, found.Owner, id
		return b.append(ctx, e, version)
	})
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	now, _, err := b.view.Case(ctx, id)
	return now, written, err
}

// AddParticipant lets an organisation take part and keeps the person's identity sealed to it. Repeating it replaces the identity.
func (b *Broker) AddParticipant(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party, sealed []byte,
) (disclosure.Case, disclosure.Receipt, error) {
	if len(sealed) == 0 || len(sealed) > disclosure.MaxSealed {
		return disclosure.Case{}, disclosure.Receipt{}, fmt.Errorf("participant: %w", disclosure.ReasonIdentityMissing)
	}
	if err := b.known(ctx, p); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return b.changeCase(ctx, c, id, func(theCase disclosure.Case) (disclosure.Event, error) {
		if len(theCase.Participants) >= disclosure.MaxListed && !theCase.Has(p) {
			return disclosure.Event{}, fmt.Errorf("%w: a case has at most 100 participants", disclosure.ErrMalformed)
		}
		return disclosure.Event{
			Kind:             disclosure.KindParticipantAdded,
			ParticipantAdded: &disclosure.ParticipantAdded{Participant: p, SealedIdentity: sealed},
		}, nil
	})
}

// RemoveParticipant ends the participation of an organisation. The owner stays.
func (b *Broker) RemoveParticipant(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party,
) (disclosure.Case, disclosure.Receipt, error) {
	return b.changeCase(ctx, c, id, func(theCase disclosure.Case) (disclosure.Event, error) {
		switch {
		case p == theCase.Owner:
			return disclosure.Event{}, fmt.Errorf("%w: the owner cannot leave its case", disclosure.ErrMalformed)
		case !theCase.Has(p):
			return disclosure.Event{}, fmt.Errorf("participant: %w", disclosure.ReasonNotFound)
		}
		return disclosure.Event{
			Kind:               disclosure.KindParticipantRemoved,
			ParticipantRemoved: &disclosure.ParticipantRemoved{Participant: p},
		}, nil
	})
}

// ChangePhase moves a case from the phase it is in to another, F1 to F6.
func (b *Broker) ChangePhase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, from, to disclosure.Phase,
) (disclosure.Case, disclosure.Receipt, error) {
	if to < "F1" || to > "F6" {
		return disclosure.Case{}, disclosure.Receipt{}, fmt.Errorf("%w: a case moves between F1 and F6", disclosure.ErrMalformed)
	}
	return b.changeCase(ctx, c, id, func(theCase disclosure.Case) (disclosure.Event, error) {
		if theCase.Phase != from || from == to {
			return disclosure.Event{}, fmt.Errorf("case: %w", disclosure.ReasonWrongPhase)
		}
		return disclosure.Event{
			Kind: disclosure.KindPhaseChanged, PhaseChanged: &disclosure.PhaseChanged{From: from, To: to},
		}, nil
	})
}

// CloseCase shields a case: nothing is permitted in it any more.
func (b *Broker) CloseCase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, reason string,
) (disclosure.Case, disclosure.Receipt, error) {
	if err := checkReason(reason, 1); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return b.changeCase(ctx, c, id, func(disclosure.Case) (disclosure.Event, error) {
		return disclosure.Event{Kind: disclosure.KindCaseClosed, CaseClosed: &disclosure.CaseClosed{Reason: reason}}, nil
	})
}

// checkReason checks the words in which a person says why.
func checkReason(text string, least int) error {
	if n := utf8.RuneCountInString(text); n < least || n > disclosure.MaxText || !utf8.ValidString(text) {
		return fmt.Errorf("%w: reason must be %d to %d characters", disclosure.ErrMalformed, least, disclosure.MaxText)
	}
	return nil
}
