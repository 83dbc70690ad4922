package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
)

// Connector reads what an organisation holds about a person.
type Connector interface {
	// Read gives the values of these fields, and of no others, for this person. It may leave fields out, and say why: with
	// [disclosure.ReasonNoData], or without a reason, the field counts as released, without a value. An error that wraps
	// a [disclosure.ReasonCode] refuses with that code; any other one is a fault of the source.
	Read(ctx context.Context, person envelope.Identity, fields []disclosure.Field) (
		records []receipt.Record, withheld []disclosure.Withheld, err error)
}

// SourceConfig is what the answering side needs beside the agent.
type SourceConfig struct {
	Connectors map[disclosure.Domain]Connector // by hat
	Rules      []HouseRule
	Seen       *SeenPermits
}

// Source is the answering side.
type Source struct {
	*Agent
	cfg SourceConfig
}

// NewSource makes the answering side of an agent.
func NewSource(a *Agent, cfg SourceConfig) *Source { return &Source{Agent: a, cfg: cfg} }

// Answer answers a question of the broker. What the source will not or cannot answer, it refuses in a signed manifest. An
// error means that there is nothing to sign: the permit is not one of the broker's, or not for this organisation. It
// wraps [disclosure.ReasonPermitInvalid], or is a failure of the agent itself.
func (s *Source) Answer(ctx context.Context, q disclosure.Question) (disclosure.Reply, error) {
	started := time.Now()
	permit, err := s.openPermit(ctx, q.Permit)
	expired := errors.Is(err, receipt.ErrExpired)
	if err != nil && !expired {
		s.Agent.cfg.Log.WarnContext(ctx, "permit not accepted", slog.Any("error", err))
		return disclosure.Reply{}, fmt.Errorf("%w: %w", disclosure.ReasonPermitInvalid, err)
	}
	w := work{source: s, permit: permit, digest: receipt.Digest(q.Permit.Payload)}
	reply, code, err := disclosure.Reply{}, disclosure.ReasonPermitExpired, error(nil)
	if !expired {
		reply, code, err = w.answer(ctx, q)
	}
	if code != "" {
		reply, err = w.sign(receipt.Manifest{Refusal: code}, nil)
	}
	if err != nil {
		s.Agent.cfg.Log.ErrorContext(ctx, "could not answer", slog.String("request", string(permit.Request)), slog.Any("error", err))
		return disclosure.Reply{}, err
	}
	s.Agent.cfg.Log.InfoContext(ctx, "answered", slog.String("request", string(permit.Request)),
		slog.String("requester", string(permit.Requester.OIN)), slog.String("purpose", string(permit.Purpose)),
		slog.String("refusal", string(code)), slog.Duration("took", time.Since(started)))
	return reply, nil
}

// openPermit checks signature, time and addressee. With [receipt.ErrExpired] the permit is complete all the same.
func (s *Source) openPermit(ctx context.Context, signed disclosure.Signed) (receipt.Permit, error) {
	keys, err := s.brokerKeys(ctx)
	if err != nil {
		return receipt.Permit{}, err
	}
	now := s.Agent.cfg.Now()
	permit, err := receipt.OpenPermit(signed.Payload, signed.Signature, keys.permit, now)
	if errors.Is(err, receipt.ErrSignature) {
		if renewed, ok := s.renewedKeys(ctx, keys); ok {
			permit, err = receipt.OpenPermit(signed.Payload, signed.Signature, renewed.permit, now)
		}
	}
	if err != nil && !errors.Is(err, receipt.ErrExpired) {
		return receipt.Permit{}, err
	}
	if permit.Source.OIN != s.Agent.cfg.OIN || !s.wears(permit.Source.Domain) {
		return receipt.Permit{}, errors.New("permit is for another source")
	}
	return permit, err
}

// work is the answering of one permit.
type work struct {
	source *Source
	permit receipt.Permit
	digest []byte
}

// answer gives a reply, or the code to refuse with, or an error.
func (w work) answer(ctx context.Context, q disclosure.Question) (disclosure.Reply, disclosure.ReasonCode, error) {
	s, agent := w.source, w.source.Agent
	err := s.cfg.Seen.Use(ctx, w.digest, w.permit.ExpiresAt)
	switch {
	case errors.Is(err, ErrReplayed):
		return disclosure.Reply{}, disclosure.ReasonPermitReplayed, nil
	case errors.Is(err, ErrManyPermits):
		return disclosure.Reply{}, disclosure.ReasonOverloaded, nil
	case err != nil:
		return disclosure.Reply{}, "", fmt.Errorf("remember the permit: %w", err)
	}
	connector, ok := s.cfg.Connectors[w.permit.Source.Domain]
	if !ok {
		return disclosure.Reply{}, disclosure.ReasonFieldNotAvailable, nil
	}
	if string(receipt.Digest(q.RequesterStatement)) != string(w.permit.RequesterStatement) {
		return disclosure.Reply{}, disclosure.ReasonKeyStatementInvalid, nil
	}
	statement, err := agent.verifyStatement(q.RequesterStatement, w.permit.Requester.OIN)
	if err != nil {
		return w.refuse(ctx, disclosure.ReasonKeyStatementInvalid, err)
	}
	person, code, err := w.identify(ctx, q.SealedIdentity)
	if code != "" || err != nil {
		return w.refuse(ctx, code, err)
	}
	return w.release(ctx, connector, person, statement.EnvelopeKey)
}

// refuse gives the code, and says in the log what was behind it. The error may not say anything about a person.
func (w work) refuse(ctx context.Context, code disclosure.ReasonCode, cause error) (disclosure.Reply, disclosure.ReasonCode, error) {
	if code == "" {
		return disclosure.Reply{}, "", cause
	}
	w.source.Agent.cfg.Log.WarnContext(ctx, "refused", slog.String("request", string(w.permit.Request)),
		slog.String("code", string(code)), slog.Any("error", cause))
	return disclosure.Reply{}, code, nil
}

// identify opens the sealed identity and makes sure that it is the person of the permit (I5).
func (w work) identify(ctx context.Context, sealed []byte) (envelope.Identity, disclosure.ReasonCode, error) {
	agent, p := w.source.Agent, w.permit
	var binding envelope.IdentityContext = envelope.IdentityBinding{
		Case: string(p.Case), Pseudonym: string(p.Subject), Participant: participant(p.Source), Sealer: string(p.Sealer),
	}
	if p.Case == "" {
		if p.Sealer != p.Requester.OIN {
			return envelope.Identity{}, disclosure.ReasonIdentityMismatch, errors.New("outside a case only the requester seals")
		}
		binding = envelope.DirectBinding{
			RequestID: string(p.Request), Pseudonym: string(p.Subject),
			Source: participant(p.Source), Requester: string(p.Requester.OIN),
		}
	}
	person, err := envelope.OpenIdentity(agent.cfg.EnvelopeKey, binding, sealed, agent.cfg.Trust, agent.cfg.Now())
	if err != nil {
		return envelope.Identity{}, disclosure.ReasonIdentityMismatch, err
	}
	if !agent.cfg.MayHoldBSN(p.Source.Domain) {
		if person.BSN != "" {
			return envelope.Identity{}, disclosure.ReasonBSNNotAllowed, errors.New("the sealer gave a number that this hat may not hold")
		}
		return person, "", nil
	}
	// A number that was left out is refused here too: otherwise a sealer could evade the comparison.
	bsn, err := agent.parseBSN(person.BSN)
	if err != nil {
		return envelope.Identity{}, disclosure.ReasonIdentityMismatch, err
	}
	subject, err := agent.pseudonymOf(ctx, bsn)
	if err != nil {
		return envelope.Identity{}, "", err
	}
	if subject != p.Subject {
		return envelope.Identity{}, disclosure.ReasonIdentityMismatch, errors.New("the identity is not the permit's")
	}
	return person, "", nil
}

// release reads the permitted fields that the house rules allow, and seals them to the requester.
func (w work) release(
	ctx context.Context, connector Connector, person envelope.Identity, to envelope.PublicKey,
) (disclosure.Reply, disclosure.ReasonCode, error) {
	fields, withheld := applyRules(w.source.cfg.Rules, w.permit)
	if len(fields) == 0 {
		return disclosure.Reply{}, disclosure.ReasonHouseRule, nil
	}
	records, left, err := connector.Read(ctx, person, slices.Clone(fields))
	if err != nil {
		code := disclosure.ReasonSourceFailed
		errors.As(err, &code)
		return w.refuse(ctx, code, err)
	}
	manifest := receipt.Manifest{Withheld: withheld}
	for _, field := range fields {
		i := slices.IndexFunc(left, func(l disclosure.Withheld) bool { return l.Field == field })
		// That there is nothing to tell is content too. So it is told inside the answer, by leaving the field out, and not
		// in the manifest, which the broker reads.
		if i < 0 || left[i].Reason.Code == disclosure.ReasonNoData {
			manifest.Released = append(manifest.Released, field)
			continue
		}
		manifest.Withheld = append(manifest.Withheld, left[i])
	}
	if len(manifest.Released) == 0 {
		return disclosure.Reply{}, manifest.Withheld[len(manifest.Withheld)-1].Reason.Code, nil
	}
	kept, dropped := keepReleased(records, manifest.Released)
	if dropped > 0 {
		w.source.Agent.cfg.Log.ErrorContext(ctx, "connector gave fields that it was not asked for; they were dropped",
			slog.String("request", string(w.permit.Request)), slog.Int("values", dropped))
	}
	content, err := receipt.EncodeAnswer(receipt.Answer{Permit: w.digest, Records: kept})
	if err != nil {
		return w.refuse(ctx, disclosure.ReasonTooManyRows, err)
	}
	defer clear(content)
	binding := envelope.AnswerBinding{
		PermitDigest: w.digest, Requester: string(w.permit.Requester.OIN), Source: string(w.permit.Source.OIN),
	}
	sealed, err := envelope.Seal(to, binding.Info(), content)
	if err != nil {
		return disclosure.Reply{}, "", fmt.Errorf("seal the answer: %w", err)
	}
	if len(sealed) > disclosure.MaxAnswer {
		return disclosure.Reply{}, disclosure.ReasonTooManyRows, nil
	}
	manifest.AnswerDigest = receipt.Digest(sealed)
	reply, err := w.sign(manifest, sealed)
	return reply, "", err
}

// keepReleased drops the values of fields that are not released: whatever a connector gives, nothing else leaves (I4).
func keepReleased(records []receipt.Record, released []disclosure.Field) (kept []receipt.Record, dropped int) {
	for _, record := range records {
		values := make(map[string]string, len(record.Values))
		for name, value := range record.Values {
			if slices.Contains(released, disclosure.Field(string(record.Category)+"."+name)) {
				values[name] = value
				continue
			}
			dropped++
		}
		if len(values) > 0 {
			kept = append(kept, receipt.Record{Category: record.Category, Values: values})
		}
	}
	return kept, dropped
}

// sign completes and signs the manifest.
func (w work) sign(m receipt.Manifest, sealed []byte) (disclosure.Reply, error) {
	m.Permit, m.Request, m.Source, m.Requester = w.digest, w.permit.Request, w.permit.Source, w.permit.Requester
	m.AnsweredAt = w.source.Agent.cfg.Now().UTC()
	signed, err := receipt.SignManifest(m, w.source.Agent.cfg.SigningKey)
	if err != nil {
		return disclosure.Reply{}, err
	}
	return disclosure.Reply{Manifest: signed, Answer: sealed}, nil
}
