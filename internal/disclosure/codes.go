package disclosure

import (
	"errors"
	"fmt"
	"strings"
)

// ErrMalformed is wrapped by every Parse function and Validate method of this package. Its text never repeats the offending value.
var ErrMalformed = errors.New("malformed value")

func malformed(what, want string) error {
	return fmt.Errorf("%w: %s must be %s", ErrMalformed, what, want)
}

// OIN is an organisation identification number (organisatie-identificatienummer): 20 digits, the subject serialNumber of a PKIoverheid
// certificate.
type OIN string

// ParseOIN checks the shape of an OIN.
func ParseOIN(s string) (OIN, error) {
	if len(s) != 20 || strings.Trim(s, digits) != "" {
		return "", malformed("organisation (OIN)", "20 digits")
	}
	return OIN(s), nil
}

// Domain is the "hat" an organisation wears in a request: the mayor and the benefits office are both the municipality, and the law lets
// them know different things. Examples: ME (PGA process), MW (work and income), P (police), CG (medical care), R (probation).
type Domain string

// Purpose is the specified aim of a disclosure (doelbinding, AVG art. 5(1)(b)), for example CASUSOVERLEG.
type Purpose string

// Category is a data category of the catalogue, for example POLNUIS (nuisance reports).
type Category string

// Phase is a phase of a case, F0 (signal) to F8 (destroyed).
type Phase string

// Regime is the legal regime of a case.
type Regime string

// The regimes that the catalogue knows. A radicalisation case (RAD) has a law of its own and is refused.
const (
	RegimeLPGA Regime = "LPGA" // local PGA: each organisation keeps its own legal basis
	RegimeZVH  Regime = "ZVH"  // Zorg- en Veiligheidshuis: WGS par. 2.4
)

// RowID names a row of the catalogue, for example LB-011.
type RowID string

// Condition is a condition code of the catalogue, for example CONS (consent); it is also the kind of the evidence that proves it.
type Condition string

// Role is what a person may do in Sluis, as stated by the person's own organisation.
type Role string

// The roles. Nobody grants to himself, officers cannot grant, operators see no cases.
const (
	RolePGAExpert      Role = "PGA_EXPERT"      // opens cases, grants and revokes
	RoleCaseDirector   Role = "CASE_DIRECTOR"   // directs the content of a case (casusregisseur)
	RoleProfessional   Role = "PROFESSIONAL"    // works at a partner, asks and answers
	RolePrivacyOfficer Role = "PRIVACY_OFFICER" // FG: searches and proves, AVG art. 39
	RoleOperator       Role = "OPERATOR"        // runs the broker: partners, keys, policies; no cases
)

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// isMadeOf reports whether s is one character of first and then at most 39 of rest. A disclosure has hundreds of codes: regular expressions
// would show in its cost.
func isMadeOf(s, first, rest string) bool {
	return s != "" && len(s) <= 40 && strings.IndexByte(first, s[0]) >= 0 && strings.Trim(s[1:], rest) == ""
}

func isCode(s string) bool { return isMadeOf(s, upper, upper+digits+"_") }

func parseCode[T ~string](what, s string) (T, error) {
	if !isCode(s) {
		return "", malformed(what, "a code of 1 to 40 upper-case letters, digits and underscores")
	}
	return T(s), nil
}

// ParseDomain checks the shape of a domain code.
func ParseDomain(s string) (Domain, error) { return parseCode[Domain]("domain", s) }

// ParsePurpose checks the shape of a purpose code.
func ParsePurpose(s string) (Purpose, error) { return parseCode[Purpose]("purpose", s) }

// ParseCategory checks the shape of a category code.
func ParseCategory(s string) (Category, error) { return parseCode[Category]("category", s) }

// ParsePhase checks the shape of a phase code, F0 to F8.
func ParsePhase(s string) (Phase, error) {
	if len(s) != 2 || s[0] != 'F' || s[1] < '0' || s[1] > '8' {
		return "", malformed("phase", "F0 to F8")
	}
	return Phase(s), nil
}

// ParseRegime accepts LPGA and ZVH.
func ParseRegime(s string) (Regime, error) {
	switch r := Regime(s); r {
	case RegimeLPGA, RegimeZVH:
		return r, nil
	default:
		return "", malformed("regime", "LPGA or ZVH")
	}
}

// ParseCondition checks the shape of a condition or evidence-kind code.
func ParseCondition(s string) (Condition, error) { return parseCode[Condition]("evidence kind", s) }

// Field is one field of a category, written CATEGORY.name, for example CONT.phone. In a request, CATEGORY.* stands for every field of the
// category that the active catalogue knows; a decision, a permit and a manifest only ever hold concrete fields.
type Field string

// ParseField checks the shape of a field.
func ParseField(s string) (Field, error) {
	category, name, _ := strings.Cut(s, ".")
	if !isCode(category) || name != "*" && !isMadeOf(name, lower, lower+digits+"_") {
		return "", malformed("field", "CATEGORY.name or CATEGORY.*")
	}
	return Field(s), nil
}

// Category returns the part before the dot.
func (f Field) Category() Category {
	category, _, _ := strings.Cut(string(f), ".")
	return Category(category)
}

// Name returns the part after the dot.
func (f Field) Name() string {
	_, name, _ := strings.Cut(string(f), ".")
	return name
}

// All reports whether the field stands for its whole category.
func (f Field) All() bool { return f.Name() == "*" }

// Covers reports whether asking for f asks for g.
func (f Field) Covers(g Field) bool { return f == g || f.All() && f.Category() == g.Category() }

// Pseudonym is the data subject's pseudonym (AVG art. 4(5)) as made by the OPRF: "ps", the version of the key, "-", 32 characters.
type Pseudonym string

// ParsePseudonym checks the shape of a pseudonym.
func ParsePseudonym(s string) (Pseudonym, error) {
	version, text, _ := strings.Cut(s, "-")
	number, ok := strings.CutPrefix(version, "ps")
	if !ok || len(number) > 4 || !isMadeOf(number, digits[1:], digits) || len(text) != 32 || strings.Trim(text, lower+"234567") != "" {
		return "", malformed("pseudonym", "ps<version>-<32 characters>")
	}
	return Pseudonym(s), nil
}

// CaseID, GrantID, EvidenceID and RequestID are UUIDs (RFC 9562) in their 36-character form, chosen by whoever creates the thing, so that
// creating is idempotent (AIP-155).
type (
	// CaseID names a case.
	CaseID string
	// GrantID names a grant.
	GrantID string
	// EvidenceID names a piece of evidence.
	EvidenceID string
	// RequestID names a disclosure: the request, its decision, permit, answer and receipt.
	RequestID string
)

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
				return false
			}
		}
	}
	return true
}

// ParseID checks that s is a UUID in lower case; what names it in the error.
func ParseID[T ~string](what, s string) (T, error) {
	if !isUUID(s) {
		return "", malformed(what, "a UUID in lower case")
	}
	return T(s), nil
}

// PersonRef names a professional: OIN, a slash, and the subject of the token of that organisation's issuer.
type PersonRef string

// Organisation returns the part before the slash.
func (p PersonRef) Organisation() OIN {
	oin, _, _ := strings.Cut(string(p), "/")
	return OIN(oin)
}
