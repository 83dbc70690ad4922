package agent

import (
	"context"
	"fmt"
	"sync"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/pseudonym"
)

// parseBSN accepts the BSN of a person in production, and that of nobody in a test.
func (a *Agent) parseBSN(digits string) (pseudonym.BSN, error) {
	bsn, err := pseudonym.ParseBSN(digits)
	switch {
	case err != nil:
		return pseudonym.BSN{}, fmt.Errorf("%w: it must be nine digits that pass the 11-test", ErrBSN)
	case a.cfg.TestBSN && !bsn.IsTest():
		return pseudonym.BSN{}, fmt.Errorf("%w: this agent runs with test_bsn and takes numbers 9999xxxxx only", ErrBSN)
	case !a.cfg.TestBSN && bsn.IsTest():
		return pseudonym.BSN{}, fmt.Errorf("%w: numbers 9999xxxxx are nobody's, and are for agents with test_bsn only", ErrBSN)
	}
	return bsn, nil
}

const maxCachedPseudonyms = 10_000

// pseudonymCache spares the budget: the persons a source is asked about come back. In memory only, and bounded.
type pseudonymCache struct {
	size int

	mu      sync.Mutex // guards all below
	version uint32     // of the key that made them
	known   map[pseudonym.BSN]disclosure.Pseudonym
}

func (c *pseudonymCache) get(bsn pseudonym.BSN, version uint32) (disclosure.Pseudonym, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		return "", false
	}
	p, ok := c.known[bsn]
	return p, ok
}

func (c *pseudonymCache) put(bsn pseudonym.BSN, version uint32, p disclosure.Pseudonym) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		clear(c.known)
		c.version = version
	}
	for other := range c.known { // any one will do
		if len(c.known) < c.size {
			break
		}
		delete(c.known, other)
	}
	c.known[bsn] = p
}

// pseudonymOf makes the pseudonym of a BSN with the broker, which learns nothing about it.
func (a *Agent) pseudonymOf(ctx context.Context, bsn pseudonym.BSN) (disclosure.Pseudonym, error) {
	keys, err := a.brokerKeys(ctx)
	if err != nil {
		return "", err
	}
	version := keys.pseudonyms.Version()
	if p, ok := a.pseudonyms.get(bsn, version); ok {
		return p, nil
	}
	pending, blinded, err := keys.pseudonyms.Blind(bsn)
	if err != nil {
		return "", fmt.Errorf("make a pseudonym: %w", err)
	}
	evaluated, err := a.cfg.Evaluator.EvaluatePseudonyms(ctx, blinded)
	if err != nil {
		return "", fmt.Errorf("make a pseudonym: %w", err)
	}
	ids, err := pending.Finalize(pseudonym.Evaluation{Elements: evaluated.Elements, Proof: evaluated.Proof})
	if err != nil {
		return "", fmt.Errorf("%w: make a pseudonym: %w", ErrVerification, err)
	}
	p := disclosure.Pseudonym(ids[0])
	a.pseudonyms.put(bsn, version, p)
	return p, nil
}

// participant names an organisation in one of its hats in a binding: OIN, slash, domain.
func participant(p disclosure.Party) string { return string(p.OIN) + "/" + string(p.Domain) }

// sealIdentity seals who the person is to the party that the statement is of, with the BSN only where that party may
// hold it in that hat.
func (a *Agent) sealIdentity(
	person envelope.Identity, to disclosure.Party, s envelope.Statement, binding envelope.IdentityContext,
) ([]byte, error) {
	if !a.cfg.MayHoldBSN(to.Domain) {
		person.BSN = ""
		if person.FamilyName == "" || person.BirthDate == "" {
			return nil, fmt.Errorf("%s may not hold a citizen service number, so it needs family name and birth date: %w",
				to.Domain, disclosure.ReasonIdentityMissing)
		}
	}
	sealed, err := envelope.SealIdentity(s.EnvelopeKey, binding, person, a.cfg.TLSKey, a.cfg.Chain)
	if err != nil {
		return nil, fmt.Errorf("seal the identity: %w", err)
	}
	return sealed, nil
}
