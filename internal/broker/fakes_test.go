package broker_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

// rules is a policy by simple rules. It looks at times as the real policy does: what was revoked, withdrawn or closed after the time of
// the decision does not count yet.
//
//	DANGER     outside a case: everything
//	CASE_TALK  in a case: what a grant allows
//	CONSENTED  the same, with the data subject's consent recorded in the case
//	COVENANT   outside a case: everything, with a covenant that either organisation recorded
type rules struct {
	digest string

	mu      sync.Mutex
	before  func(disclosure.DecisionInput) // called before each decision
	distort func(*disclosure.Decision)     // called after it
	err     error                          // instead of a decision
}

func (r *rules) set(change func(*rules)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

func (r *rules) Decide(_ context.Context, in disclosure.DecisionInput) (disclosure.Decision, error) {
	r.mu.Lock()
	before, distort, err, digest := r.before, r.distort, r.err, r.digest
	r.mu.Unlock()
	if before != nil {
		before(in)
	}
	if err != nil {
		return disclosure.Decision{}, err
	}
	d := judge(in)
	d.PolicyDigest = digest
	if distort != nil {
		distort(&d)
	}
	return d, nil
}

func (r *rules) Explain(ctx context.Context, in disclosure.DecisionInput) (disclosure.Explanation, error) {
	d, err := r.Decide(ctx, in)
	return disclosure.Explanation{Decision: d, Rows: []disclosure.RowExplanation{{Row: "LB-001"}}}, err
}

func (r *rules) CheckGrant(_ disclosure.Case, g disclosure.Grant) error {
	if !slices.Contains([]disclosure.Purpose{"CASE_TALK", "CONSENTED"}, g.Purpose) {
		return fmt.Errorf("grant: %w", disclosure.ReasonNoRow)
	}
	return nil
}

func (r *rules) CheckEvidence(e disclosure.Evidence, roles []disclosure.Role) error {
	switch {
	case !slices.Contains([]disclosure.Condition{"CONS", "COVENANT"}, e.Kind):
		return fmt.Errorf("evidence: %w", disclosure.ReasonUnknownCode)
	case !slices.Contains(roles, disclosure.RoleProfessional):
		return fmt.Errorf("evidence: %w", disclosure.ReasonRoleNotAllowed)
	case e.Kind == "CONS" && e.Subject == "":
		return fmt.Errorf("evidence: %w", disclosure.ReasonConsentWrongPerson)
	}
	return nil
}

// fields is what the categories of the tests consist of.
func fields() []disclosure.Field {
	return []disclosure.Field{
		"CONT.address", "CONT.city", "CONT.email", "CONT.phone", "CONT.postcode", "HEALTH.allergies", "HEALTH.doctor", "HEALTH.hospital",
		"HEALTH.medication", "POLNUIS.date", "POLNUIS.kind", "POLNUIS.place",
	}
}

func judge(in disclosure.DecisionInput) disclosure.Decision {
	deny := func(code disclosure.ReasonCode) disclosure.Decision {
		return disclosure.Decision{Effect: disclosure.Deny, Reasons: []disclosure.Reason{{Code: code}}}
	}
	if in.Request.Case != "" {
		if code := judgeCase(in); code != "" {
			return deny(code)
		}
	}
	until := in.Time.Add(24 * time.Hour)
	allowed := fields()
	switch in.Request.Purpose {
	case "DANGER":
		if in.Request.Case != "" {
			return deny(disclosure.ReasonPurposeMismatch)
		}
	case "COVENANT":
		if !held(in, "COVENANT", &until) {
			return deny(disclosure.ReasonEvidenceMissing)
		}
	case "CONSENTED":
		if !held(in, "CONS", &until) {
			return deny(disclosure.ReasonConsentMissing)
		}
		fallthrough
	case "CASE_TALK":
		if allowed = granted(in, &until); allowed == nil {
			return deny(disclosure.ReasonNoGrant)
		}
	default:
		return deny(disclosure.ReasonNoRow)
	}
	d := disclosure.Decision{Effect: disclosure.Permit, Rows: []disclosure.RowID{"LB-001"}, Articles: []string{"AVG 6(1)(e)"}, ValidUntil: &until}
	for _, f := range fields() {
		switch {
		case !slices.ContainsFunc(in.Request.Fields, func(asked disclosure.Field) bool { return asked.Covers(f) }):
		case slices.Contains(allowed, f):
			d.Released = append(d.Released, f)
		default:
			d.Withheld = append(d.Withheld, disclosure.Withheld{Field: f, Reason: disclosure.Reason{Code: disclosure.ReasonNotGranted}})
		}
	}
	if len(d.Released) == 0 {
		return deny(disclosure.ReasonNotGranted)
	}
	return d
}

func judgeCase(in disclosure.DecisionInput) disclosure.ReasonCode {
	switch c := in.Case; {
	case c == nil || !c.Has(in.Request.Requester) || !c.Has(in.Request.Source):
		return disclosure.ReasonNotMember
	case c.ClosedAt != nil && !in.Time.Before(*c.ClosedAt), c.Phase < "F1", c.Phase > "F6":
		return disclosure.ReasonWrongPhase
	case c.Subject != in.Request.Subject:
		return disclosure.ReasonThirdPerson
	}
	return ""
}

// granted returns what the grants that hold allow.
func granted(in disclosure.DecisionInput, until *time.Time) []disclosure.Field {
	allowed := map[disclosure.Field]bool{}
	for _, g := range in.Grants {
		revoked := g.RevokedAt != nil && !g.RevokedAt.After(in.Time)
		if in.Case == nil || revoked || in.Time.Before(g.NotBefore) || !in.Time.Before(g.ExpiresAt) || g.Purpose != in.Request.Purpose ||
			g.Source != in.Request.Source || g.Recipient != in.Request.Requester ||
			in.Case.Phase < g.FirstPhase || in.Case.Phase > g.LastPhase {
			continue
		}
		if g.ExpiresAt.Before(*until) {
			*until = g.ExpiresAt
		}
		for _, f := range fields() {
			if slices.ContainsFunc(g.Fields, func(of disclosure.Field) bool { return of.Covers(f) }) {
				allowed[f] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(allowed))
}

func held(in disclosure.DecisionInput, kind disclosure.Condition, until *time.Time) bool {
	found := false
	for _, e := range in.Evidence {
		withdrawn := e.WithdrawnAt != nil && !e.WithdrawnAt.After(in.Time)
		if e.Kind == kind && !withdrawn && !in.Time.Before(e.ValidFrom) && in.Time.Before(e.ValidUntil) && e.Case == in.Request.Case {
			found = true
			if e.ValidUntil.Before(*until) {
				*until = e.ValidUntil
			}
		}
	}
	return found
}

// script is what a source does with a permit.
type script func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error)

// sources answers for every organisation. Whatever the script, it first holds the broker to its invariants: what it asks must be in the
// ledger, on disk, and what it shows must be what was decided.
type sources struct {
	w *world

	mu     sync.Mutex
	script script // nil: answer
	asked  map[disclosure.RequestID]int
}

func (s *sources) act(by script) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = by
}

// times returns how often a request reached its source.
func (s *sources) times(id disclosure.RequestID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[id]
}

func (s *sources) Ask(ctx context.Context, source disclosure.Party, q disclosure.Question) (disclosure.Reply, error) {
	public, ok := s.w.permits.Public().(ed25519.PublicKey)
	if !ok {
		return disclosure.Reply{}, errors.New("no permit key")
	}
	p, err := receipt.OpenPermit(q.Permit.Payload, q.Permit.Signature, public, s.w.clock.Now())
	if err != nil {
		s.w.t.Errorf("source was shown a permit that does not hold: %v", err)
		return disclosure.Reply{}, err
	}
	if err := s.check(source, p, q); err != nil {
		s.w.t.Errorf("source was asked too much or too soon: %v", err)
	}
	s.mu.Lock()
	if s.asked == nil {
		s.asked = map[disclosure.RequestID]int{}
	}
	s.asked[p.Request]++
	script := s.script
	s.mu.Unlock()
	if script == nil {
		script = s.answer
	}
	return script(ctx, p, q)
}

func (s *sources) check(source disclosure.Party, p receipt.Permit, q disclosure.Question) error {
	e, at, err := s.w.onDisk(p.DecisionIndex)
	if err != nil {
		return fmt.Errorf("decision is not on disk: %w", err)
	}
	made := e.DecisionMade
	if made == nil || made.Decision.Effect != disclosure.Permit {
		return fmt.Errorf("entry is a %s and no permit", e.Kind)
	}
	request := made.Input.Request
	identityWanted := []byte("identity sealed to the source")
	if p.Case != "" {
		identityWanted = identity(p.Case, source)
	}
	statement := sha256.Sum256(q.RequesterStatement)
	switch {
	case p.Source != source:
		return errors.New("permit is for another source")
	case p.Request != request.ID || p.Case != request.Case || p.Subject != request.Subject || p.Requester != request.Requester ||
		p.Person != request.Person || p.Source != request.Source || p.Purpose != request.Purpose:
		return errors.New("permit is not the request as decided")
	case !slices.Equal(p.Fields, made.Decision.Released):
		return errors.New("permit is of other fields than decided")
	case p.ExpiresAt.After(*made.Decision.ValidUntil) || !p.IssuedAt.Equal(at):
		return errors.New("permit is valid longer than decided")
	case !bytes.Equal(statement[:], made.RequesterKeys) || !bytes.Equal(statement[:], p.RequesterStatement):
		return errors.New("requester's keys are not those of the decision")
	case !bytes.Equal(q.SealedIdentity, identityWanted):
		return errors.New("identity is not the one sealed to the source")
	}
	return nil
}

// manifest is what an honest source says of a permit that it answers in full.
func (s *sources) manifest(p receipt.Permit, q disclosure.Question, answer []byte) receipt.Manifest {
	return receipt.Manifest{
		Permit: receipt.Digest(q.Permit.Payload), Request: p.Request, Source: p.Source, Requester: p.Requester,
		Released: p.Fields, AnswerDigest: receipt.Digest(answer), AnsweredAt: s.w.clock.Now(),
	}
}

// sign makes a reply of a manifest, signed by an organisation.
func (s *sources) sign(by disclosure.OIN, m receipt.Manifest, answer []byte) (disclosure.Reply, error) {
	signed, err := receipt.SignManifest(m, s.w.orgs[by].signing)
	return disclosure.Reply{Manifest: signed, Answer: answer}, err
}

// sealedAnswer is what the source sealed for a request.
func sealedAnswer(id disclosure.RequestID) []byte { return []byte("sealed answer to " + string(id)) }

// answer is the honest script.
func (s *sources) answer(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
	return s.sign(p.Source.OIN, s.manifest(p, q, sealedAnswer(p.Request)), sealedAnswer(p.Request))
}

// refuse makes a source refuse with that reason.
func (s *sources) refuse(code disclosure.ReasonCode) script {
	return func(_ context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		m := s.manifest(p, q, nil)
		m.Released, m.AnswerDigest, m.Refusal = nil, nil, code
		return s.sign(p.Source.OIN, m, nil)
	}
}

// fail makes a source that gives nothing.
func fail(err error) script {
	return func(context.Context, receipt.Permit, disclosure.Question) (disclosure.Reply, error) {
		return disclosure.Reply{}, err
	}
}

// offline is what the relay says when no agent is connected.
func offline() error { return fmt.Errorf("relay: %w", disclosure.ReasonSourceOffline) }

// hold makes a source wait: it says on the first channel that it was asked, and then does as the script says that it is sent.
func hold() (asked <-chan receipt.Permit, act chan<- script, by script) {
	arrived, next := make(chan receipt.Permit, 64), make(chan script, 64)
	return arrived, next, func(ctx context.Context, p receipt.Permit, q disclosure.Question) (disclosure.Reply, error) {
		arrived <- p
		select {
		case by := <-next:
			return by(ctx, p, q)
		case <-ctx.Done():
			return disclosure.Reply{}, ctx.Err()
		}
	}
}
