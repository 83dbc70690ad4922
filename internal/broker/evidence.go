package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// RecordEvidence records what proves a condition: in a case by a participant, outside one about or by the caller's own organisation. The
// same evidence again gives the evidence as it is; another one under the same id is refused.
func (b *Broker) RecordEvidence(
	ctx context.Context, c disclosure.Caller, e disclosure.Evidence,
) (disclosure.Evidence, disclosure.Receipt, error) {
	e.RecordedFor = disclosure.Party{OIN: c.Organisation, Domain: e.RecordedFor.Domain}
	e.RecordedBy, e.WithdrawnAt = c.Person, nil
	e.ValidFrom, e.ValidUntil = e.ValidFrom.UTC(), e.ValidUntil.UTC()
	if err := b.mayWear(ctx, c, e.RecordedFor); err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	if err := e.Validate(); err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	// First, since what is asked of new evidence need not hold any more for what is there.
	if now, written, err := b.evidenceBefore(ctx, c, e); !errors.Is(err, disclosure.ReasonNotFound) {
		return now, written, err
	}
	written, err := retry(ctx, func() (disclosure.Receipt, error) {
		expect, err := b.evidenceContext(ctx, c, &e)
		if err != nil {
			return disclosure.Receipt{}, err
		}
		if err := b.cfg.Policy.CheckEvidence(e, c.Roles); err != nil {
			return disclosure.Receipt{}, err
		}
		return b.append(ctx, disclosure.Event{
			Kind: disclosure.KindEvidenceRecorded, Actor: c.Person, By: e.RecordedFor, Case: e.Case, EvidenceRecorded: &e,
		}, expect...)
	})
	if errors.Is(err, disclosure.ReasonAlreadyExists) {
		return b.evidenceBefore(ctx, c, e)
	}
	if err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	return e, written, nil
}

// evidenceContext checks that the recorder takes part in the open case of the evidence, and gives the evidence the case's pseudonym.
func (b *Broker) evidenceContext(ctx context.Context, c disclosure.Caller, e *disclosure.Evidence) ([]ledger.Version, error) {
	if e.Case == "" {
		return nil, nil
	}
	found, version, err := b.memberCase(ctx, c, e.Case)
	switch {
	case err != nil:
		return nil, err
	case !found.Has(e.RecordedFor):
		return nil, fmt.Errorf("evidence: %w", disclosure.ReasonNotMember)
	case found.ClosedAt != nil:
		return nil, fmt.Errorf("evidence: %w", disclosure.ReasonCaseClosed)
	case e.Subject != "" && e.Subject != found.Subject:
		return nil, fmt.Errorf("%w: in a case the pseudonym is that of the case", disclosure.ErrMalformed)
	}
	e.Subject = found.Subject
	return []ledger.Version{version}, nil
}

// evidenceBefore answers a repeated RecordEvidence, and with ReasonNotFound one that is not repeated.
func (b *Broker) evidenceBefore(
	ctx context.Context, c disclosure.Caller, e disclosure.Evidence,
) (disclosure.Evidence, disclosure.Receipt, error) {
	if e.Case != "" {
		found, _, err := b.memberCase(ctx, c, e.Case)
		if err != nil {
			return disclosure.Evidence{}, disclosure.Receipt{}, err
		}
		if e.Subject == "" {
			e.Subject = found.Subject
		}
	}
	now, err := b.view.Evidence(ctx, e.Case, c.Organisation, e.ID)
	if err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	same := now.Kind == e.Kind && now.RecordedFor == e.RecordedFor && now.RecordedBy == e.RecordedBy &&
		now.Subject == e.Subject && slices.Equal(now.Sources, e.Sources) && slices.Equal(now.Recipients, e.Recipients) &&
		slices.Equal(now.Purposes, e.Purposes) && slices.Equal(now.Categories, e.Categories) &&
		maps.Equal(now.Details, e.Details) && now.ValidFrom.Equal(e.ValidFrom) && now.ValidUntil.Equal(e.ValidUntil)
	if !same {
		return disclosure.Evidence{}, disclosure.Receipt{}, fmt.Errorf("evidence: %w", disclosure.ReasonAlreadyExists)
	}
	index, err := b.view.EvidenceAt(ctx, e.Case, c.Organisation, e.ID)
	if err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	written, _, err := b.read(ctx, index)
	return now, written, err
}

// ListEvidence lists the evidence of a case in which the caller's organisation takes part, or what it recorded outside cases in one of the
// caller's hats.
func (b *Broker) ListEvidence(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
) ([]disclosure.Evidence, string, error) {
	if id != "" {
		if _, _, err := b.memberCase(ctx, c, id); err != nil {
			return nil, "", err
		}
	}
	list, next, err := b.view.EvidenceList(ctx, id, c.Organisation, after, limit)
	if id == "" {
		list = slices.DeleteFunc(list, func(e disclosure.Evidence) bool { return !slices.Contains(c.Domains, e.RecordedFor.Domain) })
	}
	return list, next, err
}

// WithdrawEvidence ends the use of a piece of evidence, at once and forward only: no permit that relies on it can be written after this
// entry (AVG art. 7(3)). Whoever recorded it may withdraw it, and the owner of the case. Without a receipt, it was withdrawn before.
func (b *Broker) WithdrawEvidence(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, evidence disclosure.EvidenceID, reason string,
) (disclosure.Evidence, *disclosure.Receipt, error) {
	if err := checkReason(reason, 1); err != nil {
		return disclosure.Evidence{}, nil, err
	}
	written, err := retry(ctx, func() (disclosure.Receipt, error) {
		e, by, expect, err := b.withdrawable(ctx, c, id, evidence)
		if err != nil {
			return disclosure.Receipt{}, err
		}
		return b.append(ctx, disclosure.Event{
			Kind: disclosure.KindEvidenceWithdrawn, Actor: c.Person, By: by, Case: e.Case,
			EvidenceWithdrawn: &disclosure.EvidenceWithdrawn{Evidence: evidence, Reason: reason},
		}, expect...)
	})
	if err != nil && !errors.Is(err, errDone) {
		return disclosure.Evidence{}, nil, err
	}
	receipt := &written
	if errors.Is(err, errDone) {
		receipt = nil
	}
	now, err := b.view.Evidence(ctx, id, c.Organisation, evidence)
	return now, receipt, err
}

// withdrawable reads evidence that the caller may withdraw, and says in which hat.
func (b *Broker) withdrawable(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, evidence disclosure.EvidenceID,
) (disclosure.Evidence, disclosure.Party, []ledger.Version, error) {
	var expect []ledger.Version
	var owner disclosure.Party
	if id != "" {
		found, version, err := b.memberCase(ctx, c, id)
		if err != nil {
			return disclosure.Evidence{}, disclosure.Party{}, nil, err
		}
		expect, owner = append(expect, version), found.Owner
	}
	e, err := b.view.Evidence(ctx, id, c.Organisation, evidence)
	if err != nil {
		return disclosure.Evidence{}, disclosure.Party{}, nil, err
	}
	for _, by := range []disclosure.Party{e.RecordedFor, owner} {
		if by.OIN != c.Organisation || !slices.Contains(c.Domains, by.Domain) {
			continue
		}
		if e.WithdrawnAt != nil {
			return disclosure.Evidence{}, disclosure.Party{}, nil, errDone
		}
		return e, by, expect, nil
	}
	return disclosure.Evidence{}, disclosure.Party{}, nil, fmt.Errorf("evidence: %w", disclosure.ReasonHatNotAllowed)
}
