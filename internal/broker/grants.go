package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluis/internal/disclosure"
)

// CreateGrant creates a grant, if it could carry a lawful disclosure. The same grant again gives the grant as it is; another one under the
// same id is refused.
func (b *Broker) CreateGrant(
	ctx context.Context, c disclosure.Caller, g disclosure.Grant,
) (disclosure.Grant, disclosure.Receipt, error) {
	g.GrantedBy, g.RevokedAt = c.Person, nil
	g.NotBefore, g.ExpiresAt = g.NotBefore.UTC(), g.ExpiresAt.UTC()
	if err := g.Validate(); err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	// First, since what is asked of a new grant need not hold any more for one that is there.
	if now, written, err := b.grantedBefore(ctx, c, g); !errors.Is(err, disclosure.ReasonNotFound) {
		return now, written, err
	}
	for _, p := range []disclosure.Party{g.Source, g.Recipient} {
		if err := b.known(ctx, p); err != nil {
			return disclosure.Grant{}, disclosure.Receipt{}, err
		}
	}
	if !b.now().Before(g.ExpiresAt) {
		return disclosure.Grant{}, disclosure.Receipt{}, fmt.Errorf("grant: %w", disclosure.ReasonGrantExpired)
	}
	_, written, err := b.changeCase(ctx, c, g.Case, func(theCase disclosure.Case) (disclosure.Event, error) {
		for _, p := range []disclosure.Party{g.Source, g.Recipient} {
			if !theCase.Has(p) {
				return disclosure.Event{}, fmt.Errorf("grant: %w", disclosure.ReasonNotMember)
			}
		}
		if err := b.cfg.Policy.CheckGrant(theCase, g); err != nil {
			return disclosure.Event{}, err
		}
		return disclosure.Event{Kind: disclosure.KindGrantCreated, GrantCreated: &g}, nil
	})
	if errors.Is(err, disclosure.ReasonAlreadyExists) {
		return b.grantedBefore(ctx, c, g)
	}
	if err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	return g, written, nil
}

// grantedBefore answers a repeated CreateGrant, and with ReasonNotFound one that is not repeated.
func (b *Broker) grantedBefore(
	ctx context.Context, c disclosure.Caller, g disclosure.Grant,
) (disclosure.Grant, disclosure.Receipt, error) {
	now, err := b.GetGrant(ctx, c, g.ID)
	if err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	same := now.Case == g.Case && now.Source == g.Source && now.Recipient == g.Recipient && now.Purpose == g.Purpose &&
		slices.Equal(now.Fields, g.Fields) && now.FirstPhase == g.FirstPhase && now.LastPhase == g.LastPhase &&
		now.NotBefore.Equal(g.NotBefore) && now.ExpiresAt.Equal(g.ExpiresAt) && now.Motive == g.Motive &&
		now.GrantedBy == c.Person
	if !same {
		return disclosure.Grant{}, disclosure.Receipt{}, fmt.Errorf("grant: %w", disclosure.ReasonAlreadyExists)
	}
	index, err := b.view.GrantedAt(ctx, g.ID)
	if err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	written, _, err := b.read(ctx, index)
	return now, written, err
}

// GetGrant returns a grant of a case in which the caller's organisation takes part.
func (b *Broker) GetGrant(ctx context.Context, c disclosure.Caller, id disclosure.GrantID) (disclosure.Grant, error) {
	g, err := b.view.Grant(ctx, id)
	if err != nil {
		return disclosure.Grant{}, err
	}
	if _, _, err := b.memberCase(ctx, c, g.Case); err != nil {
		return disclosure.Grant{}, err
	}
	return g, nil
}

// ListGrants lists the grants of a case in which the caller's organisation takes part.
func (b *Broker) ListGrants(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
) ([]disclosure.Grant, string, error) {
	if _, _, err := b.memberCase(ctx, c, id); err != nil {
		return nil, "", err
	}
	return b.view.Grants(ctx, id, after, limit)
}

// RevokeGrant ends a grant at once: no permit that relies on it can be written after this entry. Without a receipt, it was revoked before.
func (b *Broker) RevokeGrant(
	ctx context.Context, c disclosure.Caller, id disclosure.GrantID, reason string,
) (disclosure.Grant, *disclosure.Receipt, error) {
	if err := checkReason(reason, 1); err != nil {
		return disclosure.Grant{}, nil, err
	}
	g, err := b.GetGrant(ctx, c, id)
	if err != nil {
		return disclosure.Grant{}, nil, err
	}
	_, written, err := b.changeCase(ctx, c, g.Case, func(disclosure.Case) (disclosure.Event, error) {
		if g, err = b.view.Grant(ctx, id); err != nil {
			return disclosure.Event{}, err
		}
		if g.RevokedAt != nil {
			return disclosure.Event{}, errDone
		}
		return disclosure.Event{
			Kind: disclosure.KindGrantRevoked, GrantRevoked: &disclosure.GrantRevoked{Grant: id, Reason: reason},
		}, nil
	})
	if errors.Is(err, errDone) {
		return g, nil, nil
	}
	if err != nil {
		return disclosure.Grant{}, nil, err
	}
	g, err = b.view.Grant(ctx, id)
	return g, &written, err
}

// errDone says that there is nothing left to do.
var errDone = errors.New("broker: done before")
