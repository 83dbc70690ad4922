package disclosure

// ReasonCode is the one vocabulary of refusals: the policy's reason, the gRPC ErrorInfo reason, the ledger's reason and the key of the
// console's text are the same code (AIP-193).
type ReasonCode string

// Reasons that the policy gives.
const (
	ReasonNoRow               ReasonCode = "NO_ROW"
	ReasonPurposeMismatch     ReasonCode = "PURPOSE_MISMATCH"
	ReasonPurposeIncompatible ReasonCode = "PURPOSE_INCOMPATIBLE"
	ReasonGrantExpired        ReasonCode = "GRANT_EXPIRED"
	ReasonGrantRevoked        ReasonCode = "GRANT_REVOKED"
	ReasonNoGrant             ReasonCode = "NO_GRANT"
	ReasonConsentMissing      ReasonCode = "CONSENT_MISSING"
	ReasonConsentWithdrawn    ReasonCode = "CONSENT_WITHDRAWN"
	ReasonConsentWrongPerson  ReasonCode = "CONSENT_WRONG_PERSON"
	ReasonSecrecyNotReleased  ReasonCode = "SECRECY_NOT_RELEASED"
	ReasonNoArt9              ReasonCode = "NO_ART9"
	ReasonNoArt10             ReasonCode = "NO_ART10"
	ReasonNoW20               ReasonCode = "NO_W20"
	ReasonW20RecipientUnnamed ReasonCode = "W20_RECIPIENT_NOT_NAMED"
	ReasonMayorPurpose        ReasonCode = "MAYOR_PURPOSE"
	ReasonOutOfTarget         ReasonCode = "OUT_OF_TARGET"
	ReasonNotHit2             ReasonCode = "NOT_HIT2"
	ReasonWrongPhase          ReasonCode = "PHASE"
	ReasonNotMember           ReasonCode = "NOT_MEMBER"
	ReasonBSNNotAllowed       ReasonCode = "BSN_NOT_ALLOWED"
	ReasonHardDeny            ReasonCode = "HARD_DENY"
	ReasonRetentionOver       ReasonCode = "RETENTION_OVER"
	ReasonThirdPerson         ReasonCode = "THIRD_PERSON"
	ReasonWrongRegime         ReasonCode = "REGIME"
	ReasonNoMotivation        ReasonCode = "NO_MOTIVATION"
	ReasonObjection           ReasonCode = "OBJECTION"
	ReasonSelfApproval        ReasonCode = "SELF_APPROVAL"
	ReasonEvidenceMissing     ReasonCode = "EVIDENCE_MISSING"
	ReasonCategoryForbidden   ReasonCode = "CATEGORY_FORBIDDEN"
	ReasonCategoryNotInRow    ReasonCode = "CATEGORY_NOT_IN_ROW"
	ReasonNotGranted          ReasonCode = "NOT_GRANTED"
	ReasonUnknownCode         ReasonCode = "UNKNOWN_CODE"
	ReasonPolicyUndefined     ReasonCode = "POLICY_UNDEFINED"
	ReasonRoleNotAllowed      ReasonCode = "ROLE_NOT_ALLOWED"
)

// Reasons of the mediation: identity, state, source and broker.
const (
	ReasonUnknownOrganisation ReasonCode = "UNKNOWN_ORGANISATION"
	ReasonTokenMissing        ReasonCode = "TOKEN_MISSING"
	ReasonTokenInvalid        ReasonCode = "TOKEN_INVALID"
	ReasonTokenExpired        ReasonCode = "TOKEN_EXPIRED"
	ReasonHatNotAllowed       ReasonCode = "HAT_NOT_ALLOWED"
	ReasonInvalidRequest      ReasonCode = "INVALID_REQUEST"
	ReasonRequestIDReused     ReasonCode = "REQUEST_ID_REUSED"
	ReasonRequestInProgress   ReasonCode = "REQUEST_IN_PROGRESS"
	ReasonAnswerGone          ReasonCode = "ANSWER_GONE"
	ReasonNotFound            ReasonCode = "NOT_FOUND"
	ReasonAlreadyExists       ReasonCode = "ALREADY_EXISTS"
	ReasonCaseClosed          ReasonCode = "CASE_CLOSED"
	ReasonContention          ReasonCode = "CONTENTION"
	ReasonBudgetSpent         ReasonCode = "PSEUDONYM_BUDGET_SPENT"
	ReasonKeyStatementInvalid ReasonCode = "KEY_STATEMENT_INVALID"
	ReasonIdentityMissing     ReasonCode = "IDENTITY_MISSING"
	ReasonSourceOffline       ReasonCode = "SOURCE_OFFLINE"
	ReasonSourceTimeout       ReasonCode = "SOURCE_TIMEOUT"
	ReasonSourceFailed        ReasonCode = "SOURCE_FAILED"
	ReasonAnswerRejected      ReasonCode = "ANSWER_REJECTED"
	ReasonBrokerRestarted     ReasonCode = "BROKER_RESTARTED"
	ReasonLedgerUnavailable   ReasonCode = "LEDGER_UNAVAILABLE"
	ReasonPolicyUnavailable   ReasonCode = "POLICY_UNAVAILABLE"
	ReasonOverloaded          ReasonCode = "OVERLOADED"
	ReasonInternal            ReasonCode = "INTERNAL"
)

// Reasons that a source gives for refusing or withholding.
const (
	ReasonPermitInvalid     ReasonCode = "PERMIT_INVALID"
	ReasonPermitExpired     ReasonCode = "PERMIT_EXPIRED"
	ReasonPermitReplayed    ReasonCode = "PERMIT_REPLAYED"
	ReasonIdentityMismatch  ReasonCode = "IDENTITY_MISMATCH"
	ReasonHouseRule         ReasonCode = "HOUSE_RULE"
	ReasonPersonNotFound    ReasonCode = "PERSON_NOT_FOUND"
	ReasonPersonAmbiguous   ReasonCode = "PERSON_AMBIGUOUS"
	ReasonFieldNotAvailable ReasonCode = "FIELD_NOT_AVAILABLE"
	ReasonSecretAddress     ReasonCode = "SECRET_ADDRESS"
	ReasonTooManyRows       ReasonCode = "TOO_MANY_ROWS"
	ReasonNoData            ReasonCode = "NO_DATA"
)

// ReasonText is what a person is told about a reason.
type ReasonText struct {
	EN      string
	NL      string
	Article string // the law it rests on, or "-" where it is a matter of technique
}

// Error makes a reason code an error, so that a use case refuses with fmt.Errorf("...: %w", ReasonNotFound). The edge tells the caller the
// code and its text, and nothing of what was wrapped around it.
func (c ReasonCode) Error() string { return string(c) }
