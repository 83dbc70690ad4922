package disclosure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// EventVersion is the version of the event format that this program writes and reads.
const EventVersion = 1

// Kind says what an event is about; exactly the member of the same name is set.
type Kind string

// The kinds of events. Together they are the payloads of the ledger: every table in Sluis is a projection of them.
const (
	KindBrokerKeys         Kind = "BROKER_KEYS"
	KindPolicyActivated    Kind = "POLICY_ACTIVATED"
	KindPartnerAdded       Kind = "PARTNER_ADDED"
	KindStatementPublished Kind = "STATEMENT_PUBLISHED"
	KindPseudonymsMade     Kind = "PSEUDONYMS_MADE"
	KindCaseOpened         Kind = "CASE_OPENED"
	KindPhaseChanged       Kind = "PHASE_CHANGED"
	KindParticipantAdded   Kind = "PARTICIPANT_ADDED"
	KindParticipantRemoved Kind = "PARTICIPANT_REMOVED"
	KindCaseClosed         Kind = "CASE_CLOSED"
	KindGrantCreated       Kind = "GRANT_CREATED"
	KindGrantRevoked       Kind = "GRANT_REVOKED"
	KindEvidenceRecorded   Kind = "EVIDENCE_RECORDED"
	KindEvidenceWithdrawn  Kind = "EVIDENCE_WITHDRAWN"
	KindDecisionMade       Kind = "DECISION_MADE"
	KindOutcomeRecorded    Kind = "OUTCOME_RECORDED"
	KindLogRead            Kind = "LOG_READ"
	KindExplained          Kind = "EXPLAINED"
)

// Event is the payload of one ledger entry, encoded as JSON: readable by whoever holds a receipt, without a program of ours. Its time is the
// time of the leaf.
type Event struct {
	Version int       `json:"v"`
	Kind    Kind      `json:"kind"`
	Actor   PersonRef `json:"actor,omitempty"` // empty: the broker itself, or an organisation without a person
	By      Party     `json:"by"`              // the organisation and hat that acted; the broker has only an OIN
	Case    CaseID    `json:"case,omitempty"`

	BrokerKeys         *BrokerKeys         `json:"broker_keys,omitempty"`
	PolicyActivated    *PolicyActivated    `json:"policy_activated,omitempty"`
	PartnerAdded       *Partner            `json:"partner_added,omitempty"`
	StatementPublished *StatementPublished `json:"statement_published,omitempty"`
	PseudonymsMade     *PseudonymsMade     `json:"pseudonyms_made,omitempty"`
	CaseOpened         *Case               `json:"case_opened,omitempty"`
	PhaseChanged       *PhaseChanged       `json:"phase_changed,omitempty"`
	ParticipantAdded   *ParticipantAdded   `json:"participant_added,omitempty"`
	ParticipantRemoved *ParticipantRemoved `json:"participant_removed,omitempty"`
	CaseClosed         *CaseClosed         `json:"case_closed,omitempty"`
	GrantCreated       *Grant              `json:"grant_created,omitempty"`
	GrantRevoked       *GrantRevoked       `json:"grant_revoked,omitempty"`
	EvidenceRecorded   *Evidence           `json:"evidence_recorded,omitempty"`
	EvidenceWithdrawn  *EvidenceWithdrawn  `json:"evidence_withdrawn,omitempty"`
	DecisionMade       *DecisionMade       `json:"decision_made,omitempty"`
	OutcomeRecorded    *OutcomeRecorded    `json:"outcome_recorded,omitempty"`
	LogRead            *LogRead            `json:"log_read,omitempty"`
	Explained          *DecisionMade       `json:"explained,omitempty"`
}

// BrokerKeys publishes the broker's public keys. An agent trusts them because it pins the key of the ledger and this event is in it.
type BrokerKeys struct {
	OIN              OIN    `json:"oin"`
	Origin           string `json:"origin"`             // of the checkpoints (c2sp.org/tlog-checkpoint)
	LedgerKey        string `json:"ledger_key"`         // verifier key (c2sp.org/signed-note)
	PermitKey        []byte `json:"permit_key"`         // Ed25519
	PseudonymKey     []byte `json:"pseudonym_key"`      // VOPRF public key (RFC 9497)
	PseudonymVersion uint32 `json:"pseudonym_version"`  // of that key; the number in "ps1-..."
	PseudonymBudget  int    `json:"pseudonyms_per_day"` // per organisation
}

// PolicyActivated says which policy decides from this entry on.
type PolicyActivated struct {
	Digest   string `json:"digest"` // "sha256:" and 64 hexadecimal digits
	Revision string `json:"revision"`
}

// Partner is an organisation in the directory.
type Partner struct {
	OIN     OIN             `json:"oin"`
	Name    string          `json:"name"`
	Domains []Domain        `json:"domains"`          // the hats it may wear
	Issuer  string          `json:"issuer,omitempty"` // of its people's tokens (OIDC iss)
	JWKS    json.RawMessage `json:"jwks,omitempty"`   // the issuer's public keys (RFC 7517)
}

// StatementPublished holds an organisation's signed key statement, exactly as signed.
type StatementPublished struct {
	Statement []byte    `json:"statement"`
	NotAfter  time.Time `json:"not_after"`
}

// PseudonymsMade counts evaluations of the OPRF, against enumeration. It says nothing about whom.
type PseudonymsMade struct {
	Count int    `json:"count"`
	Day   string `json:"day"` // UTC, YYYY-MM-DD
}

// PhaseChanged moves a case.
type PhaseChanged struct {
	From Phase `json:"from"`
	To   Phase `json:"to"`
}

// ParticipantAdded lets an organisation take part in a case, and holds the person's identity sealed to it.
type ParticipantAdded struct {
	Participant    Party  `json:"participant"`
	SealedIdentity []byte `json:"sealed_identity"`
}

// ParticipantRemoved ends the participation of an organisation.
type ParticipantRemoved struct {
	Participant Party `json:"participant"`
}

// CaseClosed shields a case.
type CaseClosed struct {
	Reason string `json:"reason"`
}

// GrantRevoked ends a grant.
type GrantRevoked struct {
	Grant  GrantID `json:"grant"`
	Reason string  `json:"reason"`
}

// EvidenceWithdrawn ends the use of a piece of evidence, forward only (AVG art. 7(3)).
type EvidenceWithdrawn struct {
	Evidence EvidenceID `json:"evidence"`
	Reason   string     `json:"reason"`
}

// DecisionMade records a decision with all that it was made from.
type DecisionMade struct {
	BodyDigest    []byte        `json:"body_digest"` // SHA-256 of the request as received: a retry must match
	Input         DecisionInput `json:"input"`
	Decision      Decision      `json:"decision"`
	RequesterKeys []byte        `json:"requester_keys,omitempty"` // SHA-256 of the key statement the answer is sealed to
}

// OutcomeRecorded records how a permitted disclosure ended.
type OutcomeRecorded struct {
	Request           RequestID  `json:"request"`
	Requester         Party      `json:"requester"`
	Source            Party      `json:"source"`
	DecisionIndex     uint64     `json:"decision_index"`
	Outcome           Outcome    `json:"outcome"`
	Reason            ReasonCode `json:"reason,omitempty"`
	PermitDigest      []byte     `json:"permit_digest,omitempty"`
	Manifest          []byte     `json:"manifest,omitempty"` // as signed by the source
	ManifestSignature []byte     `json:"manifest_signature,omitempty"`
	Released          []Field    `json:"released,omitempty"` // copied from the manifest
	Withheld          []Withheld `json:"withheld,omitempty"` // copied from the manifest
}

// LogRead records that someone looked something up in the ledger, and why.
type LogRead struct {
	What   string   `json:"what"` // the method
	Terms  []string `json:"terms,omitempty"`
	Reason string   `json:"reason"`
}

// Encode returns the event as it is stored.
func (e Event) Encode() ([]byte, error) {
	e.Version = EventVersion
	return json.Marshal(e)
}

// DecodeEvent reads an event as stored. It refuses unknown members, an unknown version, and an event whose kind and member disagree.
func DecodeEvent(payload []byte) (Event, error) {
	var e Event
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return Event{}, fmt.Errorf("%w: event: %w", ErrMalformed, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Event{}, fmt.Errorf("%w: event: data after its end", ErrMalformed)
	}
	if e.Version != EventVersion {
		return Event{}, fmt.Errorf("%w: event version %d", ErrMalformed, e.Version)
	}
	if err := e.Check(); err != nil {
		return Event{}, err
	}
	return e, nil
}

var errKind = errors.New("kind and member of the event disagree")

// Check refuses an event unless exactly the member of its kind is set.
func (e Event) Check() error {
	set := map[Kind]bool{
		KindBrokerKeys:         e.BrokerKeys != nil,
		KindPolicyActivated:    e.PolicyActivated != nil,
		KindPartnerAdded:       e.PartnerAdded != nil,
		KindStatementPublished: e.StatementPublished != nil,
		KindPseudonymsMade:     e.PseudonymsMade != nil,
		KindCaseOpened:         e.CaseOpened != nil,
		KindPhaseChanged:       e.PhaseChanged != nil,
		KindParticipantAdded:   e.ParticipantAdded != nil,
		KindParticipantRemoved: e.ParticipantRemoved != nil,
		KindCaseClosed:         e.CaseClosed != nil,
		KindGrantCreated:       e.GrantCreated != nil,
		KindGrantRevoked:       e.GrantRevoked != nil,
		KindEvidenceRecorded:   e.EvidenceRecorded != nil,
		KindEvidenceWithdrawn:  e.EvidenceWithdrawn != nil,
		KindDecisionMade:       e.DecisionMade != nil,
		KindOutcomeRecorded:    e.OutcomeRecorded != nil,
		KindLogRead:            e.LogRead != nil,
		KindExplained:          e.Explained != nil,
	}
	if !set[e.Kind] {
		return fmt.Errorf("%w: %w", ErrMalformed, errKind)
	}
	for kind, isSet := range set {
		if isSet && kind != e.Kind {
			return fmt.Errorf("%w: %w", ErrMalformed, errKind)
		}
	}
	return nil
}
