package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
	"sluis/internal/receipt"
)

type flightKey struct {
	oin disclosure.OIN
	id  disclosure.RequestID
}

// flight is one disclosure under way. A retry that comes in meanwhile waits for the same end.
type flight struct {
	bodyDigest []byte
	done       chan struct{}
	result     disclosure.Disclosure // valid once done is closed
	err        error                 // valid once done is closed
}

// RequestDisclosure mediates one disclosure. It is idempotent on id: with the same bodyDigest (SHA-256 of the request as received) it gives
// what was decided and recorded, and with another one it refuses. A denial, and a refusal by the source, are results and no errors. After
// an error nothing was released, and the same id may be tried again.
//
// Once begun, a disclosure runs to its end, whether or not the caller is still there to hear of it.
func (b *Broker) RequestDisclosure(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, sealedIdentity, bodyDigest []byte,
) (disclosure.Disclosure, error) {
	request, err := b.request(ctx, c, id, q)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	switch {
	case q.Case == "" && (len(sealedIdentity) == 0 || len(sealedIdentity) > disclosure.MaxSealed):
		return disclosure.Disclosure{}, fmt.Errorf("outside a case: %w", disclosure.ReasonIdentityMissing)
	case q.Case != "" && len(sealedIdentity) > 0:
		return disclosure.Disclosure{}, fmt.Errorf("%w: in a case no identity is sent", disclosure.ErrMalformed)
	}
	key := flightKey{c.Organisation, id}
	b.mu.Lock()
	f, joined := b.flights[key]
	if !joined {
		f = &flight{bodyDigest: bodyDigest, done: make(chan struct{})}
		b.flights[key] = f
		b.running.Add(1)
	}
	b.mu.Unlock()
	switch {
	case joined && !bytes.Equal(f.bodyDigest, bodyDigest):
		return disclosure.Disclosure{}, fmt.Errorf("under way: %w", disclosure.ReasonRequestIDReused)
	case !joined:
		go b.fly(context.WithoutCancel(ctx), key, f, request, sealedIdentity)
	}
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return disclosure.Disclosure{}, ctx.Err()
	}
}

// fly carries a disclosure to its end, within the time that its parts may take.
func (b *Broker) fly(ctx context.Context, key flightKey, f *flight, request disclosure.Request, sealedIdentity []byte) {
	defer b.running.Done()
	ctx, cancel := context.WithTimeout(ctx, b.cfg.SourceTimeout+disclosure.PermitTerm)
	defer cancel()
	f.result, f.err = b.mediate(ctx, request, sealedIdentity, f.bodyDigest)
	b.mu.Lock()
	delete(b.flights, key)
	b.mu.Unlock()
	close(f.done)
}

// request checks what a caller may ask in whose name, and completes it. What the law says about it is for the policy.
func (b *Broker) request(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query,
) (disclosure.Request, error) {
	requester := disclosure.Party{OIN: c.Organisation, Domain: q.Domain}
	if err := b.mayWear(ctx, c, requester); err != nil {
		return disclosure.Request{}, err
	}
	if err := b.known(ctx, q.Source); err != nil {
		return disclosure.Request{}, err
	}
	if (q.Case == "") == (q.Subject == "") {
		return disclosure.Request{}, fmt.Errorf("%w: either a case or, outside a case, a pseudonym", disclosure.ErrMalformed)
	}
	request := disclosure.Request{
		ID: id, Requester: requester, Source: q.Source, Person: c.Person, Roles: c.Roles,
		Case: q.Case, Subject: q.Subject, Purpose: q.Purpose, Fields: q.Fields, Motive: q.Motive,
	}
	return request, request.Validate()
}

// mayWear checks that a person acts for an organisation in one of its hats.
func (b *Broker) mayWear(ctx context.Context, c disclosure.Caller, p disclosure.Party) error {
	if err := b.known(ctx, p); err != nil {
		return err
	}
	if c.Person == "" || p.OIN != c.Organisation || !slices.Contains(c.Domains, p.Domain) {
		return fmt.Errorf("caller: %w", disclosure.ReasonHatNotAllowed)
	}
	return nil
}

// known checks that an organisation is in the directory and has that hat.
func (b *Broker) known(ctx context.Context, p disclosure.Party) error {
	partner, err := b.view.Partner(ctx, p.OIN)
	switch {
	case errors.Is(err, disclosure.ReasonNotFound):
		return fmt.Errorf("party: %w", disclosure.ReasonUnknownOrganisation)
	case err != nil:
		return err
	case !slices.Contains(partner.Domains, p.Domain):
		return fmt.Errorf("party: %w", disclosure.ReasonHatNotAllowed)
	}
	return nil
}

func (b *Broker) mediate(
	ctx context.Context, request disclosure.Request, sealedIdentity, bodyDigest []byte,
) (disclosure.Disclosure, error) {
	recorded, ended, err := b.recorded(ctx, request, bodyDigest)
	if err != nil || ended {
		return recorded, err
	}
	statement, err := b.view.Statement(ctx, request.Requester.OIN)
	if err != nil {
		return disclosure.Disclosure{}, fmt.Errorf("requester: %w: %w", disclosure.ReasonKeyStatementInvalid, err)
	}
	if !b.now().Before(statement.NotAfter) {
		return disclosure.Disclosure{}, fmt.Errorf("requester: expired: %w", disclosure.ReasonKeyStatementInvalid)
	}
	keys := sha256.Sum256(statement.Statement)
	made, d, err := b.decide(ctx, request, bodyDigest, keys[:])
	if err != nil || d.Decision.Effect != disclosure.Permit {
		return d, err
	}
	e := b.ask(ctx, made, &d, statement.Statement, sealedIdentity)
	outcome, err := b.append(ctx, e)
	if err != nil {
		// The decision stays without an outcome until the next start, which closes it as abandoned. Nothing was released.
		return disclosure.Disclosure{}, fmt.Errorf("outcome: %w", err)
	}
	d.OutcomeReceipt = &outcome
	if d.Outcome == disclosure.Failed {
		return disclosure.Disclosure{}, fmt.Errorf("source: %w", d.OutcomeReason)
	}
	b.answers.put(flightKey{request.Requester.OIN, request.ID}, d, b.now())
	return d, nil
}

// decision is a decision as written.
type decision struct {
	request disclosure.Request
	theCase *disclosure.Case
	keys    []byte
	at      time.Time // of the entry
}

// decide lets the policy decide and writes the decision, as often as it takes to write it while what it was made from still holds.
func (b *Broker) decide(
	ctx context.Context, request disclosure.Request, bodyDigest, keys []byte,
) (decision, disclosure.Disclosure, error) {
	var made decision
	d, err := retry(ctx, func() (disclosure.Disclosure, error) {
		in, expect, err := b.input(ctx, request)
		if err != nil {
			return disclosure.Disclosure{}, err
		}
		verdict, err := b.cfg.Policy.Decide(ctx, in)
		if err != nil {
			return disclosure.Disclosure{}, err
		}
		e := disclosure.Event{
			Kind: disclosure.KindDecisionMade, Actor: request.Person, By: request.Requester, Case: caseOf(in),
			DecisionMade: &disclosure.DecisionMade{BodyDigest: bodyDigest, Input: in, Decision: verdict, RequesterKeys: keys},
		}
		written, err := b.append(ctx, e, expect...)
		if err != nil {
			return disclosure.Disclosure{}, fmt.Errorf("decision: %w", err)
		}
		made = decision{request: in.Request, theCase: in.Case, keys: keys, at: written.Time}
		return disclosure.Disclosure{Request: request.ID, Decision: verdict, DecisionReceipt: written}, nil
	})
	return made, d, err
}

// caseOf names the case whose key seals a decision: none if the case does not exist.
func caseOf(in disclosure.DecisionInput) disclosure.CaseID {
	if in.Case == nil {
		return ""
	}
	return in.Case.ID
}

// input gathers what the policy is told, and what must still hold when the decision is written: the case or organisations it was read
// from, and the policy itself. A case that does not exist is decided like one in which the requester takes no part, so that nobody learns
// which cases there are.
func (b *Broker) input(ctx context.Context, request disclosure.Request) (disclosure.DecisionInput, []ledger.Version, error) {
	active, version, err := b.view.Policy(ctx)
	switch {
	case err != nil:
		return disclosure.DecisionInput{}, nil, fmt.Errorf("%w: %w", disclosure.ReasonPolicyUnavailable, err)
	case active.Digest != b.cfg.PolicyDigest:
		return disclosure.DecisionInput{}, nil, fmt.Errorf("another policy is active: %w", disclosure.ReasonPolicyUnavailable)
	}
	facts, err := b.view.Facts(ctx, request.Case, request.Source, request.Requester)
	if errors.Is(err, disclosure.ReasonNotFound) {
		in := disclosure.DecisionInput{Time: b.now().UTC(), Request: request}
		return in, []ledger.Version{version, casefile.NoCase(request.Case)}, nil
	}
	if err != nil {
		return disclosure.DecisionInput{}, nil, err
	}
	if facts.Case != nil {
		request.Subject = facts.Case.Subject
	}
	in := disclosure.DecisionInput{
		Time: b.now().UTC(), Request: request, Case: facts.Case, Grants: facts.Grants, Evidence: facts.Evidence,
	}
	return in, append(facts.Expect, version), nil
}

// ask shows the source the permit and checks its answer. It returns the event of the outcome, which is yet to be written, and completes d
// with what may be released once it is.
func (b *Broker) ask(
	ctx context.Context, made decision, d *disclosure.Disclosure, requesterStatement, sealedIdentity []byte,
) disclosure.Event {
	recorded := &disclosure.OutcomeRecorded{
		Request: d.Request, Requester: made.request.Requester, Source: made.request.Source,
		DecisionIndex: d.DecisionReceipt.Index,
	}
	e := disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, OutcomeRecorded: recorded,
	}
	permit := b.permit(made, *d)
	if made.theCase != nil {
		e.Case = made.theCase.ID
	}
	reason := b.consult(ctx, permit, d, recorded, requesterStatement, sealedIdentity)
	switch {
	case reason == "":
		recorded.Outcome = disclosure.Disclosed
	case d.Manifest.Payload != nil:
		recorded.Outcome = disclosure.Refused
	default:
		recorded.Outcome = disclosure.Failed
		b.log.WarnContext(ctx, "disclosure failed", slog.String("request", string(d.Request)), slog.String("reason", string(reason)))
	}
	recorded.Reason = reason
	d.Outcome, d.OutcomeReason = recorded.Outcome, reason
	return e
}

func (b *Broker) permit(made decision, d disclosure.Disclosure) receipt.Permit {
	expires := made.at.Add(disclosure.PermitTerm)
	if until := d.Decision.ValidUntil; until != nil && until.Before(expires) {
		expires = *until
	}
	sealer := made.request.Requester.OIN
	if made.theCase != nil {
		sealer = made.theCase.Owner.OIN
	}
	return receipt.Permit{
		Request: d.Request, Case: made.request.Case, Subject: made.request.Subject,
		Requester: made.request.Requester, Person: made.request.Person, Source: made.request.Source,
		Purpose: made.request.Purpose, Fields: d.Decision.Released, Rows: d.Decision.Rows,
		Obligations: d.Decision.Obligations, Retention: d.Decision.Retention,
		DecisionIndex: d.DecisionReceipt.Index, PolicyDigest: d.Decision.PolicyDigest,
		Sealer: sealer, RequesterStatement: made.keys, IssuedAt: made.at.UTC(), ExpiresAt: expires.UTC(),
	}
}

// consult asks the source and checks what comes back. It returns "" if there is an answer to release, else why not; a manifest in d says
// that it was the source that refused.
func (b *Broker) consult(
	ctx context.Context, permit receipt.Permit, d *disclosure.Disclosure, recorded *disclosure.OutcomeRecorded,
	requesterStatement, sealedIdentity []byte,
) disclosure.ReasonCode {
	if permit.Case != "" {
		var err error
		if sealedIdentity, err = b.view.Identity(ctx, permit.Case, permit.Source); err != nil {
			return disclosure.ReasonIdentityMissing
		}
	}
	signed, err := receipt.SignPermit(permit, b.cfg.PermitKey)
	if err != nil {
		b.log.ErrorContext(ctx, "permit not signed", slog.Any("error", err))
		return disclosure.ReasonInternal
	}
	digest := receipt.Digest(signed.Payload)
	recorded.PermitDigest = digest
	askCtx, cancel := context.WithTimeout(ctx, b.cfg.SourceTimeout)
	defer cancel()
	reply, err := b.cfg.Relay.Ask(askCtx, permit.Source, disclosure.Question{
		Permit: signed, SealedIdentity: sealedIdentity, RequesterStatement: requesterStatement,
	})
	if err != nil {
		code := disclosure.ReasonSourceFailed
		errors.As(err, &code)
		return code
	}
	manifest, statement, err := b.checkReply(ctx, permit, digest, reply)
	if err != nil {
		b.log.WarnContext(ctx, "answer rejected", slog.String("source", string(permit.Source.OIN)), slog.Any("error", err))
		return disclosure.ReasonAnswerRejected
	}
	d.Permit, d.Manifest, d.SourceStatement = signed, reply.Manifest, statement
	recorded.Manifest, recorded.Released, recorded.Withheld = reply.Manifest.Payload, manifest.Released, manifest.Withheld
	recorded.ManifestSignature = reply.Manifest.Signature
	if manifest.Refusal == "" {
		d.Answer = reply.Answer
	}
	return manifest.Refusal
}

// checkReply checks the manifest's signature against the source's published key, and the manifest and answer against the permit (I4).
func (b *Broker) checkReply(
	ctx context.Context, permit receipt.Permit, permitDigest []byte, reply disclosure.Reply,
) (receipt.Manifest, []byte, error) {
	published, err := b.view.Statement(ctx, permit.Source.OIN)
	if err != nil {
		return receipt.Manifest{}, nil, fmt.Errorf("statement: %w", err)
	}
	statement, err := b.cfg.VerifyStatement(published.Statement, b.now())
	if err != nil {
		return receipt.Manifest{}, nil, fmt.Errorf("statement: %w", err)
	}
	manifest, err := receipt.OpenManifest(reply.Manifest.Payload, reply.Manifest.Signature, statement.SigningKey)
	if err != nil {
		return receipt.Manifest{}, nil, err
	}
	if err := receipt.CheckManifest(manifest, permit, permitDigest); err != nil {
		return receipt.Manifest{}, nil, err
	}
	if len(reply.Answer) > disclosure.MaxAnswer+4096 {
		return receipt.Manifest{}, nil, fmt.Errorf("%w: answer too large", disclosure.ErrMalformed)
	}
	if err := receipt.CheckSealed(reply.Answer, manifest); err != nil {
		return receipt.Manifest{}, nil, err
	}
	return manifest, published.Statement, nil
}

// recorded returns what a request came to before, and whether that was its end.
func (b *Broker) recorded(ctx context.Context, request disclosure.Request, bodyDigest []byte) (disclosure.Disclosure, bool, error) {
	progress, err := b.view.Progress(ctx, request.Requester.OIN, request.ID)
	switch {
	case errors.Is(err, disclosure.ReasonNotFound):
		return disclosure.Disclosure{}, false, nil
	case err != nil:
		return disclosure.Disclosure{}, false, err
	case !bytes.Equal(progress.BodyDigest, bodyDigest):
		return disclosure.Disclosure{}, false, fmt.Errorf("recorded: %w", disclosure.ReasonRequestIDReused)
	case !progress.Ended() && progress.Outcome == "":
		return disclosure.Disclosure{}, false, fmt.Errorf("recorded: %w", disclosure.ReasonRequestInProgress)
	case !progress.Ended():
		return disclosure.Disclosure{}, false, nil
	}
	d, err := b.restore(ctx, flightKey{request.Requester.OIN, request.ID}, progress)
	return d, true, err
}

// restore returns an ended disclosure: from memory with its answer while that is kept, else from the ledger without it.
func (b *Broker) restore(ctx context.Context, key flightKey, progress casefile.Progress) (disclosure.Disclosure, error) {
	if d, ok := b.answers.get(key, b.now()); ok {
		return d, nil
	}
	written, e, err := b.read(ctx, progress.Decision)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	d := disclosure.Disclosure{Request: key.id, Decision: e.DecisionMade.Decision, DecisionReceipt: written}
	if !progress.Permit || progress.Outcome == "" {
		return d, nil
	}
	outcome, e, err := b.read(ctx, progress.OutcomeAt)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	d.Outcome, d.OutcomeReason = e.OutcomeRecorded.Outcome, e.OutcomeRecorded.Reason
	d.Manifest = disclosure.Signed{Payload: e.OutcomeRecorded.Manifest, Signature: e.OutcomeRecorded.ManifestSignature}
	d.OutcomeReceipt = &outcome
	return d, nil
}

// read opens an entry of the ledger.
func (b *Broker) read(ctx context.Context, index uint64) (disclosure.Receipt, disclosure.Event, error) {
	opened, err := b.cfg.Ledger.Record(ctx, index)
	if err != nil {
		return disclosure.Receipt{}, disclosure.Event{}, refusal(err)
	}
	e, err := disclosure.DecodeEvent(opened.Payload)
	if err != nil {
		return disclosure.Receipt{}, disclosure.Event{}, fmt.Errorf("broker: entry %d: %w", index, err)
	}
	return disclosure.Receipt{
		Index: opened.Index, Time: opened.Time, Leaf: opened.Leaf, Salt: opened.Salt, Payload: opened.Payload,
	}, e, nil
}

// GetDisclosure returns a disclosure of the caller's own organisation as recorded, with the answer while it is kept.
func (b *Broker) GetDisclosure(ctx context.Context, c disclosure.Caller, id disclosure.RequestID) (disclosure.Disclosure, error) {
	progress, err := b.view.Progress(ctx, c.Organisation, id)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	d, err := b.restore(ctx, flightKey{c.Organisation, id}, progress)
	d.Answer = nil
	return d, err
}

// Explain tells what would be decided and what is missing. The question is recorded; no source is asked.
func (b *Broker) Explain(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, bodyDigest []byte,
) (disclosure.Explanation, disclosure.Receipt, error) {
	request, err := b.request(ctx, c, id, q)
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	in, _, err := b.input(ctx, request)
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	explanation, err := b.cfg.Policy.Explain(ctx, in)
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	written, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindExplained, Actor: c.Person, By: request.Requester, Case: caseOf(in),
		Explained: &disclosure.DecisionMade{BodyDigest: bodyDigest, Input: in, Decision: explanation.Decision},
	})
	return explanation, written, err
}

// abandon closes the disclosures that an earlier process left open: whatever their sources answered, nothing was released.
func (b *Broker) abandon(ctx context.Context) error {
	open, err := b.view.Unfinished(ctx)
	if err != nil {
		return err
	}
	for index, unfinished := range open {
		_, err := b.append(ctx, disclosure.Event{
			Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, Case: unfinished.Case,
			OutcomeRecorded: &disclosure.OutcomeRecorded{
				Request: unfinished.Request, Requester: unfinished.Requester, Source: unfinished.Source, DecisionIndex: index,
				Outcome: disclosure.Abandoned, Reason: disclosure.ReasonBrokerRestarted,
			},
		})
		if err != nil {
			return err
		}
	}
	if len(open) > 0 {
		b.log.WarnContext(ctx, "closed disclosures that were open when the broker stopped", slog.Int("count", len(open)))
	}
	return nil
}

type lateAnswer struct {
	source   disclosure.Party
	question disclosure.Question
}

// Late takes note of an answer that came after the broker gave up waiting: it is thrown away, and recorded as dropped. It never blocks;
// when too many come at once, the log says so.
func (b *Broker) Late(source disclosure.Party, question disclosure.Question) {
	select {
	case b.late <- lateAnswer{source, question}:
	default:
		b.log.Warn("late answer dropped without an entry", slog.String("source", string(source.OIN)))
	}
}

func (b *Broker) recordLate(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case answer := <-b.late:
			// The permit is the broker's own, so it is read without checking the signature again.
			var permit receipt.Permit
			if err := json.Unmarshal(answer.question.Permit.Payload, &permit); err != nil {
				b.log.ErrorContext(ctx, "late answer to an unreadable permit", slog.Any("error", err))
				continue
			}
			_, err := b.append(ctx, disclosure.Event{
				Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, Case: permit.Case,
				OutcomeRecorded: &disclosure.OutcomeRecorded{
					Request: permit.Request, Requester: permit.Requester, Source: answer.source,
					DecisionIndex: permit.DecisionIndex, Outcome: disclosure.Dropped, Reason: disclosure.ReasonSourceTimeout,
					PermitDigest: receipt.Digest(answer.question.Permit.Payload),
				},
			})
			if err != nil {
				b.log.ErrorContext(ctx, "late answer not recorded", slog.Any("error", err))
			}
		}
	}
}
