package disclosure

import "time"

// Effect is what a decision comes down to.
type Effect string

// The effects. A permit may be partial: see Decision.Withheld.
const (
	Permit Effect = "PERMIT"
	Deny   Effect = "DENY"
)

// Reason says why something was denied or withheld.
type Reason struct {
	Code      ReasonCode `json:"code"`
	Article   string     `json:"article,omitempty"`   // as the catalogue cites it
	Row       RowID      `json:"row,omitempty"`       // the candidate row it was found in
	Condition Condition  `json:"condition,omitempty"` // the condition of that row that is not proven
}

// Withheld is a part of the request that was not released, and why.
type Withheld struct {
	Field  Field  `json:"field"`
	Reason Reason `json:"reason"`
}

// Obligation is something that must be done with a permit (XACML), such as informing the data subject or not storing the answer.
type Obligation struct {
	Type    string `json:"type"` // a code of the catalogue, such as NO_ONWARD_SHARING
	Detail  string `json:"detail,omitempty"`
	Article string `json:"article,omitempty"`
}

// Decision is the answer of the policy. Everything in it follows from the DecisionInput and the policy named by its digest.
type Decision struct {
	Effect       Effect       `json:"effect"`
	Rows         []RowID      `json:"rows,omitempty"`     // that carry the permit
	Articles     []string     `json:"articles,omitempty"` // AVG ground, exception and national law of those rows
	Released     []Field      `json:"released,omitempty"` // concrete fields, sorted; empty on a denial
	Withheld     []Withheld   `json:"withheld,omitempty"` // the other fields asked for, with the reason
	Reasons      []Reason     `json:"reasons,omitempty"`  // why denied; empty on a permit
	Obligations  []Obligation `json:"obligations,omitempty"`
	Retention    string       `json:"retention,omitempty"` // retention rule for the recipient, a code of the catalogue
	ValidUntil   *time.Time   `json:"valid_until,omitempty"`
	PolicyDigest string       `json:"policy_digest"` // "sha256:" and 64 hexadecimal digits
}

// Outcome is how a permitted disclosure ended.
type Outcome string

// The outcomes.
const (
	Disclosed Outcome = "DISCLOSED" // the sealed answer was released to the requester
	Refused   Outcome = "REFUSED"   // the source refused: house rule, identity mismatch, permit not accepted
	Failed    Outcome = "FAILED"    // source offline, too slow or broken; or its answer did not match the permit
	Abandoned Outcome = "ABANDONED" // the broker stopped before the answer was recorded
	Dropped   Outcome = "DROPPED"   // an answer came too late and was thrown away
)
