package casefile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

const (
	processor    disclosure.OIN = "00000001009999999000"
	municipality disclosure.OIN = "00000001001234567000"
	police       disclosure.OIN = "00000001007654321000"
	care         disclosure.OIN = "00000001005555555000"

	subject disclosure.Pseudonym = "ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	other   disclosure.Pseudonym = "ps1-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func process() disclosure.Party   { return disclosure.Party{OIN: municipality, Domain: "ME"} }
func benefits() disclosure.Party  { return disclosure.Party{OIN: municipality, Domain: "MW"} }
func constable() disclosure.Party { return disclosure.Party{OIN: police, Domain: "P"} }
func nurse() disclosure.Party     { return disclosure.Party{OIN: care, Domain: "CG"} }

// epoch is when the tests begin.
func epoch() time.Time { return time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC) }

// memory keeps state in memory as a store would: an entry's writes are kept only if it is accepted.
type memory struct {
	t     testing.TB
	items map[string]ledger.Item
	size  uint64
	now   time.Time
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, items: map[string]ledger.Item{}, now: epoch()}
}

// fold appends an event, and returns its index.
func (m *memory) fold(e disclosure.Event) (uint64, error) {
	m.t.Helper()
	payload, err := e.Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	prepared, err := casefile.Folder{}.Prepare(payload)
	if err != nil {
		return 0, err
	}
	st, before := &pending{memory: m, changed: map[string]ledger.Item{}}, jsonOf(m.t, prepared)
	err = casefile.Folder{}.Fold(st, m.size, m.now, prepared)
	if jsonOf(m.t, prepared) != before {
		m.t.Errorf("the fold changes a %s", e.Kind)
	}
	if err != nil {
		return 0, err
	}
	for key, item := range st.changed {
		if item.Version == 0 {
			delete(m.items, key)
		} else {
			m.items[key] = item
		}
	}
	m.size++
	return m.size - 1, nil
}

// must is fold for events that must be accepted.
func (m *memory) must(e disclosure.Event) uint64 {
	m.t.Helper()
	index, err := m.fold(e)
	if err != nil {
		m.t.Fatalf("%s: %v", e.Kind, err)
	}
	return index
}

func (m *memory) scan(prefix, after string) []ledger.Item {
	var items []ledger.Item
	for _, key := range slices.Sorted(maps.Keys(m.items)) {
		if strings.HasPrefix(key, prefix) && key > after {
			items = append(items, m.items[key])
		}
	}
	return items
}

// pending is state as an entry sees it.
type pending struct {
	*memory
	changed map[string]ledger.Item
}

func (p *pending) Get(key string) ([]byte, uint64, bool, error) {
	item, ok := p.changed[key]
	if !ok {
		item = p.items[key]
	}
	return item.Value, item.Version, item.Version > 0, nil
}

func (p *pending) Put(key string, value []byte) {
	p.changed[key] = ledger.Item{Key: key, Value: bytes.Clone(value), Version: p.size + 1}
}

func (p *pending) Delete(key string) { p.changed[key] = ledger.Item{Key: key} }

func (p *pending) Scan(string) iter.Seq2[ledger.Item, error] {
	p.t.Error("the fold scans: that takes too long inside a commit")
	return func(func(ledger.Item, error) bool) {}
}

// reader is committed state as a View sees it. Between any two reads something else may be committed.
type reader struct {
	*memory
	between func()
}

func (r reader) Get(_ context.Context, key string) ([]byte, uint64, bool, error) {
	if r.between != nil {
		r.between()
	}
	item := r.items[key]
	return bytes.Clone(item.Value), item.Version, item.Version > 0, nil
}

func (r reader) Scan(_ context.Context, prefix, after string, limit int) ([]ledger.Item, error) {
	if r.between != nil {
		r.between()
	}
	items := r.scan(prefix, after)
	return items[:min(limit, len(items))], nil
}

func (m *memory) view() *casefile.View { return casefile.NewView(reader{memory: m}) }

// The events of the tests.

func partner(oin disclosure.OIN, hats ...disclosure.Domain) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindPartnerAdded, By: disclosure.Party{OIN: processor},
		PartnerAdded: &disclosure.Partner{OIN: oin, Name: "Organisation", Domains: hats, JWKS: json.RawMessage(`{"keys":[]}`)},
	}
}

func opened(id disclosure.CaseID) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindCaseOpened, By: process(), Case: id,
		CaseOpened: &disclosure.Case{
			ID: id, Reference: "2026-001", Owner: process(), Regime: disclosure.RegimeLPGA, Phase: "F1", Subject: subject,
			Participants: []disclosure.Participant{{Party: process()}},
		},
	}
}

func phase(id disclosure.CaseID, from, to disclosure.Phase) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindPhaseChanged, By: process(), Case: id, PhaseChanged: &disclosure.PhaseChanged{From: from, To: to},
	}
}

func joined(id disclosure.CaseID, p disclosure.Party, sealed string) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindParticipantAdded, By: process(), Case: id,
		ParticipantAdded: &disclosure.ParticipantAdded{Participant: p, SealedIdentity: []byte(sealed)},
	}
}

func left(id disclosure.CaseID, p disclosure.Party) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindParticipantRemoved, By: process(), Case: id, ParticipantRemoved: &disclosure.ParticipantRemoved{Participant: p},
	}
}

func closed(id disclosure.CaseID) disclosure.Event {
	return disclosure.Event{Kind: disclosure.KindCaseClosed, By: process(), Case: id, CaseClosed: &disclosure.CaseClosed{Reason: "done"}}
}

func granted(id disclosure.CaseID, g disclosure.GrantID, source, recipient disclosure.Party) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindGrantCreated, By: process(), Case: id,
		GrantCreated: &disclosure.Grant{
			ID: g, Case: id, Source: source, Recipient: recipient, Purpose: "CASE_TALK", Fields: []disclosure.Field{"CONT.*"},
			FirstPhase: "F1", LastPhase: "F6", NotBefore: epoch(), ExpiresAt: epoch().Add(time.Hour),
		},
	}
}

func revoked(id disclosure.CaseID, g disclosure.GrantID) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindGrantRevoked, By: process(), Case: id, GrantRevoked: &disclosure.GrantRevoked{Grant: g, Reason: "over"},
	}
}

func recorded(id disclosure.CaseID, e disclosure.EvidenceID, by disclosure.Party, about disclosure.Pseudonym) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindEvidenceRecorded, By: by, Case: id,
		EvidenceRecorded: &disclosure.Evidence{
			ID: e, Kind: "CONS", Case: id, Subject: about, RecordedFor: by, ValidFrom: epoch(), ValidUntil: epoch().Add(time.Hour),
		},
	}
}

func withdrawn(id disclosure.CaseID, e disclosure.EvidenceID, by disclosure.Party) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindEvidenceWithdrawn, By: by, Case: id,
		EvidenceWithdrawn: &disclosure.EvidenceWithdrawn{Evidence: e, Reason: "asked to"},
	}
}

func decided(request disclosure.RequestID, body string, effect disclosure.Effect, until *time.Time) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindDecisionMade, By: constable(),
		DecisionMade: &disclosure.DecisionMade{
			BodyDigest: []byte(body),
			Input: disclosure.DecisionInput{Request: disclosure.Request{
				ID: request, Requester: constable(), Source: nurse(), Subject: subject, Purpose: "DANGER",
			}},
			Decision: disclosure.Decision{
				Effect: effect, ValidUntil: until, Reasons: []disclosure.Reason{{Code: disclosure.ReasonNoGrant}},
				Withheld: []disclosure.Withheld{{Field: "CONT.phone", Reason: disclosure.Reason{Code: disclosure.ReasonNotGranted}}},
			},
		},
	}
}

func ended(index uint64, request disclosure.RequestID, outcome disclosure.Outcome) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: disclosure.Party{OIN: processor},
		OutcomeRecorded: &disclosure.OutcomeRecorded{
			Request: request, Requester: constable(), Source: nurse(), DecisionIndex: index, Outcome: outcome,
			Reason: disclosure.ReasonSourceTimeout,
		},
	}
}

func brokerKeys(budget int) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindBrokerKeys, By: disclosure.Party{OIN: processor},
		BrokerKeys: &disclosure.BrokerKeys{OIN: processor, PseudonymBudget: budget},
	}
}

func pseudonyms(by disclosure.OIN, day string, count int) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindPseudonymsMade, By: disclosure.Party{OIN: by},
		PseudonymsMade: &disclosure.PseudonymsMade{Count: count, Day: day},
	}
}

func statement(by disclosure.OIN, text string) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindStatementPublished, By: disclosure.Party{OIN: by},
		StatementPublished: &disclosure.StatementPublished{Statement: []byte(text), NotAfter: epoch().Add(time.Hour)},
	}
}

func policy(digest string) disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindPolicyActivated, By: disclosure.Party{OIN: processor},
		PolicyActivated: &disclosure.PolicyActivated{Digest: digest, Revision: "1"},
	}
}

func lookedUp() disclosure.Event {
	return disclosure.Event{
		Kind: disclosure.KindLogRead, By: disclosure.Party{OIN: police},
		LogRead: &disclosure.LogRead{What: "GetEntry", Terms: []string{"index=1"}, Reason: "a complaint"},
	}
}

func explained() disclosure.Event {
	e := decided("", "", disclosure.Permit, nil)
	e.Kind, e.Explained, e.DecisionMade = disclosure.KindExplained, e.DecisionMade, nil
	return e
}

// oneOfEach is an event of every kind, in an order in which all are accepted.
func oneOfEach() []disclosure.Event {
	until := epoch().Add(time.Hour)
	return []disclosure.Event{
		brokerKeys(10), policy("sha256:1"), partner(municipality, "ME", "MW"), partner(police, "P"), partner(care, "CG"),
		statement(police, "keys of the police"), pseudonyms(municipality, "2026-03-02", 3), opened("c1"), phase("c1", "F1", "F2"),
		joined("c1", constable(), "identity"), joined("c1", nurse(), "identity"), granted("c1", "g1", nurse(), constable()),
		recorded("c1", "e1", nurse(), subject), recorded("", "e2", nurse(), ""), withdrawn("c1", "e1", nurse()), withdrawn("", "e2", nurse()),
		revoked("c1", "g1"), left("c1", nurse()), decided("r1", "body", disclosure.Permit, &until), lookedUp(), explained(),
		ended(18, "r1", disclosure.Disclosed), ended(18, "r1", disclosure.Dropped), closed("c1"),
	}
}

func allKinds() []disclosure.Kind {
	return []disclosure.Kind{
		disclosure.KindBrokerKeys, disclosure.KindPolicyActivated, disclosure.KindPartnerAdded, disclosure.KindStatementPublished,
		disclosure.KindPseudonymsMade, disclosure.KindCaseOpened, disclosure.KindPhaseChanged, disclosure.KindParticipantAdded,
		disclosure.KindParticipantRemoved, disclosure.KindCaseClosed, disclosure.KindGrantCreated, disclosure.KindGrantRevoked,
		disclosure.KindEvidenceRecorded, disclosure.KindEvidenceWithdrawn, disclosure.KindDecisionMade, disclosure.KindOutcomeRecorded,
		disclosure.KindLogRead, disclosure.KindExplained,
	}
}
