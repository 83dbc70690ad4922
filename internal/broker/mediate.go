package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	person     disclosure.PersonRef
	bodyDigest []byte
	done       chan struct{}
	result     disclosure.Disclosure // valid once done is closed
	err        error                 // valid once done is closed
}

// RequestDisclosure mediates one disclosure. It is idempotent on id: to the same person with the same bodyDigest (SHA-256 of the request as
// received) it gives what was decided and recorded, and to others it refuses. A denial, and a refusal by the source, are results and no
// errors. After an error nothing was released, and the same id may be tried again.
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
	f, joined, err := b.join(key, c.Person, bodyDigest)
	switch {
	case err != nil:
		return disclosure.Disclosure{}, err
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

// join returns the flight under that key, or a new one, which its caller must let fly.
func (b *Broker) join(key flightKey, person disclosure.PersonRef, bodyDigest []byte) (*flight, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.serving {
		return nil, false, fmt.Errorf("starting or stopping: %w", disclosure.ReasonLedgerUnavailable)
	}
	if f, ok := b.flights[key]; ok {
		if f.person != person || !bytes.Equal(f.bodyDigest, bodyDigest) {
			return nil, false, fmt.Errorf("under way: %w", disclosure.ReasonRequestIDReused)
		}
		return f, true, nil
	}
	f := &flight{person: person, bodyDigest: bodyDigest, done: make(chan struct{})}
	b.flights[key] = f
	b.running.Add(1)
	return f, false, nil
}

// flightTerm is how long a disclosure may take. Only the entry of its outcome is waited for beyond it.
func (b *Broker) flightTerm() time.Duration { return b.cfg.SourceTimeout + disclosure.PermitTerm }

// fly carries a disclosure to its end, within the time that its parts may take.
func (b *Broker) fly(ctx context.Context, key flightKey, f *flight, request disclosure.Request, sealedIdentity []byte) {
	defer b.running.Done()
	ctx, cancel := context.WithTimeout(ctx, b.flightTerm())
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
	if requester == q.Source {
		return disclosure.Request{}, fmt.Errorf("%w: the source must be another than the requester", disclosure.ErrMalformed)
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
	made, d, err := b.decide(ctx, request, bodyDigest)
	if err != nil || d.Decision.Effect != disclosure.Permit {
		return d, err
	}
	e := b.ask(ctx, made, &d, sealedIdentity)
	// The source may have answered: from here on nothing but the ledger itself may keep the outcome from being known.
	outcome, err := b.append(context.WithoutCancel(ctx), e)
	if err != nil {
		// The decision stays without an outcome until a retry or the next start closes it as abandoned. Nothing was released.
		return disclosure.Disclosure{}, fmt.Errorf("outcome: %w", err)
	}
	d.OutcomeReceipt = &outcome
	switch d.Outcome {
	case disclosure.Failed:
		return disclosure.Disclosure{}, fmt.Errorf("source: %w", d.OutcomeReason)
	case disclosure.Disclosed:
		b.answers.put(flightKey{request.Requester.OIN, request.ID}, d, b.now())
	case disclosure.Refused, disclosure.Abandoned, disclosure.Dropped:
	}
	return d, nil
}

// decision is a decision as written.
type decision struct {
	request   disclosure.Request
	theCase   *disclosure.Case
	statement []byte    // the requester's keys
	at        time.Time // of the entry
}

// decide lets the policy decide and writes the decision, as often as it takes to write it while what it was made from still holds.
func (b *Broker) decide(
	ctx context.Context, request disclosure.Request, bodyDigest []byte,
) (decision, disclosure.Disclosure, error) {
	var made decision
	d, err := retry(ctx, func() (disclosure.Disclosure, error) {
		statement, version, err := b.statement(ctx, request.Requester.OIN)
		if err != nil {
			return disclosure.Disclosure{}, err
		}
		in, expect, err := b.input(ctx, request)
		if err != nil {
			return disclosure.Disclosure{}, err
		}
		verdict, err := b.cfg.Policy.Decide(ctx, in)
		if err != nil {
			return disclosure.Disclosure{}, withReason(disclosure.ReasonPolicyUnavailable, err)
		}
		if err := b.checkDecision(verdict, in); err != nil {
			return disclosure.Disclosure{}, err
		}
		keys := sha256.Sum256(statement)
		e := disclosure.Event{
			Kind: disclosure.KindDecisionMade, Actor: request.Person, By: request.Requester, Case: caseOf(in),
			DecisionMade: &disclosure.DecisionMade{BodyDigest: bodyDigest, Input: in, Decision: verdict, RequesterKeys: keys[:]},
		}
		written, err := b.append(ctx, e, append(expect, version)...)
		if err != nil {
			return disclosure.Disclosure{}, fmt.Errorf("decision: %w", err)
		}
		made = decision{request: in.Request, theCase: in.Case, statement: statement, at: written.Time}
		return disclosure.Disclosure{Request: request.ID, Decision: verdict, DecisionReceipt: written}, nil
	})
	return made, d, err
}

// statement returns the key statement that an answer to an organisation is sealed to, which must be valid still.
func (b *Broker) statement(ctx context.Context, oin disclosure.OIN) ([]byte, ledger.Version, error) {
	published, version, err := b.view.Statement(ctx, oin)
	switch {
	case errors.Is(err, disclosure.ReasonNotFound):
		return nil, version, fmt.Errorf("requester: none: %w", disclosure.ReasonKeyStatementInvalid)
	case err != nil:
		return nil, version, err
	case !b.now().Before(published.NotAfter):
		return nil, version, fmt.Errorf("requester: expired: %w", disclosure.ReasonKeyStatementInvalid)
	}
	return published.Statement, version, nil
}

// checkDecision refuses a decision that cannot come from the active policy, before it is written: it is a fault of the policy, and no
// decision.
func (b *Broker) checkDecision(d disclosure.Decision, in disclosure.DecisionInput) error {
	unasked := func(f disclosure.Field) bool {
		return f.All() || !slices.ContainsFunc(in.Request.Fields, func(asked disclosure.Field) bool { return asked.Covers(f) })
	}
	fault := ""
	switch {
	case d.PolicyDigest != b.cfg.PolicyDigest:
		fault = "made by another policy"
	case d.Effect == disclosure.Deny:
		if len(d.Released) > 0 {
			fault = "denial that releases"
		}
	case d.Effect != disclosure.Permit:
		fault = "undefined"
	case len(d.Released) == 0 || len(d.Rows) == 0:
		fault = "permit without fields or rows"
	case slices.ContainsFunc(d.Released, unasked):
		fault = "permit of what was not asked"
	case in.Request.Case != "" && in.Case == nil:
		fault = "permit in a case that the requester takes no part in"
	}
	if fault != "" {
		return fmt.Errorf("decision: %s: %w", fault, disclosure.ReasonPolicyUndefined)
	}
	return nil
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
		return disclosure.DecisionInput{}, nil, withReason(disclosure.ReasonPolicyUnavailable, err)
	case active.Digest != b.cfg.PolicyDigest:
		return disclosure.DecisionInput{}, nil, fmt.Errorf("another policy is active: %w", disclosure.ReasonPolicyUnavailable)
	}
	facts, err := b.view.Facts(ctx, request.Case, request.Subject, request.Source, request.Requester)
	if err != nil {
		return disclosure.DecisionInput{}, nil, err
	}
	// Again, and after the facts: a hat that was taken away meanwhile is no longer worn.
	for _, p := range []disclosure.Party{request.Requester, request.Source} {
		if err := b.known(ctx, p); err != nil {
			return disclosure.DecisionInput{}, nil, err
		}
	}
	if facts.Case != nil {
		request.Subject = facts.Case.Subject
	}
	in := disclosure.DecisionInput{Request: request, Case: facts.Case, Grants: facts.Grants, Evidence: facts.Evidence}
	in.Time = notBefore(b.now().UTC(), in)
	return in, append(facts.Expect, version), nil
}

// notBefore returns the time t, or that of the last fact if that is later. Facts have the ledger's time, which never goes back; the clock
// may, and then what has ended would seem not to have ended yet.
func notBefore(t time.Time, in disclosure.DecisionInput) time.Time {
	later := func(at *time.Time) {
		if at != nil && at.After(t) {
			t = *at
		}
	}
	if in.Case != nil {
		later(&in.Case.OpenedAt)
		later(in.Case.ClosedAt)
	}
	for i := range in.Grants {
		later(in.Grants[i].RevokedAt)
	}
	for i := range in.Evidence {
		later(in.Evidence[i].WithdrawnAt)
	}
	return t
}

// ask shows the source the permit and checks its answer. It returns the event of the outcome, which is yet to be written, and completes d
// with what may be released once it is.
func (b *Broker) ask(ctx context.Context, made decision, d *disclosure.Disclosure, sealedIdentity []byte) disclosure.Event {
	recorded := &disclosure.OutcomeRecorded{
		Request: d.Request, Requester: made.request.Requester, Source: made.request.Source,
		DecisionIndex: d.DecisionReceipt.Index,
	}
	e := disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, Case: made.request.Case, OutcomeRecorded: recorded,
	}
	permit := b.permit(made, *d)
	asked := question{permit: permit, requesterStatement: made.statement, sealedIdentity: sealedIdentity}
	found, err := b.consult(ctx, &asked)
	recorded.PermitDigest = asked.digest
	if err == nil {
		recorded.Outcome, recorded.Reason = disclosure.Disclosed, found.manifest.Refusal
		if recorded.Reason != "" {
			recorded.Outcome = disclosure.Refused
		}
		recorded.Manifest, recorded.ManifestSignature = found.reply.Manifest.Payload, found.reply.Manifest.Signature
		recorded.Released, recorded.Withheld = found.manifest.Released, found.manifest.Withheld
		err = fits(e)
	}
	if err != nil {
		*recorded = disclosure.OutcomeRecorded{
			Request: recorded.Request, Requester: recorded.Requester, Source: recorded.Source, DecisionIndex: recorded.DecisionIndex,
			Outcome: disclosure.Failed, Reason: reasonOf(err), PermitDigest: recorded.PermitDigest,
		}
		d.Outcome, d.OutcomeReason = recorded.Outcome, recorded.Reason
		b.log.WarnContext(
			ctx, "disclosure failed", slog.String("request", string(d.Request)), slog.String("source", string(permit.Source.OIN)),
			slog.String("reason", string(recorded.Reason)), slog.Any("error", err),
		)
		return e
	}
	d.Outcome, d.OutcomeReason = recorded.Outcome, recorded.Reason
	d.Permit, d.Manifest, d.SourceStatement, d.Answer = asked.signed, found.reply.Manifest, found.statement, found.reply.Answer
	return e
}

// fits refuses the answer of a source whose manifest is larger than an entry.
func fits(e disclosure.Event) error {
	if payload, err := e.Encode(); err != nil || len(payload) > ledger.MaxPayload {
		return fmt.Errorf("manifest does not fit in an entry: %w", disclosure.ReasonAnswerRejected)
	}
	return nil
}

// reasonOf is why a source gave no answer.
func reasonOf(err error) disclosure.ReasonCode {
	code := disclosure.ReasonSourceFailed
	if errors.Is(err, context.DeadlineExceeded) {
		code = disclosure.ReasonSourceTimeout
	}
	if errors.As(err, &code) && code == "" {
		code = disclosure.ReasonInternal // an outcome without a reason would be taken for an answer
	}
	return code
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
		Sealer: sealer, RequesterStatement: receipt.Digest(made.statement), IssuedAt: made.at.UTC(), ExpiresAt: expires.UTC(),
	}
}

// question is what a source is asked; consult completes it.
type question struct {
	permit             receipt.Permit
	requesterStatement []byte
	sealedIdentity     []byte
	signed             disclosure.Signed // the permit
	digest             []byte            // of the signed permit
}

// found is what a source answered, once checked.
type found struct {
	reply     disclosure.Reply
	manifest  receipt.Manifest // may be a refusal
	statement []byte           // of the source's keys
}

// consult asks the source and checks what comes back. Its error wraps the reason why there is no answer and no refusal that counts.
func (b *Broker) consult(ctx context.Context, q *question) (found, error) {
	var err error
	if q.permit.Case != "" {
		if q.sealedIdentity, err = b.view.Identity(ctx, q.permit.Case, q.permit.Source); err != nil {
			return found{}, fmt.Errorf("%w: %w", disclosure.ReasonIdentityMissing, err)
		}
	}
	if q.signed, err = receipt.SignPermit(q.permit, b.cfg.PermitKey); err != nil {
		return found{}, fmt.Errorf("%w: sign permit: %w", disclosure.ReasonInternal, err)
	}
	q.digest = receipt.Digest(q.signed.Payload)
	askCtx, cancel := context.WithTimeout(ctx, b.cfg.SourceTimeout)
	defer cancel()
	reply, err := b.cfg.Relay.Ask(askCtx, q.permit.Source, disclosure.Question{
		Permit: q.signed, SealedIdentity: q.sealedIdentity, RequesterStatement: q.requesterStatement,
	})
	if err != nil {
		return found{}, err
	}
	manifest, statement, err := b.checkReply(ctx, q.permit, q.digest, reply)
	if err != nil {
		return found{}, fmt.Errorf("%w: %w", disclosure.ReasonAnswerRejected, err)
	}
	return found{reply: reply, manifest: manifest, statement: statement}, nil
}

// checkReply checks the manifest's signature against the source's published key, and the manifest and answer against the permit (I4).
func (b *Broker) checkReply(
	ctx context.Context, permit receipt.Permit, permitDigest []byte, reply disclosure.Reply,
) (receipt.Manifest, []byte, error) {
	if len(reply.Answer) > disclosure.MaxAnswer {
		return receipt.Manifest{}, nil, fmt.Errorf("%w: answer too large", disclosure.ErrMalformed)
	}
	published, _, err := b.view.Statement(ctx, permit.Source.OIN)
	if err != nil {
		return receipt.Manifest{}, nil, fmt.Errorf("statement: %w", err)
	}
	statement, err := b.cfg.VerifyStatement(published.Statement, b.now())
	if err != nil {
		return receipt.Manifest{}, nil, fmt.Errorf("statement: %w", err)
	}
	if statement.Organisation != permit.Source.OIN {
		return receipt.Manifest{}, nil, fmt.Errorf("%w: statement of another organisation", disclosure.ErrMalformed)
	}
	manifest, err := receipt.OpenManifest(reply.Manifest.Payload, reply.Manifest.Signature, statement.SigningKey)
	if err != nil {
		return receipt.Manifest{}, nil, err
	}
	if err := receipt.CheckManifest(manifest, permit, permitDigest); err != nil {
		return receipt.Manifest{}, nil, err
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
		return disclosure.Disclosure{}, false, b.closeLost(ctx, progress.Decision)
	case !progress.Ended():
		return disclosure.Disclosure{}, false, nil
	}
	d, asked, err := b.restore(ctx, flightKey{request.Requester.OIN, request.ID}, progress)
	switch {
	case err != nil:
		return disclosure.Disclosure{}, false, err
	case asked.Person != request.Person:
		return disclosure.Disclosure{}, false, fmt.Errorf("recorded for another person: %w", disclosure.ReasonRequestIDReused)
	}
	return d, true, nil
}

// closeLost closes a permit whose outcome could not be written, so that the request can be tried again; but only when it is so old that
// nobody carries it to its end any more.
func (b *Broker) closeLost(ctx context.Context, index uint64) error {
	written, e, err := b.read(ctx, index)
	if err != nil {
		return err
	}
	if b.now().Before(written.Time.Add(b.flightTerm())) {
		return fmt.Errorf("recorded: %w", disclosure.ReasonRequestInProgress)
	}
	request := e.DecisionMade.Input.Request
	return b.abandon(ctx, index, casefile.Unfinished{
		Requester: request.Requester, Source: request.Source, Request: request.ID, Case: e.Case,
	}, disclosure.ReasonLedgerUnavailable)
}

// restore returns a disclosure as recorded and what was asked: from memory with its answer while that is kept, else from the ledger
// without it.
func (b *Broker) restore(
	ctx context.Context, key flightKey, progress casefile.Progress,
) (disclosure.Disclosure, disclosure.Request, error) {
	written, e, err := b.read(ctx, progress.Decision)
	if err != nil {
		return disclosure.Disclosure{}, disclosure.Request{}, err
	}
	asked := e.DecisionMade.Input.Request
	if d, ok := b.answers.get(key, b.now()); ok {
		return d, asked, nil
	}
	d := disclosure.Disclosure{Request: key.id, Decision: e.DecisionMade.Decision, DecisionReceipt: written}
	if !progress.Permit || progress.Outcome == "" {
		return d, asked, nil
	}
	outcome, e, err := b.read(ctx, progress.OutcomeAt)
	if err != nil {
		return disclosure.Disclosure{}, disclosure.Request{}, err
	}
	d.Outcome, d.OutcomeReason = e.OutcomeRecorded.Outcome, e.OutcomeRecorded.Reason
	d.Manifest = disclosure.Signed{Payload: e.OutcomeRecorded.Manifest, Signature: e.OutcomeRecorded.ManifestSignature}
	d.OutcomeReceipt = &outcome
	return d, asked, nil
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

// GetDisclosure returns a disclosure of the caller's own organisation as recorded, without the answer, to people who wear the hat in which it
// was asked and to privacy officers.
func (b *Broker) GetDisclosure(ctx context.Context, c disclosure.Caller, id disclosure.RequestID) (disclosure.Disclosure, error) {
	progress, err := b.view.Progress(ctx, c.Organisation, id)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	d, asked, err := b.restore(ctx, flightKey{c.Organisation, id}, progress)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	if !slices.Contains(c.Domains, asked.Requester.Domain) && !c.Is(disclosure.RolePrivacyOfficer) {
		return disclosure.Disclosure{}, fmt.Errorf("of another hat: %w", disclosure.ReasonNotFound)
	}
	d.Answer = nil
	return d, nil
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
		return disclosure.Explanation{}, disclosure.Receipt{}, withReason(disclosure.ReasonPolicyUnavailable, err)
	}
	written, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindExplained, Actor: c.Person, By: request.Requester, Case: caseOf(in),
		Explained: &disclosure.DecisionMade{BodyDigest: bodyDigest, Input: in, Decision: explanation.Decision},
	})
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	return explanation, written, nil
}

// abandonAll closes the disclosures that an earlier process left open: whatever their sources answered, nothing was released.
func (b *Broker) abandonAll(ctx context.Context) error {
	open, err := b.view.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(open)) {
		if err := b.abandon(ctx, index, open[index], disclosure.ReasonBrokerRestarted); err != nil {
			return err
		}
	}
	if len(open) > 0 {
		b.log.WarnContext(ctx, "closed disclosures that were open when the broker stopped", slog.Int("count", len(open)))
	}
	return nil
}

func (b *Broker) abandon(ctx context.Context, index uint64, open casefile.Unfinished, why disclosure.ReasonCode) error {
	_, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, Case: open.Case,
		OutcomeRecorded: &disclosure.OutcomeRecorded{
			Request: open.Request, Requester: open.Requester, Source: open.Source, DecisionIndex: index,
			Outcome: disclosure.Abandoned, Reason: why,
		},
	})
	return err
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

// recordLate writes entries of late answers until ctx ends and no disclosure is under way any more.
func (b *Broker) recordLate(ctx context.Context, landed <-chan struct{}) {
	for {
		select {
		case late := <-b.late:
			b.recordDropped(ctx, late)
			continue
		case <-landed:
		}
		select {
		case late := <-b.late:
			b.recordDropped(ctx, late)
		default:
			return
		}
	}
}

func (b *Broker) recordDropped(ctx context.Context, late lateAnswer) {
	// The permit is the broker's own, so it is read without checking the signature again.
	var permit receipt.Permit
	if err := json.Unmarshal(late.question.Permit.Payload, &permit); err != nil {
		b.log.ErrorContext(ctx, "late answer to an unreadable permit", slog.Any("error", err))
		return
	}
	_, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: b.cfg.OIN}, Case: permit.Case,
		OutcomeRecorded: &disclosure.OutcomeRecorded{
			Request: permit.Request, Requester: permit.Requester, Source: late.source,
			DecisionIndex: permit.DecisionIndex, Outcome: disclosure.Dropped, Reason: disclosure.ReasonSourceTimeout,
			PermitDigest: receipt.Digest(late.question.Permit.Payload),
		},
	})
	if err != nil {
		b.log.ErrorContext(ctx, "late answer not recorded", slog.Any("error", err))
	}
}
