package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sluis/internal/disclosure"
)

// publishKeys records the broker's public keys if the ledger holds others or none.
func (b *Broker) publishKeys(ctx context.Context) error {
	known, err := b.view.BrokerKeys(ctx)
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return err
	}
	k, now := known.Value, b.cfg.Keys
	if err == nil && k.OIN == now.OIN && k.Origin == now.Origin && k.LedgerKey == now.LedgerKey &&
		bytes.Equal(k.PermitKey, now.PermitKey) && bytes.Equal(k.PseudonymKey, now.PseudonymKey) &&
		k.PseudonymVersion == now.PseudonymVersion && k.PseudonymBudget == now.PseudonymBudget {
		return nil
	}
	_, err = b.append(ctx, disclosure.Event{
		Kind: disclosure.KindBrokerKeys, By: disclosure.Party{OIN: b.cfg.OIN}, BrokerKeys: &now,
	})
	return err
}

// activatePolicy records which policy decides from now on, if it is another one than before.
func (b *Broker) activatePolicy(ctx context.Context) error {
	active, _, err := b.view.Policy(ctx)
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return err
	}
	if active.Digest == b.cfg.PolicyDigest {
		return nil
	}
	_, err = b.append(ctx, disclosure.Event{
		Kind: disclosure.KindPolicyActivated, By: disclosure.Party{OIN: b.cfg.OIN},
		PolicyActivated: &disclosure.PolicyActivated{Digest: b.cfg.PolicyDigest, Revision: b.cfg.PolicyRevision},
	})
	return err
}

// AddPartner puts an organisation in the directory, or changes it. It is for the operator, at the broker itself.
func (b *Broker) AddPartner(ctx context.Context, p disclosure.Partner) (disclosure.Receipt, error) {
	if _, err := disclosure.ParseOIN(string(p.OIN)); err != nil {
		return disclosure.Receipt{}, err
	}
	if len(p.Domains) == 0 || len(p.Domains) > 20 || p.Name == "" || len(p.Name) > 200 || len(p.Issuer) > 500 {
		return disclosure.Receipt{}, fmt.Errorf(
			"%w: a partner has a name, 1 to 20 domains and an issuer of at most 500 characters", disclosure.ErrMalformed)
	}
	return b.append(ctx, disclosure.Event{
		Kind: disclosure.KindPartnerAdded, By: disclosure.Party{OIN: b.cfg.OIN}, PartnerAdded: &p,
	})
}

// BrokerKeys returns the entry that published the broker's public keys.
func (b *Broker) BrokerKeys(ctx context.Context) (disclosure.Receipt, error) {
	known, err := b.view.BrokerKeys(ctx)
	if err != nil {
		return disclosure.Receipt{}, err
	}
	written, _, err := b.read(ctx, known.Index)
	return written, err
}

// Partner returns an organisation of the directory without its keys. What it returns must not be modified.
func (b *Broker) Partner(ctx context.Context, oin disclosure.OIN) (*disclosure.Partner, error) {
	return b.view.Partner(ctx, oin)
}

// Issuer returns the organisation whose people an issuer of tokens signs for. What it returns must not be modified.
func (b *Broker) Issuer(ctx context.Context, iss string) (*disclosure.Partner, error) {
	return b.view.Issuer(ctx, iss)
}

// Organisation returns an organisation with its key statement, if it published one.
func (b *Broker) Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error) {
	return b.view.Organisation(ctx, oin)
}

// Organisations lists the directory.
func (b *Broker) Organisations(ctx context.Context, after string, limit int) ([]disclosure.Organisation, string, error) {
	return b.view.Organisations(ctx, after, limit)
}

// PublishStatement publishes the caller's own key statement, once verified. Without a receipt, it was published before.
func (b *Broker) PublishStatement(ctx context.Context, c disclosure.Caller, signed []byte) (*disclosure.Receipt, error) {
	if len(signed) > disclosure.MaxStatement {
		return nil, fmt.Errorf("too large: %w", disclosure.ReasonKeyStatementInvalid)
	}
	statement, err := b.cfg.VerifyStatement(signed, b.now())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", disclosure.ReasonKeyStatementInvalid, err)
	}
	if statement.Organisation != c.Organisation {
		return nil, fmt.Errorf("of another organisation: %w", disclosure.ReasonKeyStatementInvalid)
	}
	published, _, err := b.view.Statement(ctx, c.Organisation)
	if err == nil && bytes.Equal(published.Statement, signed) {
		return nil, nil
	}
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return nil, err
	}
	written, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindStatementPublished, Actor: c.Person, By: disclosure.Party{OIN: c.Organisation},
		StatementPublished: &disclosure.StatementPublished{Statement: signed, NotAfter: statement.NotAfter.UTC()},
	})
	if err != nil {
		return nil, err
	}
	return &written, nil
}

// EvaluatePseudonyms evaluates blinded elements, within the organisation's budget of the day. The count is recorded before the evaluation
// is handed out.
func (b *Broker) EvaluatePseudonyms(
	ctx context.Context, c disclosure.Caller, blinded [][]byte,
) (disclosure.Evaluation, error) {
	elements, proof, err := b.cfg.Evaluate(blinded)
	if err != nil {
		return disclosure.Evaluation{}, fmt.Errorf("%w: blinded elements", disclosure.ErrMalformed)
	}
	day := b.now().UTC().Format(time.DateOnly)
	_, err = b.append(ctx, disclosure.Event{
		Kind: disclosure.KindPseudonymsMade, Actor: c.Person, By: disclosure.Party{OIN: c.Organisation},
		PseudonymsMade: &disclosure.PseudonymsMade{Count: len(blinded), Day: day},
	})
	if err != nil {
		return disclosure.Evaluation{}, err
	}
	spent, err := b.view.Budget(ctx, c.Organisation, day)
	if err != nil {
		return disclosure.Evaluation{}, err
	}
	return disclosure.Evaluation{
		Elements: elements, Proof: proof, KeyVersion: b.cfg.Keys.PseudonymVersion,
		RemainingBudget: b.cfg.Keys.PseudonymBudget - spent,
	}, nil
}
