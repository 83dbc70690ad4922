package receipt

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"sluis/internal/disclosure"
)

// Permit is the broker's order to a source to release fields about one person to one requester: what the policy decided, in the words of the
// source. It names neither the person nor a citizen service number; the identity comes sealed beside it.
type Permit struct {
	Version            int                     `json:"v"`
	Request            disclosure.RequestID    `json:"request"`
	Case               disclosure.CaseID       `json:"case,omitempty"` // empty outside a case
	Subject            disclosure.Pseudonym    `json:"subject"`
	Requester          disclosure.Party        `json:"requester"`
	Person             disclosure.PersonRef    `json:"person"` // who asks; of the requester's organisation
	Source             disclosure.Party        `json:"source"`
	Purpose            disclosure.Purpose      `json:"purpose"`
	Fields             []disclosure.Field      `json:"fields"` // concrete, 1 to disclosure.MaxFields
	Rows               []disclosure.RowID      `json:"rows"`   // of the catalogue, that carry the permit
	Obligations        []disclosure.Obligation `json:"obligations,omitempty"`
	Retention          string                  `json:"retention,omitempty"` // retention rule for the recipient
	DecisionIndex      uint64                  `json:"decision_index"`      // of the decision's entry in the ledger
	PolicyDigest       string                  `json:"policy_digest"`       // "sha256:" and 64 hexadecimal digits
	Sealer             disclosure.OIN          `json:"sealer"`              // whose signature the sealed identity must carry
	RequesterStatement []byte                  `json:"requester_statement"` // SHA-256 of the key statement to seal the answer to
	IssuedAt           time.Time               `json:"issued_at"`
	ExpiresAt          time.Time               `json:"expires_at"` // at most disclosure.PermitTerm after IssuedAt
}

// SignPermit encodes and signs a permit; its Version is set. The signer holds the broker's permit key, Ed25519, and signs the message itself
// (crypto.Hash(0)). Errors wrap ErrMalformed or ErrSignature, or are the signer's.
func SignPermit(p Permit, signer crypto.Signer) (disclosure.Signed, error) {
	p.Version = Version
	if err := p.check(); err != nil {
		return disclosure.Signed{}, fmt.Errorf("%w: permit: %w", ErrMalformed, err)
	}
	return sign("permit", permitPrefix, MaxPermit, p, signer)
}

// OpenPermit checks the signature of a permit as received, decodes it, and checks that it is valid at now. It does not know for whom: the
// source compares Source with itself and refuses a Request that it has seen before. Errors wrap ErrSignature, ErrMalformed or ErrExpired; with
// ErrExpired alone the permit is returned all the same, so that the source can refuse it in a signed manifest.
func OpenPermit(payload, signature []byte, key ed25519.PublicKey, now time.Time) (Permit, error) {
	if err := verify("permit", permitPrefix, MaxPermit, payload, signature, key); err != nil {
		return Permit{}, err
	}
	p, err := decodePermit(payload)
	if err != nil {
		return Permit{}, err
	}
	if now.Before(p.IssuedAt.Add(-disclosure.ClockSkew)) || now.After(p.ExpiresAt.Add(disclosure.ClockSkew)) {
		return p, ErrExpired
	}
	return p, nil
}

func decodePermit(payload []byte) (Permit, error) {
	var p Permit
	if err := decode("permit", payload, &p, json.Marshal); err != nil {
		return Permit{}, err
	}
	if err := p.check(); err != nil {
		return Permit{}, fmt.Errorf("%w: permit: %w", ErrMalformed, err)
	}
	return p, nil
}

var (
	rowPattern    = regexp.MustCompile(`^[A-Z][A-Z0-9-]{0,39}$`)
	codePattern   = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

func (p Permit) check() error {
	return firstError(
		ensure(p.Version == Version, "unknown version"),
		checkID("request", p.Request),
		p.checkCase(),
		p.checkSubject(),
		checkParty("requester", p.Requester),
		checkParty("source", p.Source),
		ensure(p.Requester != p.Source, "requester and source are the same"),
		checkPerson(p.Person, p.Requester.OIN),
		p.checkPurpose(),
		ensure(len(p.Fields) > 0, "no fields"),
		checkFields(p.Fields),
		checkRows(p.Rows),
		checkObligations(p.Obligations),
		ensure(isText(p.Retention, disclosure.MaxText), "retention"),
		ensure(digestPattern.MatchString(p.PolicyDigest), "policy digest"),
		p.checkSealer(),
		ensure(len(p.RequesterStatement) == sha256.Size, "digest of the requester's key statement"),
		ensure(p.ExpiresAt.After(p.IssuedAt) && p.ExpiresAt.Sub(p.IssuedAt) <= disclosure.PermitTerm, "term"),
	)
}

func (p Permit) checkCase() error {
	if p.Case == "" {
		return nil
	}
	return checkID("case", p.Case)
}

func (p Permit) checkSubject() error {
	_, err := disclosure.ParsePseudonym(string(p.Subject))
	return err
}

func (p Permit) checkPurpose() error {
	_, err := disclosure.ParsePurpose(string(p.Purpose))
	return err
}

func (p Permit) checkSealer() error {
	_, err := disclosure.ParseOIN(string(p.Sealer))
	return err
}

// checkPerson wants a professional of the requesting organisation: one organisation cannot ask in the name of another's people.
func checkPerson(person disclosure.PersonRef, organisation disclosure.OIN) error {
	_, subject, _ := strings.Cut(string(person), "/")
	if person.Organisation() != organisation || subject == "" || !isText(subject, 255) {
		return errors.New("person is not of the requester")
	}
	return nil
}

func checkRows(rows []disclosure.RowID) error {
	if len(rows) == 0 || len(rows) > disclosure.MaxListed {
		return errors.New("want 1 to 100 rows")
	}
	for _, row := range rows {
		if !rowPattern.MatchString(string(row)) {
			return errors.New("row")
		}
	}
	return nil
}

func checkObligations(obligations []disclosure.Obligation) error {
	if len(obligations) > disclosure.MaxListed {
		return errors.New("too many obligations")
	}
	for _, o := range obligations {
		if !codePattern.MatchString(o.Type) || !isText(o.Detail, disclosure.MaxText) || !isText(o.Article, disclosure.MaxText) {
			return errors.New("obligation")
		}
	}
	return nil
}
