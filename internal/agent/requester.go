package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
)

// Discloser is the part of the broker that mediates. Both calls are idempotent on the id.
type Discloser interface {
	RequestDisclosure(
		ctx context.Context, id disclosure.RequestID, q disclosure.Query, sealedIdentity []byte,
	) (disclosure.Disclosure, error)
	Explain(ctx context.Context, id disclosure.RequestID, q disclosure.Query) (disclosure.Explanation, disclosure.Receipt, error)
}

// Requester is the asking side.
type Requester struct {
	*Agent
	broker Discloser
}

// NewRequester makes the asking side of an agent.
func NewRequester(a *Agent, broker Discloser) *Requester { return &Requester{Agent: a, broker: broker} }

// Ask is what a professional asks.
type Ask struct {
	ID      disclosure.RequestID // chosen by the caller, so that a retry is the same request; empty: a new one
	Domain  disclosure.Domain    // the hat of the requester
	Case    disclosure.CaseID    // empty outside a case: acute danger, signals
	Source  disclosure.Party
	Purpose disclosure.Purpose
	Fields  []disclosure.Field // CATEGORY.name, or CATEGORY.* for all of a category
	Motive  *disclosure.Motivation
	// Person is who it is about, with a BSN: required outside a case, and refused in one, where the source was told by
	// who opened the case.
	Person *envelope.Identity
}

// Result is a disclosure that was verified in all its parts, or the refusal of one.
type Result struct {
	Request  disclosure.RequestID
	Decision disclosure.Decision
	Outcome  disclosure.Outcome    // empty when the policy denied
	Reason   disclosure.ReasonCode // why there is no answer, on a permit
	Released []disclosure.Field    // by the source
	Withheld []disclosure.Withheld // by the policy, then by the source
	Records  []receipt.Record      // content: show it to who asked, and keep it no longer than Decision.Retention says
	Receipts []string              // files: of the decision and, on a permit, of the outcome
	Timings  Timings
}

// Timings says where the time went.
type Timings struct {
	Ask    time.Duration // sealing, broker and source together
	Verify time.Duration // checking and opening the answer
	Prove  time.Duration // waiting for a checkpoint and checking the receipts
}

// Request asks, waits for the end, and verifies all of it. A denial by the policy and a refusal by the source are results;
// an error means that there is nothing to rely on. Errors wrap [ErrVerification], [ErrNotProven], [ErrBSN], a
// [disclosure.ReasonCode] or [disclosure.ErrMalformed], or are the broker's. After one that is not about the request
// itself, the same ID may be asked again.
func (r *Requester) Request(ctx context.Context, ask Ask) (Result, error) {
	if ask.ID == "" {
		ask.ID = disclosure.RequestID(uuid.NewString())
	}
	result, err := r.request(ctx, ask)
	if err != nil {
		return Result{Request: ask.ID}, err
	}
	return result, nil
}

func (r *Requester) request(ctx context.Context, ask Ask) (Result, error) {
	started := time.Now()
	query, err := r.query(ctx, ask)
	if err != nil {
		return Result{}, err
	}
	sealed, err := r.sealDirect(ctx, ask, query)
	if err != nil {
		return Result{}, err
	}
	d, err := r.broker.RequestDisclosure(ctx, ask.ID, query, sealed)
	if err != nil {
		return Result{}, err
	}
	asked := time.Now()
	decided, err := r.checkDecision(ask.ID, query, d)
	if err != nil {
		return Result{}, err
	}
	result := Result{
		Request: ask.ID, Decision: decided.Decision, Withheld: decided.Decision.Withheld,
		Outcome: d.Outcome, Reason: d.OutcomeReason,
	}
	if decided.Decision.Effect == disclosure.Permit {
		query.Subject = decided.Input.Request.Subject
		if err := r.checkOutcome(ctx, ask.ID, query, d, decided, &result); err != nil {
			return Result{}, err
		}
	}
	verified := time.Now()
	if result.Receipts, err = r.keepReceipts(ctx, ask.ID, d); err != nil {
		return Result{}, err
	}
	result.Timings = Timings{Ask: asked.Sub(started), Verify: verified.Sub(asked), Prove: time.Since(verified)}
	return result, nil
}

// Explain asks what would be decided now, and what is missing. Nothing is asked of a source, and nothing about a person is
// sent but a pseudonym.
func (r *Requester) Explain(ctx context.Context, ask Ask) (disclosure.Explanation, error) {
	if ask.ID == "" {
		ask.ID = disclosure.RequestID(uuid.NewString())
	}
	query, err := r.query(ctx, ask)
	if err != nil {
		return disclosure.Explanation{}, err
	}
	explained, _, err := r.broker.Explain(ctx, ask.ID, query)
	return explained, err
}

// query turns what is asked into what the broker may see.
func (r *Requester) query(ctx context.Context, ask Ask) (disclosure.Query, error) {
	if !r.wears(ask.Domain) {
		return disclosure.Query{}, fmt.Errorf("%w: domain %s is not one of this agent's", disclosure.ReasonHatNotAllowed, ask.Domain)
	}
	query := disclosure.Query{
		Domain: ask.Domain, Case: ask.Case, Source: ask.Source, Purpose: ask.Purpose, Fields: ask.Fields, Motive: ask.Motive,
	}
	switch {
	case ask.Case != "" && ask.Person != nil:
		return disclosure.Query{}, fmt.Errorf("%w: in a case no person is given, since the case says who it is about",
			disclosure.ErrMalformed)
	case ask.Case != "":
		return query, nil
	case ask.Person == nil || ask.Person.BSN == "":
		return disclosure.Query{}, fmt.Errorf("outside a case the person must be given, with citizen service number: %w",
			disclosure.ReasonIdentityMissing)
	}
	bsn, err := r.parseBSN(ask.Person.BSN)
	if err != nil {
		return disclosure.Query{}, err
	}
	query.Subject, err = r.pseudonymOf(ctx, bsn)
	return query, err
}

// sealDirect seals the person's identity to the source, outside a case. Sealing never gives the same bytes twice, and a
// retry must be the same request, byte for byte (I7): so what was sealed is kept for a day. The agent itself cannot open it.
func (r *Requester) sealDirect(ctx context.Context, ask Ask, query disclosure.Query) ([]byte, error) {
	if ask.Person == nil {
		return nil, nil
	}
	statement, err := r.statementOf(ctx, ask.Source.OIN)
	if err != nil {
		return nil, err
	}
	binding := envelope.DirectBinding{
		RequestID: string(ask.ID), Pseudonym: string(query.Subject),
		Source: participant(ask.Source), Requester: string(r.cfg.OIN),
	}
	if sealed, ok := r.sealedBefore(ask.ID, binding); ok {
		return sealed, nil
	}
	sealed, err := r.sealIdentity(*ask.Person, ask.Source, statement, binding)
	if err != nil {
		return nil, err
	}
	return sealed, r.keepSealed(ask.ID, binding, sealed)
}

func mismatch(what string) error { return fmt.Errorf("%w: %s", ErrVerification, what) }

// checkDecision holds the recorded decision against what was asked: the entry counts, not what the broker says beside it.
func (r *Requester) checkDecision(id disclosure.RequestID, q disclosure.Query, d disclosure.Disclosure) (*disclosure.DecisionMade, error) {
	event, err := openEvent(d.DecisionReceipt)
	if err != nil {
		return nil, fmt.Errorf("receipt of the decision: %w", err)
	}
	if event.Kind != disclosure.KindDecisionMade {
		return nil, mismatch("the receipt of the decision is about something else")
	}
	made := event.DecisionMade
	recorded := made.Input.Request
	requester := disclosure.Party{OIN: r.cfg.OIN, Domain: q.Domain}
	switch {
	case d.Request != id || recorded.ID != id:
		return nil, mismatch("the decision is about another request")
	case recorded.Requester != requester || recorded.Source != q.Source || recorded.Purpose != q.Purpose || recorded.Case != q.Case:
		return nil, mismatch("the decision is about other parties, another purpose or another case")
	case q.Case == "" && recorded.Subject != q.Subject:
		return nil, mismatch("the decision is about another person")
	case !slices.Equal(recorded.Fields, q.Fields):
		return nil, mismatch("the decision is about other fields")
	case made.Decision.Effect != d.Decision.Effect:
		return nil, mismatch("the broker says something else than it recorded")
	}
	switch made.Decision.Effect {
	case disclosure.Deny:
		if len(made.Decision.Released) > 0 || len(d.Answer) > 0 || d.Outcome != "" {
			return nil, mismatch("a denial that releases")
		}
	case disclosure.Permit:
		if err := isSubset(made.Decision.Released, q.Fields); err != nil {
			return nil, err
		}
	default:
		return nil, mismatch("a decision without effect")
	}
	return made, nil
}

// isSubset checks that only fields were released that were asked for (I4).
func isSubset(released, asked []disclosure.Field) error {
	for _, f := range released {
		if f.All() || !slices.ContainsFunc(asked, func(a disclosure.Field) bool { return a.Covers(f) }) {
			return mismatch("fields were released that were not asked for")
		}
	}
	return nil
}

// openEvent reads the event of a receipt whose leaf commits to it.
func openEvent(r disclosure.Receipt) (disclosure.Event, error) {
	if err := receipt.Check(r); err != nil {
		return disclosure.Event{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	event, err := disclosure.DecodeEvent(r.Payload)
	if err != nil {
		return disclosure.Event{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	return event, nil
}

// checkOutcome checks the recorded outcome and, where there is an answer, opens it. The query's subject is that of the
// decision.
func (r *Requester) checkOutcome(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query, d disclosure.Disclosure, made *disclosure.DecisionMade,
	result *Result,
) error {
	if d.OutcomeReceipt == nil {
		return mismatch("a permit without a receipt of its outcome")
	}
	event, err := openEvent(*d.OutcomeReceipt)
	if err != nil {
		return fmt.Errorf("receipt of the outcome: %w", err)
	}
	if event.Kind != disclosure.KindOutcomeRecorded {
		return mismatch("the receipt of the outcome is about something else")
	}
	recorded := event.OutcomeRecorded
	if recorded.Request != id || recorded.DecisionIndex != d.DecisionReceipt.Index ||
		recorded.Outcome != d.Outcome || recorded.Reason != d.OutcomeReason {
		return mismatch("the broker says something else than it recorded")
	}
	if recorded.Outcome != disclosure.Disclosed && len(d.Answer) > 0 {
		return mismatch("an answer that was not recorded")
	}
	if len(d.Permit.Payload) == 0 {
		// From the ledger alone, since the answer is no longer kept.
		if recorded.Outcome == disclosure.Disclosed {
			return fmt.Errorf("the answer was given before and is no longer kept; ask again under a new id: %w",
				disclosure.ReasonAnswerGone)
		}
		return nil
	}
	permit, err := r.checkPermit(ctx, id, q, d, made)
	if err != nil {
		return err
	}
	digest := receipt.Digest(d.Permit.Payload)
	if !bytes.Equal(recorded.PermitDigest, digest) || !bytes.Equal(recorded.Manifest, d.Manifest.Payload) {
		return mismatch("permit or manifest is not the recorded one")
	}
	manifest, err := r.checkManifest(permit, digest, d)
	if err != nil {
		return err
	}
	if manifest.Refusal != recorded.Reason || (manifest.Refusal == "") != (recorded.Outcome == disclosure.Disclosed) {
		return mismatch("the recorded outcome is not what the source signed")
	}
	if manifest.Refusal != "" {
		return nil //nolint:nilerr // a refusal is a result
	}
	records, err := r.openAnswer(permit, digest, manifest, d.Answer)
	if err != nil {
		return err
	}
	result.Released, result.Records = manifest.Released, records
	result.Withheld = slices.Concat(made.Decision.Withheld, manifest.Withheld)
	return nil
}

// checkPermit checks that the source was shown what was decided and nothing else.
func (r *Requester) checkPermit(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query, d disclosure.Disclosure, made *disclosure.DecisionMade,
) (receipt.Permit, error) {
	keys, err := r.brokerKeys(ctx)
	if err != nil {
		return receipt.Permit{}, err
	}
	// Judged at the time of the decision: a retry may come minutes after the permit has expired.
	open := func(keys *brokerKeys) (receipt.Permit, error) {
		return receipt.OpenPermit(d.Permit.Payload, d.Permit.Signature, keys.permit, d.DecisionReceipt.Time)
	}
	permit, err := open(keys)
	if errors.Is(err, receipt.ErrSignature) {
		if renewed, ok := r.renewedKeys(ctx, keys); ok {
			permit, err = open(renewed)
		}
	}
	if err != nil {
		return receipt.Permit{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	requester := disclosure.Party{OIN: r.cfg.OIN, Domain: q.Domain}
	switch {
	case permit.Request != id || permit.DecisionIndex != d.DecisionReceipt.Index:
		return receipt.Permit{}, mismatch("the permit is of another request")
	case permit.Requester != requester || permit.Source != q.Source || permit.Purpose != q.Purpose || permit.Case != q.Case:
		return receipt.Permit{}, mismatch("the permit names other parties, another purpose or another case")
	case permit.Subject != q.Subject:
		return receipt.Permit{}, mismatch("the permit is about another person")
	case !slices.Equal(permit.Fields, made.Decision.Released):
		return receipt.Permit{}, mismatch("the permit is not what was decided")
	}
	return permit, nil
}

func (r *Requester) checkManifest(permit receipt.Permit, digest []byte, d disclosure.Disclosure) (receipt.Manifest, error) {
	statement, err := r.verifyStatement(d.SourceStatement, permit.Source.OIN)
	if err != nil {
		return receipt.Manifest{}, fmt.Errorf("keys of the source: %w", err)
	}
	manifest, err := receipt.OpenManifest(d.Manifest.Payload, d.Manifest.Signature, statement.SigningKey)
	if err != nil {
		return receipt.Manifest{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	if err := receipt.CheckManifest(manifest, permit, digest); err != nil {
		return receipt.Manifest{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	if err := receipt.CheckSealed(d.Answer, manifest); err != nil {
		return receipt.Manifest{}, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	return manifest, nil
}

func (r *Requester) openAnswer(
	permit receipt.Permit, digest []byte, manifest receipt.Manifest, sealed []byte,
) ([]receipt.Record, error) {
	binding := envelope.AnswerBinding{
		PermitDigest: digest, Requester: string(permit.Requester.OIN), Source: string(permit.Source.OIN),
	}
	content, err := envelope.Open(r.cfg.EnvelopeKey, binding.Info(), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: answer: %w", ErrVerification, err)
	}
	defer clear(content)
	answer, err := receipt.DecodeAnswer(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	if err := receipt.CheckAnswer(answer, manifest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, err)
	}
	return answer.Records, nil
}

// keepReceipts proves and saves the receipts. Their events were checked before, so that no time is spent waiting for the
// proof of something that is wrong. The outcome comes first: the checkpoint that covers it covers the decision too.
func (r *Requester) keepReceipts(ctx context.Context, id disclosure.RequestID, d disclosure.Disclosure) ([]string, error) {
	var outcome []string
	if d.OutcomeReceipt != nil {
		path, err := r.keep(ctx, string(id)+"-outcome", *d.OutcomeReceipt)
		if err != nil {
			return nil, err
		}
		outcome = []string{path}
	}
	decision, err := r.keep(ctx, string(id)+"-decision", d.DecisionReceipt)
	if err != nil {
		return nil, err
	}
	return append([]string{decision}, outcome...), nil
}
