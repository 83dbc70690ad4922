// Package casefile folds the events of the ledger into the state that decisions are made from: partners and their keys, cases with their
// participants and sealed identities, grants, evidence, and which disclosures are under way.
//
// The ledger is the only truth; everything here can be dropped and folded again. Fold runs inside the commit, so that what it refuses is
// refused exactly: no second entry under one request id, no permit that has run out by the time it is written, no pseudonym beyond the
// budget. Everything else that a use case relied on when it read the state it names as a precondition of its entry: every event of a
// case puts the case again, so the version of that one key says whether anything about the case, its grants or its evidence changed, and
// likewise for an organisation.
//
// # Keys of the state
//
//	keys                                              the last BROKER_KEYS event, and where it is
//	policy                                            what the last POLICY_ACTIVATED event said
//	org/<oin>                                         the partner
//	issuer/<iss>                                      the organisation whose people the issuer signs for
//	statement/<oin>                                   its key statement
//	budget/<oin>                                      pseudonyms made today
//	orgevidence/<oin>/<id>                            evidence outside cases, of the organisation that recorded it
//	case/<case>                                       the case
//	opened/<case>                                     the entry that opened it
//	member/<oin>/<order>/<case>                       cases by participant, newest first
//	identity/<case>/<oin>/<domain>                    the person's identity, sealed to that participant
//	grant/<case>/<grant>                              the grant
//	granted/<grant>                                   its case, put by the entry that created it
//	evidence/<case>/<id>                              the evidence
//	recorded/evidence/<case>/<id>, recorded/orgevidence/<oin>/<id>
//	                                                  nothing, put by the entry that recorded the evidence
//	request/<oin>/<request>                           a disclosure: its decision and its outcome
//	open/<index>                                      a permit whose outcome is not known yet
//
// Values are JSON. None holds a BSN or content.
package casefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// ErrStale means that a permit's grants or evidence had run out by the time it was to be written: decide again.
var ErrStale = errors.New("casefile: decision is no longer valid")

// errEnded refuses to end what has ended: when and how it did is not to change. Whoever tries has read the state before that.
var errEnded = fmt.Errorf("casefile: ended before: %w", disclosure.ReasonContention)

// Folder gives the events their meaning. It implements ledger.Folder and has no state of its own.
type Folder struct{}

// Encode checks an event and returns its payload, and what Prepare would make of that, to spare the writer the decoding. The event must
// not be modified afterwards.
func (Folder) Encode(e *disclosure.Event) (payload []byte, prepared any, err error) {
	if err := e.Check(); err != nil {
		return nil, nil, err
	}
	if err := check(e); err != nil {
		return nil, nil, err
	}
	payload, err = e.Encode()
	return payload, e, err
}

// Prepare decodes and checks an event.
func (Folder) Prepare(payload []byte) (any, error) {
	event, err := disclosure.DecodeEvent(payload)
	if err != nil {
		return nil, err
	}
	if err := check(&event); err != nil {
		return nil, err
	}
	return &event, nil
}

// check refuses an event whose parts disagree in a way that would put what it says under the wrong key.
func check(e *disclosure.Event) error {
	ok := true
	switch e.Kind {
	case disclosure.KindPseudonymsMade:
		_, err := time.Parse(time.DateOnly, e.PseudonymsMade.Day)
		ok = err == nil && e.PseudonymsMade.Count > 0
	case disclosure.KindCaseOpened:
		ok = e.Case != "" && e.CaseOpened.ID == e.Case
	case disclosure.KindPhaseChanged, disclosure.KindParticipantAdded, disclosure.KindParticipantRemoved,
		disclosure.KindCaseClosed, disclosure.KindGrantRevoked:
		ok = e.Case != ""
	case disclosure.KindGrantCreated:
		ok = e.Case != "" && e.GrantCreated.Case == e.Case
	case disclosure.KindEvidenceRecorded:
		ok = e.EvidenceRecorded.Case == e.Case && e.EvidenceRecorded.RecordedFor == e.By
	case disclosure.KindDecisionMade:
		effect := e.DecisionMade.Decision.Effect
		ok = effect == disclosure.Permit || effect == disclosure.Deny
	case disclosure.KindOutcomeRecorded:
		ok = slices.Contains([]disclosure.Outcome{
			disclosure.Disclosed, disclosure.Refused, disclosure.Failed, disclosure.Abandoned, disclosure.Dropped,
		}, e.OutcomeRecorded.Outcome)
	case disclosure.KindBrokerKeys, disclosure.KindPolicyActivated, disclosure.KindPartnerAdded, disclosure.KindStatementPublished,
		disclosure.KindEvidenceWithdrawn, disclosure.KindLogRead, disclosure.KindExplained:
	}
	if !ok {
		return fmt.Errorf("%w: event: %s disagrees with itself", disclosure.ErrMalformed, e.Kind)
	}
	return nil
}

// Known is something of the directory or a case with the place of the entry that put it.
type Known[T any] struct {
	Index uint64 `json:"index"`
	Value T      `json:"value"`
}

// budget counts the pseudonyms that an organisation had made on a day.
type budget struct {
	Day   string `json:"day"`
	Count int    `json:"count"`
}

// Progress is how far a disclosure is.
type Progress struct {
	BodyDigest []byte             `json:"body_digest"`
	Decision   uint64             `json:"decision"`
	Permit     bool               `json:"permit"`
	Outcome    disclosure.Outcome `json:"outcome,omitempty"` // empty: denied, or not known yet
	OutcomeAt  uint64             `json:"outcome_at,omitempty"`
}

// Ended reports whether a retry must be given what is recorded. A permit that came to nothing without the source having refused may be
// tried again under the same id: nothing was released.
func (p Progress) Ended() bool {
	return !p.Permit || p.Outcome == disclosure.Disclosed || p.Outcome == disclosure.Refused
}

// Unfinished is a permit whose outcome is not known yet.
type Unfinished struct {
	Requester disclosure.Party     `json:"requester"`
	Source    disclosure.Party     `json:"source"`
	Request   disclosure.RequestID `json:"request"`
	Case      disclosure.CaseID    `json:"case,omitempty"`
}

// Fold applies one event.
func (Folder) Fold(st ledger.State, index uint64, t time.Time, prepared any) error {
	e, ok := prepared.(*disclosure.Event)
	if !ok {
		return fmt.Errorf("casefile: prepared value is a %T", prepared)
	}
	f := fold{st: st, index: index, time: t, event: e}
	switch e.Kind {
	case disclosure.KindBrokerKeys:
		return f.put("keys", Known[*disclosure.BrokerKeys]{index, e.BrokerKeys})
	case disclosure.KindPolicyActivated:
		return f.put("policy", e.PolicyActivated)
	case disclosure.KindPartnerAdded:
		return f.partnerAdded(e.PartnerAdded)
	case disclosure.KindStatementPublished:
		return f.put(statementKey(e.By.OIN), e.StatementPublished)
	case disclosure.KindPseudonymsMade:
		return f.pseudonymsMade(e.PseudonymsMade)
	case disclosure.KindCaseOpened:
		return f.caseOpened(e.CaseOpened)
	case disclosure.KindPhaseChanged:
		return f.changeCase(func(c *disclosure.Case) { c.Phase = e.PhaseChanged.To })
	case disclosure.KindParticipantAdded:
		return f.participantAdded(e.ParticipantAdded)
	case disclosure.KindParticipantRemoved:
		return f.participantRemoved(e.ParticipantRemoved.Participant)
	case disclosure.KindCaseClosed:
		return f.changeCase(func(c *disclosure.Case) { c.Phase, c.ClosedAt = "F7", &t })
	case disclosure.KindGrantCreated:
		return f.grantCreated(e.GrantCreated)
	case disclosure.KindGrantRevoked:
		return f.grantRevoked(e.GrantRevoked.Grant)
	case disclosure.KindEvidenceRecorded:
		return f.evidenceRecorded(e.EvidenceRecorded)
	case disclosure.KindEvidenceWithdrawn:
		return f.evidenceWithdrawn(e.EvidenceWithdrawn.Evidence)
	case disclosure.KindDecisionMade:
		return f.decisionMade(e.DecisionMade)
	case disclosure.KindOutcomeRecorded:
		return f.outcomeRecorded(e.OutcomeRecorded)
	case disclosure.KindLogRead, disclosure.KindExplained:
		return nil // an entry of its own, and no state
	default:
		return fmt.Errorf("casefile: event of kind %s", e.Kind)
	}
}

// fold is one event being applied.
type fold struct {
	st    ledger.State
	index uint64
	time  time.Time
	event *disclosure.Event
}

func (f fold) put(key string, value any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("casefile: encode state: %w", err)
	}
	f.st.Put(key, encoded)
	return nil
}

// get reads a value; absent is a refusal with ReasonNotFound.
func get[T any](f fold, key string) (T, error) {
	var value T
	encoded, _, ok, err := f.st.Get(key)
	switch {
	case err != nil:
		return value, err
	case !ok:
		return value, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	return value, decode(encoded, &value)
}

func decode(encoded []byte, value any) error {
	if err := json.Unmarshal(encoded, value); err != nil {
		return fmt.Errorf("casefile: decode state: %w", err)
	}
	return nil
}

// absent refuses with ReasonAlreadyExists if the key is there.
func (f fold) absent(key string) error {
	_, _, ok, err := f.st.Get(key)
	if err != nil {
		return err
	}
	if ok {
		return fmt.Errorf("casefile: %w", disclosure.ReasonAlreadyExists)
	}
	return nil
}

// partnerAdded puts or changes a partner. An issuer signs for one organisation only.
func (f fold) partnerAdded(added *disclosure.Partner) error {
	before, err := get[disclosure.Partner](f, organisationKey(added.OIN))
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return err
	}
	if before.Issuer != "" {
		f.st.Delete(issuerKey(before.Issuer))
	}
	if added.Issuer != "" {
		if err := f.absent(issuerKey(added.Issuer)); err != nil {
			return err
		}
		f.st.Put(issuerKey(added.Issuer), []byte(added.OIN))
	}
	return f.put(organisationKey(added.OIN), added)
}

func (f fold) pseudonymsMade(made *disclosure.PseudonymsMade) error {
	spent, err := get[budget](f, budgetKey(f.event.By.OIN))
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return err
	}
	// Days only go on, as the ledger's time does. An entry that was made just before midnight and comes after one of the next day counts
	// for that day; otherwise two that take turns would renew the budget each time.
	if made.Day > spent.Day {
		spent = budget{Day: made.Day}
	}
	keys, err := get[Known[disclosure.BrokerKeys]](f, "keys")
	if err != nil {
		return err
	}
	if spent.Count += made.Count; spent.Count > keys.Value.PseudonymBudget {
		return fmt.Errorf("casefile: %w", disclosure.ReasonBudgetSpent)
	}
	return f.put(budgetKey(f.event.By.OIN), spent)
}

func (f fold) caseOpened(opened *disclosure.Case) error {
	if err := f.absent(caseKey(opened.ID)); err != nil {
		return err
	}
	c := *opened
	c.OpenedAt, c.Participants = f.time, slices.Clone(opened.Participants) // the event stays as it is
	for i := range c.Participants {
		c.Participants[i].JoinedAt = f.time
	}
	for _, oin := range organisations(c) {
		f.st.Put(memberKey(oin, c, f.index), []byte(c.ID))
	}
	f.st.Put(openedKey(c.ID), fmt.Appendf(nil, "%d", f.index))
	return f.put(caseKey(c.ID), c)
}

// changeCase changes the case of the event, which must be open, and puts it again: its version tells of every change.
func (f fold) changeCase(change func(*disclosure.Case)) error {
	c, err := get[disclosure.Case](f, caseKey(f.event.Case))
	if err != nil {
		return err
	}
	if c.ClosedAt != nil {
		return fmt.Errorf("casefile: %w", disclosure.ReasonCaseClosed)
	}
	change(&c)
	return f.put(caseKey(c.ID), c)
}

func (f fold) opened() (uint64, error) {
	return get[uint64](f, openedKey(f.event.Case))
}

func (f fold) participantAdded(added *disclosure.ParticipantAdded) error {
	opened, err := f.opened()
	if err != nil {
		return err
	}
	return f.changeCase(func(c *disclosure.Case) {
		if !c.Has(added.Participant) {
			c.Participants = append(c.Participants, disclosure.Participant{Party: added.Participant, JoinedAt: f.time})
		}
		f.st.Put(memberKey(added.Participant.OIN, *c, opened), []byte(c.ID))
		f.st.Put(identityKey(c.ID, added.Participant), added.SealedIdentity)
	})
}

func (f fold) participantRemoved(removed disclosure.Party) error {
	opened, err := f.opened()
	if err != nil {
		return err
	}
	return f.changeCase(func(c *disclosure.Case) {
		c.Participants = slices.DeleteFunc(c.Participants, func(p disclosure.Participant) bool { return p.Party == removed })
		f.st.Delete(identityKey(c.ID, removed))
		if !slices.Contains(organisations(*c), removed.OIN) {
			f.st.Delete(memberKey(removed.OIN, *c, opened))
		}
	})
}

func (f fold) grantCreated(grant *disclosure.Grant) error {
	if err := f.absent(grantedKey(grant.ID)); err != nil {
		return err
	}
	if err := f.changeCase(func(*disclosure.Case) {}); err != nil {
		return err
	}
	f.st.Put(grantedKey(grant.ID), []byte(grant.Case))
	return f.put(grantKey(grant.Case, grant.ID), grant)
}

func (f fold) grantRevoked(id disclosure.GrantID) error {
	grant, err := get[disclosure.Grant](f, grantKey(f.event.Case, id))
	if err != nil {
		return err
	}
	if grant.RevokedAt != nil {
		return errEnded
	}
	if err := f.changeCase(func(*disclosure.Case) {}); err != nil {
		return err
	}
	grant.RevokedAt = &f.time
	return f.put(grantKey(grant.Case, grant.ID), grant)
}

func (f fold) evidenceRecorded(evidence *disclosure.Evidence) error {
	key := f.evidenceKey(evidence.ID, evidence.RecordedFor.OIN)
	if err := f.absent(key); err != nil {
		return err
	}
	if err := f.touch(evidence.RecordedFor.OIN); err != nil {
		return err
	}
	f.st.Put(recordedKey(key), nil)
	return f.put(key, evidence)
}

func (f fold) evidenceWithdrawn(id disclosure.EvidenceID) error {
	key := f.evidenceKey(id, f.event.By.OIN)
	evidence, err := get[disclosure.Evidence](f, key)
	if err != nil {
		return err
	}
	if evidence.WithdrawnAt != nil {
		return errEnded
	}
	if err := f.touch(f.event.By.OIN); err != nil {
		return err
	}
	evidence.WithdrawnAt = &f.time
	return f.put(key, evidence)
}

func (f fold) evidenceKey(id disclosure.EvidenceID, recorder disclosure.OIN) string {
	if f.event.Case == "" {
		return organisationEvidencePrefix(recorder) + string(id)
	}
	return evidencePrefix(f.event.Case) + string(id)
}

// touch gives the case of the event, or outside a case the organisation, a new version.
func (f fold) touch(oin disclosure.OIN) error {
	if f.event.Case != "" {
		return f.changeCase(func(*disclosure.Case) {})
	}
	partner, err := get[disclosure.Partner](f, organisationKey(oin))
	if err != nil {
		return err
	}
	return f.put(organisationKey(oin), partner)
}

func (f fold) decisionMade(made *disclosure.DecisionMade) error {
	request := made.Input.Request
	key := requestKey(request.Requester.OIN, request.ID)
	before, err := get[Progress](f, key)
	switch {
	case errors.Is(err, disclosure.ReasonNotFound):
	case err != nil:
		return err
	case !slices.Equal(before.BodyDigest, made.BodyDigest):
		return fmt.Errorf("casefile: %w", disclosure.ReasonRequestIDReused)
	case before.Ended(), before.Outcome == "":
		return fmt.Errorf("casefile: %w", disclosure.ReasonRequestInProgress)
	}
	permit := made.Decision.Effect == disclosure.Permit
	if permit {
		if valid := made.Decision.ValidUntil; valid != nil && !f.time.Before(*valid) {
			return ErrStale
		}
		unfinished := Unfinished{
			Requester: request.Requester, Source: request.Source, Request: request.ID, Case: request.Case,
		}
		if err := f.put(openKey(f.index), unfinished); err != nil {
			return err
		}
	}
	return f.put(key, Progress{BodyDigest: made.BodyDigest, Decision: f.index, Permit: permit})
}

func (f fold) outcomeRecorded(recorded *disclosure.OutcomeRecorded) error {
	if recorded.Outcome == disclosure.Dropped {
		return nil // says that a late answer was thrown away; how the disclosure ended is another entry, before or after this one
	}
	unfinished, err := get[Unfinished](f, openKey(recorded.DecisionIndex))
	if errors.Is(err, disclosure.ReasonNotFound) {
		return errEnded
	}
	if err != nil {
		return err
	}
	key := requestKey(unfinished.Requester.OIN, unfinished.Request)
	progress, err := get[Progress](f, key)
	if err != nil {
		return err
	}
	progress.Outcome, progress.OutcomeAt = recorded.Outcome, f.index
	f.st.Delete(openKey(recorded.DecisionIndex))
	return f.put(key, progress)
}

func organisations(c disclosure.Case) []disclosure.OIN {
	oins := []disclosure.OIN{c.Owner.OIN}
	for _, p := range c.Participants {
		if !slices.Contains(oins, p.OIN) {
			oins = append(oins, p.OIN)
		}
	}
	return oins
}

func organisationKey(oin disclosure.OIN) string  { return "org/" + string(oin) }
func issuerKey(iss string) string                { return "issuer/" + iss }
func statementKey(oin disclosure.OIN) string     { return "statement/" + string(oin) }
func budgetKey(oin disclosure.OIN) string        { return "budget/" + string(oin) }
func caseKey(id disclosure.CaseID) string        { return "case/" + string(id) }
func openedKey(id disclosure.CaseID) string      { return "opened/" + string(id) }
func evidencePrefix(id disclosure.CaseID) string { return "evidence/" + string(id) + "/" }
func grantPrefix(id disclosure.CaseID) string    { return "grant/" + string(id) + "/" }
func grantedKey(id disclosure.GrantID) string    { return "granted/" + string(id) }
func recordedKey(evidence string) string         { return "recorded/" + evidence }
func memberPrefix(oin disclosure.OIN) string     { return "member/" + string(oin) + "/" }
func openKey(index uint64) string                { return fmt.Sprintf("open/%016x", index) }

func organisationEvidencePrefix(oin disclosure.OIN) string {
	return "orgevidence/" + string(oin) + "/"
}

func grantKey(c disclosure.CaseID, id disclosure.GrantID) string { return grantPrefix(c) + string(id) }

func identityKey(c disclosure.CaseID, p disclosure.Party) string {
	return "identity/" + string(c) + "/" + string(p.OIN) + "/" + string(p.Domain)
}

// memberKey orders an organisation's cases by when they were opened, newest first.
func memberKey(oin disclosure.OIN, c disclosure.Case, opened uint64) string {
	return fmt.Sprintf("%s%016x/%s", memberPrefix(oin), math.MaxUint64-opened, c.ID)
}

func requestKey(oin disclosure.OIN, id disclosure.RequestID) string {
	return "request/" + string(oin) + "/" + string(id)
}
