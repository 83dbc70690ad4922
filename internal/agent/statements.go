package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

const (
	// statementTerm is how long the own key statement is valid, unless the certificate ends earlier.
	statementTerm = 30 * 24 * time.Hour
	// renewBefore is how long before its end a statement is replaced.
	renewBefore = 10 * 24 * time.Hour
	// statementCheck is how often the own statement is looked at, and statementRetry how soon again after a failure.
	statementCheck = time.Hour
	statementRetry = 10 * time.Second
	// statementOverlap is how long an older statement is still accepted after a newer one of the same organisation was
	// seen: a permit may name the older one until it expires.
	statementOverlap = disclosure.PermitTerm + 2*disclosure.ClockSkew
)

// newestStatements remembers the newest statement of each organisation, so that the broker cannot go back to an older one,
// whose key may have been lost.
type newestStatements struct {
	mu             sync.Mutex // guards all below
	byOrganisation map[disclosure.OIN]newestStatement
}

type newestStatement struct {
	notBefore time.Time
	seen      time.Time // first
}

// accept reports whether a verified statement is the newest that was seen, or has only just been replaced.
func (n *newestStatements) accept(s envelope.Statement, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	oin := disclosure.OIN(s.Organisation)
	newest, ok := n.byOrganisation[oin]
	if !ok || s.NotBefore.After(newest.notBefore) {
		n.byOrganisation[oin] = newestStatement{notBefore: s.NotBefore, seen: now}
		return true
	}
	return s.NotBefore.Equal(newest.notBefore) || now.Sub(newest.seen) <= statementOverlap
}

// verifyStatement verifies another organisation's key statement. Errors wrap [ErrVerification].
func (a *Agent) verifyStatement(signed []byte, oin disclosure.OIN) (envelope.Statement, error) {
	now := a.cfg.Now()
	s, err := a.statements.Verify(signed, now)
	switch {
	case err != nil:
		return envelope.Statement{}, fmt.Errorf("%w: %w", ErrVerification, err)
	case s.Organisation != string(oin):
		return envelope.Statement{}, fmt.Errorf("%w: key statement of another organisation", ErrVerification)
	case !a.newest.accept(s, now):
		return envelope.Statement{}, fmt.Errorf("%w: key statement older than one that was seen before", ErrVerification)
	}
	return s, nil
}

// statementOf fetches and verifies the key statement of an organisation in the directory.
func (a *Agent) statementOf(ctx context.Context, oin disclosure.OIN) (envelope.Statement, error) {
	organisation, err := a.cfg.Directory.Organisation(ctx, oin)
	if err != nil {
		return envelope.Statement{}, fmt.Errorf("get the keys of organisation %s: %w", oin, err)
	}
	if len(organisation.Statement) == 0 {
		return envelope.Statement{}, fmt.Errorf("organisation %s has not published its keys yet; its agent must be started: %w",
			oin, disclosure.ReasonKeyStatementInvalid)
	}
	return a.verifyStatement(organisation.Statement, oin)
}

// EnsureStatement publishes the own key statement, unless one with these keys is published and not about to end. Both
// sides need it: others seal to its envelope key, and verify manifests with its signing key.
func (a *Agent) EnsureStatement(ctx context.Context) error {
	now := a.cfg.Now()
	own, err := a.cfg.Directory.Organisation(ctx, a.cfg.OIN)
	if err != nil {
		return fmt.Errorf("get the own entry of the directory: %w", err)
	}
	wanted, err := a.ownStatement(now)
	if err != nil {
		return err
	}
	published, err := envelope.VerifyStatement(own.Statement, a.cfg.Trust, now)
	// Near the end of the certificate no statement can last longer than the one that is there.
	if err == nil && published.Organisation == wanted.Organisation &&
		published.EnvelopeKey.Equal(wanted.EnvelopeKey) && published.SigningKey.Equal(wanted.SigningKey) &&
		(published.NotAfter.Sub(now) > renewBefore || !wanted.NotAfter.After(published.NotAfter)) {
		return nil
	}
	signed, err := envelope.SignStatement(wanted, a.cfg.TLSKey, a.cfg.Chain)
	if err != nil {
		return fmt.Errorf("sign the key statement: %w", err)
	}
	if _, err := a.cfg.Directory.PublishStatement(ctx, signed); err != nil {
		return fmt.Errorf("publish the key statement: %w", err)
	}
	a.cfg.Log.InfoContext(ctx, "published the key statement", slog.Time("until", wanted.NotAfter))
	return nil
}

// ownStatement is valid from now on, for as long as the certificate allows.
func (a *Agent) ownStatement(now time.Time) (envelope.Statement, error) {
	signingKey, ok := a.cfg.SigningKey.Public().(ed25519.PublicKey)
	if !ok || len(a.cfg.Chain) == 0 {
		return envelope.Statement{}, fmt.Errorf("key statement: %w", envelope.ErrSigner)
	}
	leaf, err := x509.ParseCertificate(a.cfg.Chain[0])
	if err != nil {
		return envelope.Statement{}, fmt.Errorf("own certificate: %w", err)
	}
	from := now.UTC().Truncate(time.Second)
	until := from.Add(statementTerm)
	if leaf.NotAfter.Before(until) {
		until = leaf.NotAfter
	}
	return envelope.Statement{
		Organisation: string(a.cfg.OIN), EnvelopeKey: a.cfg.EnvelopeKey.PublicKey(), SigningKey: signingKey,
		NotBefore: from, NotAfter: until.UTC().Truncate(time.Second),
	}, nil
}

// KeepStatement publishes the own key statement and renews it in time, until ctx ends.
func (a *Agent) KeepStatement(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		pause := statementCheck
		if err := a.EnsureStatement(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.WarnContext(ctx, "could not publish the key statement; trying again", slog.Any("error", err))
			pause = statementRetry
		}
		timer.Reset(pause)
	}
}
