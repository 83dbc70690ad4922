package disclosure

import (
	"slices"
	"time"
)

// Caller is who calls the broker: an organisation, known by its certificate, and for most calls one of its people, known by a token of that
// organisation's issuer.
type Caller struct {
	Organisation OIN
	Person       PersonRef // empty: no token was shown
	Roles        []Role
	Domains      []Domain // the hats that the person's organisation lets the person wear
}

// Is reports whether the caller is a person in one of the roles.
func (c Caller) Is(roles ...Role) bool {
	return c.Person != "" && slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(c.Roles, r) })
}

// Query is what a requester asks.
type Query struct {
	Domain  Domain // the hat of the requester
	Case    CaseID // empty outside a case
	Subject Pseudonym
	Source  Party
	Purpose Purpose
	Fields  []Field
	Motive  *Motivation
}

// Signed is a payload with a signature over it. What is signed, with which key and prefix, is said by the package that signs.
type Signed struct {
	Payload   []byte
	Signature []byte
}

// Receipt shows that an entry is in the ledger: the leaf commits to salt and payload.
type Receipt struct {
	Index   uint64
	Time    time.Time
	Leaf    []byte
	Salt    []byte
	Payload []byte
}

// Disclosure is one act of giving data to a recipient, or the refusal of it, as the requester sees it.
type Disclosure struct {
	Request         RequestID
	Decision        Decision
	Outcome         Outcome // empty when denied
	OutcomeReason   ReasonCode
	Permit          Signed
	Manifest        Signed
	SourceStatement []byte
	Answer          []byte // sealed to the requester
	DecisionReceipt Receipt
	OutcomeReceipt  *Receipt // nil when denied
}

// Question is what the broker asks a source.
type Question struct {
	Permit             Signed
	SealedIdentity     []byte
	RequesterStatement []byte
}

// Reply is what a source answers.
type Reply struct {
	Manifest Signed
	Answer   []byte // sealed to the requester; empty on a refusal
}

// Organisation is an organisation in the directory, with its signed key statement if it published one.
type Organisation struct {
	Partner
	Statement []byte
}

// Explanation says what would be decided and what is missing.
type Explanation struct {
	Decision Decision
	Rows     []RowExplanation
}

// RowExplanation says what a row of the catalogue asks.
type RowExplanation struct {
	Row        RowID
	Articles   []string
	Categories []Category
	Conditions []ConditionExplanation
	Confidence string // V (text seen), P (partly), K (from knowledge only)
}

// ConditionExplanation says whether a condition is proven and who can prove it.
type ConditionExplanation struct {
	Condition Condition
	Proven    bool
	EN, NL    string
	Suppliers []Domain // whose people may record the evidence; empty where nobody needs to
}

// Evaluation is an evaluation of the OPRF.
type Evaluation struct {
	Elements        [][]byte
	Proof           []byte
	KeyVersion      uint32
	RemainingBudget int
}

// EntryQuery selects entries of the ledger; what is set must match.
type EntryQuery struct {
	Case      CaseID
	Subject   Pseudonym
	Requester OIN
	Source    OIN
	Purpose   Purpose
	Kind      Kind
	Reason    ReasonCode
	From, To  time.Time
	Before    uint64 // entries before this one; 0 means from the newest
	Limit     int
}
