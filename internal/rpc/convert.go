package rpc

import (
	"math"
	"regexp"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

// This file turns the messages of the wire into the words of the domain and back. A function xTo writes a message and trusts what it is
// given. A function xFrom reads one, from a client or from the broker, and trusts nothing: what is wrong is added to faults, and the result
// may only be used if there are none.

// Sizes of what comes from the broker or is carried for others, in bytes unless said otherwise.
const (
	maxSignedPayload = 256 << 10 // of a permit or manifest
	signatureSize    = 64        // Ed25519
	leafSize         = 41
	saltSize         = 32
	maxEntry         = 60_000 // payload of an entry
	hashSize         = 32
	elementSize      = 32  // of a group element of the OPRF
	maxElements      = 100 // in one evaluation
	maxProof         = 128
	maxHashes        = 63 // in a proof
	maxNote          = 64 << 10
	maxName          = 200 // characters
	maxShort         = 100 // characters of a row, an article's short form and the like
	minWhy           = 10  // characters of the reason for a look-up in the ledger
	maxParticipants  = 1000
	maxExplained     = 1000 // rows in an explanation
	maxHats          = 100
)

var (
	referencePattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,40}$`)
	shortCodePattern = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	detailPattern    = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)
)

// parse reads a string field with one of the Parse functions of the domain.
func parse[T any](f *faults, at *path, name, value string, parser func(string) (T, error)) T {
	parsed, err := parser(value)
	if err != nil {
		f.add(at, name, describe(err))
	}
	return parsed
}

// parseOptional is parse for a field that may be empty.
func parseOptional[T ~string](f *faults, at *path, name, value string, parser func(string) (T, error)) T {
	if value == "" {
		return ""
	}
	return parse(f, at, name, value, parser)
}

func parseID[T ~string](f *faults, at *path, name, value string) T {
	id, err := disclosure.ParseID[T](name, value)
	if err != nil {
		f.add(at, name, "must be a UUID in lower case")
	}
	return id
}

func parseOptionalID[T ~string](f *faults, at *path, name, value string) T {
	if value == "" {
		return ""
	}
	return parseID[T](f, at, name, value)
}

// parseList reads a list of codes.
func parseList[T any](f *faults, at *path, name string, values []string, limit int, parser func(string) (T, error)) []T {
	if len(values) == 0 {
		return nil
	}
	if len(values) > limit {
		f.add(at, name, "must not have that many members")
		return nil
	}
	list := make([]T, len(values))
	for i, value := range values {
		parsed, err := parser(value)
		if err != nil {
			where := at.at(name, i)
			f.add(&where, "", describe(err))
		}
		list[i] = parsed
	}
	return list
}

// text reads a text of minimum to limit characters without control characters, apart from line breaks and tabs.
func text(f *faults, at *path, name, value string, minimum, limit int) string {
	n := utf8.RuneCountInString(value)
	bad := n < minimum || n > limit || !utf8.ValidString(value)
	for _, r := range value {
		bad = bad || unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	}
	if bad {
		f.add(at, name, "must be a text of the length that the contract allows, without control characters")
		return ""
	}
	return value
}

func matches(f *faults, at *path, name, value string, pattern *regexp.Regexp, want string) string {
	if !pattern.MatchString(value) {
		f.add(at, name, want)
		return ""
	}
	return value
}

func shortCode(f *faults, at *path, name, value string) string {
	return matches(f, at, name, value, shortCodePattern, "must be a code in UPPER_SNAKE_CASE of at most 63 characters")
}

// bytesOf reads bytes of minimum to limit in length.
func bytesOf(f *faults, at *path, name string, value []byte, minimum, limit int) []byte {
	if len(value) < minimum || len(value) > limit {
		f.add(at, name, "must have a size that the contract allows")
		return nil
	}
	return value
}

func required(f *faults, at *path, present bool) bool {
	if !present {
		f.add(at, "", "is required")
	}
	return present
}

func timeTo(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func optionalTimeTo(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}

// timeFrom reads a time; if it is absent it is the zero time.
func timeFrom(f *faults, at *path, name string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	// Beyond these years a time does not fit the nanoseconds of a leaf.
	if ts.CheckValid() != nil || ts.GetSeconds() < 0 || ts.GetSeconds() >= math.MaxInt64/int64(time.Second) {
		f.add(at, name, "must be a time between 1970 and 2262")
		return time.Time{}
	}
	return ts.AsTime()
}

func requiredTimeFrom(f *faults, at *path, name string, ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		f.add(at, name, "is required")
		return time.Time{}
	}
	return timeFrom(f, at, name, ts)
}

func optionalTimeFrom(f *faults, at *path, name string, ts *timestamppb.Timestamp) *time.Time {
	if ts == nil {
		return nil
	}
	t := timeFrom(f, at, name, ts)
	return &t
}

// stringsOf turns codes into strings.
func stringsOf[T ~string](list []T) []string {
	if len(list) == 0 {
		return nil
	}
	values := make([]string, len(list))
	for i, v := range list {
		values[i] = string(v)
	}
	return values
}

// convertList converts the members of a list; it keeps nil for an empty one.
func convertList[A, B any](list []A, convert func(A) B) []B {
	if len(list) == 0 {
		return nil
	}
	converted := make([]B, len(list))
	for i, a := range list {
		converted[i] = convert(a)
	}
	return converted
}

// listFrom reads the messages of a list.
func listFrom[M, T any](f *faults, at *path, name string, list []M, limit int, from func(*faults, *path, M) T) []T {
	if len(list) == 0 {
		return nil
	}
	if len(list) > limit {
		f.add(at, name, "must not have that many members")
		return nil
	}
	converted := make([]T, len(list))
	for i, m := range list {
		where := at.at(name, i)
		converted[i] = from(f, &where, m)
	}
	return converted
}

func partyTo(p disclosure.Party) *sluisv1.Party {
	return &sluisv1.Party{Oin: string(p.OIN), Domain: string(p.Domain)}
}

func partyFrom(f *faults, at *path, m *sluisv1.Party) disclosure.Party {
	if !required(f, at, m != nil) {
		return disclosure.Party{}
	}
	return disclosure.Party{
		OIN:    parse(f, at, "oin", m.GetOin(), disclosure.ParseOIN),
		Domain: parse(f, at, "domain", m.GetDomain(), disclosure.ParseDomain),
	}
}

func motivationTo(m *disclosure.Motivation) *sluisv1.Motivation {
	if m == nil {
		return nil
	}
	return &sluisv1.Motivation{
		Aim: m.Aim, Necessity: m.Necessity, Subsidiarity: m.Subsidiarity, Proportionality: m.Proportionality,
	}
}

func motivationFrom(f *faults, at *path, m *sluisv1.Motivation) *disclosure.Motivation {
	if m == nil {
		return nil
	}
	return &disclosure.Motivation{
		Aim:             text(f, at, "aim", m.GetAim(), 0, disclosure.MaxText),
		Necessity:       text(f, at, "necessity", m.GetNecessity(), 0, disclosure.MaxText),
		Subsidiarity:    text(f, at, "subsidiarity", m.GetSubsidiarity(), 0, disclosure.MaxText),
		Proportionality: text(f, at, "proportionality", m.GetProportionality(), 0, disclosure.MaxText),
	}
}

// fieldsFrom reads 1 to 200 fields without doubles.
func fieldsFrom(f *faults, at *path, name string, values []string) []disclosure.Field {
	if len(values) == 0 || len(values) > disclosure.MaxFields {
		f.add(at, name, "must be 1 to 200 fields")
		return nil
	}
	fields := parseList(f, at, name, values, disclosure.MaxFields, disclosure.ParseField)
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(values) {
		f.add(at, name, "must be fields without duplicates")
	}
	return fields
}

func queryTo(q disclosure.Query) *sluisv1.DisclosureQuery {
	return &sluisv1.DisclosureQuery{
		Domain: string(q.Domain), CaseId: string(q.Case), Subject: string(q.Subject), Source: partyTo(q.Source),
		Purpose: string(q.Purpose), Fields: stringsOf(q.Fields), Motivation: motivationTo(q.Motive),
	}
}

func queryFrom(f *faults, at *path, m *sluisv1.DisclosureQuery) disclosure.Query {
	if !required(f, at, m != nil) {
		return disclosure.Query{}
	}
	if (m.GetCaseId() == "") == (m.GetSubject() == "") {
		f.add(at, "subject", "must be given outside a case, and only there")
	}
	source, motivation := at.to("source"), at.to("motivation")
	return disclosure.Query{
		Domain:  parse(f, at, "domain", m.GetDomain(), disclosure.ParseDomain),
		Case:    parseOptionalID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Subject: parseOptional(f, at, "subject", m.GetSubject(), disclosure.ParsePseudonym),
		Source:  partyFrom(f, &source, m.GetSource()),
		Purpose: parse(f, at, "purpose", m.GetPurpose(), disclosure.ParsePurpose),
		Fields:  fieldsFrom(f, at, "fields", m.GetFields()),
		Motive:  motivationFrom(f, &motivation, m.GetMotivation()),
	}
}

// reasonTo adds the texts for a person. The article is the one that the reason cites, or else that of the code.
func reasonTo(r disclosure.Reason) *sluisv1.Reason {
	text := r.Code.Text()
	article := r.Article
	if article == "" {
		article = text.Article
	}
	return &sluisv1.Reason{
		Code: string(r.Code), Article: article, Row: string(r.Row), Condition: string(r.Condition), TextEn: text.EN, TextNl: text.NL,
	}
}

// reasonFrom leaves the texts out: whoever shows a reason has its own text for the code.
func reasonFrom(f *faults, at *path, m *sluisv1.Reason) disclosure.Reason {
	if !required(f, at, m != nil) {
		return disclosure.Reason{}
	}
	return disclosure.Reason{
		Code:      disclosure.ReasonCode(shortCode(f, at, "code", m.GetCode())),
		Article:   text(f, at, "article", m.GetArticle(), 0, disclosure.MaxText),
		Row:       disclosure.RowID(text(f, at, "row", m.GetRow(), 0, maxShort)),
		Condition: parseOptional(f, at, "condition", m.GetCondition(), disclosure.ParseCondition),
	}
}

func withheldTo(w disclosure.Withheld) *sluisv1.Withheld {
	return &sluisv1.Withheld{Field: string(w.Field), Reason: reasonTo(w.Reason)}
}

func withheldFrom(f *faults, at *path, m *sluisv1.Withheld) disclosure.Withheld {
	reason := at.to("reason")
	return disclosure.Withheld{
		Field:  parse(f, at, "field", m.GetField(), disclosure.ParseField),
		Reason: reasonFrom(f, &reason, m.GetReason()),
	}
}

func obligationTo(o disclosure.Obligation) *sluisv1.Obligation {
	return &sluisv1.Obligation{Type: o.Type, Detail: o.Detail, Article: o.Article}
}

func obligationFrom(f *faults, at *path, m *sluisv1.Obligation) disclosure.Obligation {
	return disclosure.Obligation{
		Type:    shortCode(f, at, "type", m.GetType()),
		Detail:  text(f, at, "detail", m.GetDetail(), 0, disclosure.MaxText),
		Article: text(f, at, "article", m.GetArticle(), 0, disclosure.MaxText),
	}
}

func effectTo(e disclosure.Effect) sluisv1.Effect {
	switch e {
	case disclosure.Permit:
		return sluisv1.Effect_EFFECT_PERMIT
	case disclosure.Deny:
		return sluisv1.Effect_EFFECT_DENY
	default:
		return sluisv1.Effect_EFFECT_UNSPECIFIED
	}
}

func effectFrom(f *faults, at *path, e sluisv1.Effect) disclosure.Effect {
	switch e {
	case sluisv1.Effect_EFFECT_PERMIT:
		return disclosure.Permit
	case sluisv1.Effect_EFFECT_DENY:
		return disclosure.Deny
	case sluisv1.Effect_EFFECT_UNSPECIFIED:
	}
	f.add(at, "effect", "must be PERMIT or DENY")
	return disclosure.Deny
}

func outcomeTo(o disclosure.Outcome) sluisv1.OutcomeType {
	switch o {
	case disclosure.Disclosed:
		return sluisv1.OutcomeType_OUTCOME_TYPE_DISCLOSED
	case disclosure.Refused:
		return sluisv1.OutcomeType_OUTCOME_TYPE_REFUSED
	case disclosure.Failed:
		return sluisv1.OutcomeType_OUTCOME_TYPE_FAILED
	case disclosure.Abandoned:
		return sluisv1.OutcomeType_OUTCOME_TYPE_ABANDONED
	case disclosure.Dropped:
		return sluisv1.OutcomeType_OUTCOME_TYPE_DROPPED
	default:
		return sluisv1.OutcomeType_OUTCOME_TYPE_UNSPECIFIED
	}
}

func outcomeFrom(f *faults, at *path, o sluisv1.OutcomeType) disclosure.Outcome {
	switch o {
	case sluisv1.OutcomeType_OUTCOME_TYPE_UNSPECIFIED:
		return ""
	case sluisv1.OutcomeType_OUTCOME_TYPE_DISCLOSED:
		return disclosure.Disclosed
	case sluisv1.OutcomeType_OUTCOME_TYPE_REFUSED:
		return disclosure.Refused
	case sluisv1.OutcomeType_OUTCOME_TYPE_FAILED:
		return disclosure.Failed
	case sluisv1.OutcomeType_OUTCOME_TYPE_ABANDONED:
		return disclosure.Abandoned
	case sluisv1.OutcomeType_OUTCOME_TYPE_DROPPED:
		return disclosure.Dropped
	default:
		f.add(at, "outcome", "must be a known outcome")
		return disclosure.Failed
	}
}

func decisionTo(d disclosure.Decision) *sluisv1.Decision {
	return &sluisv1.Decision{
		Effect: effectTo(d.Effect), Rows: stringsOf(d.Rows), Articles: d.Articles, Released: stringsOf(d.Released),
		Withheld: convertList(d.Withheld, withheldTo), Reasons: convertList(d.Reasons, reasonTo),
		Obligations: convertList(d.Obligations, obligationTo), Retention: d.Retention, PolicyDigest: d.PolicyDigest,
	}
}

func decisionFrom(f *faults, at *path, m *sluisv1.Decision) disclosure.Decision {
	if !required(f, at, m != nil) {
		return disclosure.Decision{}
	}
	d := disclosure.Decision{
		Effect:       effectFrom(f, at, m.GetEffect()),
		Rows:         rowsFrom(f, at, "rows", m.GetRows()),
		Articles:     articlesFrom(f, at, "articles", m.GetArticles()),
		Released:     parseList(f, at, "released", m.GetReleased(), math.MaxInt16, disclosure.ParseField),
		Withheld:     listFrom(f, at, "withheld", m.GetWithheld(), math.MaxInt16, withheldFrom),
		Reasons:      listFrom(f, at, "reasons", m.GetReasons(), maxExplained, reasonFrom),
		Obligations:  listFrom(f, at, "obligations", m.GetObligations(), maxExplained, obligationFrom),
		Retention:    text(f, at, "retention", m.GetRetention(), 0, maxShort),
		PolicyDigest: text(f, at, "policy_digest", m.GetPolicyDigest(), 0, maxShort),
	}
	// A permit that releases nothing, or a denial that releases something, is not a decision to act upon.
	if (d.Effect == disclosure.Permit) != (len(d.Released) > 0) {
		f.add(at, "released", "must hold fields on a permit, and only there")
	}
	if slices.ContainsFunc(d.Released, disclosure.Field.All) {
		f.add(at, "released", "must hold concrete fields")
	}
	return d
}

func rowsFrom(f *faults, at *path, name string, values []string) []disclosure.RowID {
	return parseList(f, at, name, values, maxExplained, func(s string) (disclosure.RowID, error) {
		if s == "" || len(s) > maxShort || !utf8.ValidString(s) {
			return "", disclosure.ErrMalformed
		}
		return disclosure.RowID(s), nil
	})
}

func articlesFrom(f *faults, at *path, name string, values []string) []string {
	return parseList(f, at, name, values, maxExplained, func(s string) (string, error) {
		if s == "" || len(s) > 4*disclosure.MaxText || !utf8.ValidString(s) {
			return "", disclosure.ErrMalformed
		}
		return s, nil
	})
}

func receiptTo(r disclosure.Receipt) *sluisv1.Receipt {
	return &sluisv1.Receipt{Index: r.Index, Time: timeTo(r.Time), Leaf: r.Leaf, Salt: r.Salt, Payload: r.Payload}
}

func optionalReceiptTo(r *disclosure.Receipt) *sluisv1.Receipt {
	if r == nil {
		return nil
	}
	return receiptTo(*r)
}

func receiptFrom(f *faults, at *path, m *sluisv1.Receipt) disclosure.Receipt {
	if !required(f, at, m != nil) {
		return disclosure.Receipt{}
	}
	return disclosure.Receipt{
		Index:   positionFrom(f, at, "index", m.GetIndex()),
		Time:    requiredTimeFrom(f, at, "time", m.GetTime()),
		Leaf:    bytesOf(f, at, "leaf", m.GetLeaf(), leafSize, leafSize),
		Salt:    bytesOf(f, at, "salt", m.GetSalt(), saltSize, saltSize),
		Payload: bytesOf(f, at, "payload", m.GetPayload(), 1, maxEntry),
	}
}

func optionalReceiptFrom(f *faults, at *path, m *sluisv1.Receipt) *disclosure.Receipt {
	if m == nil {
		return nil
	}
	r := receiptFrom(f, at, m)
	return &r
}

// positionFrom reads a position or size of the ledger, which is less than 2^63.
func positionFrom(f *faults, at *path, name string, value uint64) uint64 {
	if value >= math.MaxInt64 {
		f.add(at, name, "must be less than 2^63 - 1")
		return 0
	}
	return value
}

func signedTo(s disclosure.Signed) *sluisv1.Signed {
	if len(s.Payload) == 0 && len(s.Signature) == 0 {
		return nil
	}
	return &sluisv1.Signed{Payload: s.Payload, Signature: s.Signature}
}

// signedFrom reads a signed payload; if it is absent it is the zero value.
func signedFrom(f *faults, at *path, m *sluisv1.Signed) disclosure.Signed {
	if m == nil {
		return disclosure.Signed{}
	}
	return disclosure.Signed{
		Payload:   bytesOf(f, at, "payload", m.GetPayload(), 1, maxSignedPayload),
		Signature: bytesOf(f, at, "signature", m.GetSignature(), signatureSize, signatureSize),
	}
}

func disclosureTo(d disclosure.Disclosure) *sluisv1.Disclosure {
	m := &sluisv1.Disclosure{
		RequestId: string(d.Request), Decision: decisionTo(d.Decision), Outcome: outcomeTo(d.Outcome),
		Permit: signedTo(d.Permit), Manifest: signedTo(d.Manifest), SourceStatement: d.SourceStatement, Answer: d.Answer,
		DecisionReceipt: receiptTo(d.DecisionReceipt), OutcomeReceipt: optionalReceiptTo(d.OutcomeReceipt),
	}
	if d.OutcomeReason != "" {
		m.OutcomeReason = reasonTo(disclosure.Reason{Code: d.OutcomeReason})
	}
	return m
}

func disclosureFrom(f *faults, at *path, m *sluisv1.Disclosure) disclosure.Disclosure {
	if !required(f, at, m != nil) {
		return disclosure.Disclosure{}
	}
	decision, permit, manifest := at.to("decision"), at.to("permit"), at.to("manifest")
	decisionReceipt, outcomeReceipt := at.to("decision_receipt"), at.to("outcome_receipt")
	d := disclosure.Disclosure{
		Request:         parseID[disclosure.RequestID](f, at, "request_id", m.GetRequestId()),
		Decision:        decisionFrom(f, &decision, m.GetDecision()),
		Outcome:         outcomeFrom(f, at, m.GetOutcome()),
		Permit:          signedFrom(f, &permit, m.GetPermit()),
		Manifest:        signedFrom(f, &manifest, m.GetManifest()),
		SourceStatement: bytesOf(f, at, "source_statement", m.GetSourceStatement(), 0, disclosure.MaxStatement),
		Answer:          bytesOf(f, at, "answer", m.GetAnswer(), 0, disclosure.MaxAnswer),
		DecisionReceipt: receiptFrom(f, &decisionReceipt, m.GetDecisionReceipt()),
		OutcomeReceipt:  optionalReceiptFrom(f, &outcomeReceipt, m.GetOutcomeReceipt()),
	}
	if m.GetOutcomeReason() != nil {
		reason := at.to("outcome_reason")
		d.OutcomeReason = reasonFrom(f, &reason, m.GetOutcomeReason()).Code
	}
	if d.Decision.Effect == disclosure.Deny && (d.Outcome != "" || len(d.Answer) > 0) {
		f.add(at, "outcome", "must be absent on a denial, and so must an answer")
	}
	return d
}

func explanationTo(e disclosure.Explanation, r disclosure.Receipt) *sluisv1.ExplainDisclosureResponse {
	return &sluisv1.ExplainDisclosureResponse{
		Decision: decisionTo(e.Decision), Rows: convertList(e.Rows, rowExplanationTo), Receipt: receiptTo(r),
	}
}

func rowExplanationTo(r disclosure.RowExplanation) *sluisv1.RowExplanation {
	return &sluisv1.RowExplanation{
		Row: string(r.Row), Articles: r.Articles, Categories: stringsOf(r.Categories),
		Conditions: convertList(r.Conditions, conditionTo), Confidence: r.Confidence,
	}
}

func rowExplanationFrom(f *faults, at *path, m *sluisv1.RowExplanation) disclosure.RowExplanation {
	return disclosure.RowExplanation{
		Row:        disclosure.RowID(text(f, at, "row", m.GetRow(), 1, maxShort)),
		Articles:   articlesFrom(f, at, "articles", m.GetArticles()),
		Categories: parseList(f, at, "categories", m.GetCategories(), maxExplained, disclosure.ParseCategory),
		Conditions: listFrom(f, at, "conditions", m.GetConditions(), maxExplained, conditionFrom),
		Confidence: text(f, at, "confidence", m.GetConfidence(), 0, maxShort),
	}
}

func conditionTo(c disclosure.ConditionExplanation) *sluisv1.ConditionExplanation {
	return &sluisv1.ConditionExplanation{
		Condition: string(c.Condition), Proven: c.Proven, TextEn: c.EN, TextNl: c.NL, Suppliers: stringsOf(c.Suppliers),
	}
}

func conditionFrom(f *faults, at *path, m *sluisv1.ConditionExplanation) disclosure.ConditionExplanation {
	return disclosure.ConditionExplanation{
		Condition: parse(f, at, "condition", m.GetCondition(), disclosure.ParseCondition),
		Proven:    m.GetProven(),
		EN:        text(f, at, "text_en", m.GetTextEn(), 0, disclosure.MaxText),
		NL:        text(f, at, "text_nl", m.GetTextNl(), 0, disclosure.MaxText),
		Suppliers: parseList(f, at, "suppliers", m.GetSuppliers(), maxHats, disclosure.ParseDomain),
	}
}

func factsTo(s disclosure.SubjectFacts) *sluisv1.SubjectFacts {
	return &sluisv1.SubjectFacts{BirthMonth: s.BirthMonth, Resident: s.Resident, MultiProblem: s.MultiProblem}
}

func factsFrom(f *faults, at *path, m *sluisv1.SubjectFacts) disclosure.SubjectFacts {
	if !required(f, at, m != nil) {
		return disclosure.SubjectFacts{}
	}
	facts := disclosure.SubjectFacts{BirthMonth: m.GetBirthMonth(), Resident: m.GetResident(), MultiProblem: m.GetMultiProblem()}
	if _, err := facts.BornBy(); err != nil {
		f.add(at, "birth_month", "must be YYYY-MM")
	}
	return facts
}

func participantTo(p disclosure.Participant) *sluisv1.Participant {
	return &sluisv1.Participant{Party: partyTo(p.Party), JoinTime: timeTo(p.JoinedAt)}
}

func participantFrom(f *faults, at *path, m *sluisv1.Participant) disclosure.Participant {
	party := at.to("party")
	return disclosure.Participant{
		Party:    partyFrom(f, &party, m.GetParty()),
		JoinedAt: timeFrom(f, at, "join_time", m.GetJoinTime()),
	}
}

func caseTo(c disclosure.Case) *sluisv1.Case {
	return &sluisv1.Case{
		CaseId: string(c.ID), Reference: c.Reference, Owner: partyTo(c.Owner), Regime: string(c.Regime), Phase: string(c.Phase),
		Subject: string(c.Subject), Facts: factsTo(c.Facts), Participants: convertList(c.Participants, participantTo),
		CreateTime: timeTo(c.OpenedAt), CloseTime: optionalTimeTo(c.ClosedAt),
	}
}

func caseFrom(f *faults, at *path, m *sluisv1.Case) disclosure.Case {
	if !required(f, at, m != nil) {
		return disclosure.Case{}
	}
	owner, facts := at.to("owner"), at.to("facts")
	return disclosure.Case{
		ID:           parseID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Reference:    referenceFrom(f, at, m.GetReference()),
		Owner:        partyFrom(f, &owner, m.GetOwner()),
		Regime:       parse(f, at, "regime", m.GetRegime(), disclosure.ParseRegime),
		Phase:        parse(f, at, "phase", m.GetPhase(), disclosure.ParsePhase),
		Subject:      parse(f, at, "subject", m.GetSubject(), disclosure.ParsePseudonym),
		Facts:        factsFrom(f, &facts, m.GetFacts()),
		Participants: listFrom(f, at, "participants", m.GetParticipants(), maxParticipants, participantFrom),
		OpenedAt:     timeFrom(f, at, "create_time", m.GetCreateTime()),
		ClosedAt:     optionalTimeFrom(f, at, "close_time", m.GetCloseTime()),
	}
}

func referenceFrom(f *faults, at *path, value string) string {
	return matches(f, at, "reference", value, referencePattern, "must be 1 to 40 letters, digits and dashes")
}

func openCaseTo(c disclosure.Case) *sluisv1.OpenCaseRequest {
	return &sluisv1.OpenCaseRequest{
		CaseId: string(c.ID), Domain: string(c.Owner.Domain), Reference: c.Reference, Regime: string(c.Regime),
		Subject: string(c.Subject), Facts: factsTo(c.Facts),
	}
}

func openCaseFrom(f *faults, at *path, m *sluisv1.OpenCaseRequest) disclosure.Case {
	facts := at.to("facts")
	return disclosure.Case{
		ID:        parseID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Owner:     disclosure.Party{Domain: parse(f, at, "domain", m.GetDomain(), disclosure.ParseDomain)},
		Reference: referenceFrom(f, at, m.GetReference()),
		Regime:    parse(f, at, "regime", m.GetRegime(), disclosure.ParseRegime),
		Subject:   parse(f, at, "subject", m.GetSubject(), disclosure.ParsePseudonym),
		Facts:     factsFrom(f, &facts, m.GetFacts()),
	}
}

// workingPhaseFrom reads a phase in which a case is worked on: F1 to F6.
func workingPhaseFrom(f *faults, at *path, name, value string) disclosure.Phase {
	phase, err := disclosure.ParsePhase(value)
	if err != nil || phase < "F1" || phase > "F6" {
		f.add(at, name, "must be F1 to F6")
	}
	return phase
}

func grantTo(g disclosure.Grant) *sluisv1.Grant {
	return &sluisv1.Grant{
		GrantId: string(g.ID), CaseId: string(g.Case), Source: partyTo(g.Source), Recipient: partyTo(g.Recipient),
		Purpose: string(g.Purpose), Fields: stringsOf(g.Fields), FirstPhase: string(g.FirstPhase), LastPhase: string(g.LastPhase),
		NotBeforeTime: timeTo(g.NotBefore), ExpireTime: timeTo(g.ExpiresAt), Motivation: motivationTo(&g.Motive),
		RevokeTime: optionalTimeTo(g.RevokedAt),
	}
}

func grantFrom(f *faults, at *path, m *sluisv1.Grant) disclosure.Grant {
	if !required(f, at, m != nil) {
		return disclosure.Grant{}
	}
	source, recipient, motivation := at.to("source"), at.to("recipient"), at.to("motivation")
	g := disclosure.Grant{
		ID:         parseID[disclosure.GrantID](f, at, "grant_id", m.GetGrantId()),
		Case:       parseID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Source:     partyFrom(f, &source, m.GetSource()),
		Recipient:  partyFrom(f, &recipient, m.GetRecipient()),
		Purpose:    parse(f, at, "purpose", m.GetPurpose(), disclosure.ParsePurpose),
		Fields:     fieldsFrom(f, at, "fields", m.GetFields()),
		FirstPhase: workingPhaseFrom(f, at, "first_phase", m.GetFirstPhase()),
		LastPhase:  workingPhaseFrom(f, at, "last_phase", m.GetLastPhase()),
		NotBefore:  requiredTimeFrom(f, at, "not_before_time", m.GetNotBeforeTime()),
		ExpiresAt:  requiredTimeFrom(f, at, "expire_time", m.GetExpireTime()),
		RevokedAt:  optionalTimeFrom(f, at, "revoke_time", m.GetRevokeTime()),
	}
	if motive := motivationFrom(f, &motivation, m.GetMotivation()); motive != nil {
		g.Motive = *motive
	}
	if g.FirstPhase > g.LastPhase {
		f.add(at, "last_phase", "must not be before the first")
	}
	if !g.ExpiresAt.After(g.NotBefore) || g.ExpiresAt.Sub(g.NotBefore) > disclosure.MaxGrantTerm {
		f.add(at, "expire_time", "must be after the start and at most 90 days later")
	}
	return g
}

func evidenceTo(e disclosure.Evidence) *sluisv1.Evidence {
	return &sluisv1.Evidence{
		EvidenceId: string(e.ID), Kind: string(e.Kind), CaseId: string(e.Case), Subject: string(e.Subject),
		Domain:  string(e.RecordedFor.Domain),
		Sources: convertList(e.Sources, partyTo), Recipients: convertList(e.Recipients, partyTo),
		Purposes: stringsOf(e.Purposes), Categories: stringsOf(e.Categories), Details: e.Details,
		ValidFromTime: timeTo(e.ValidFrom), ValidUntilTime: timeTo(e.ValidUntil), WithdrawTime: optionalTimeTo(e.WithdrawnAt),
	}
}

func evidenceFrom(f *faults, at *path, m *sluisv1.Evidence) disclosure.Evidence {
	if !required(f, at, m != nil) {
		return disclosure.Evidence{}
	}
	e := disclosure.Evidence{
		ID:          parseID[disclosure.EvidenceID](f, at, "evidence_id", m.GetEvidenceId()),
		Kind:        parse(f, at, "kind", m.GetKind(), disclosure.ParseCondition),
		Case:        parseOptionalID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Subject:     parseOptional(f, at, "subject", m.GetSubject(), disclosure.ParsePseudonym),
		RecordedFor: disclosure.Party{Domain: parse(f, at, "domain", m.GetDomain(), disclosure.ParseDomain)},
		Sources:     listFrom(f, at, "sources", m.GetSources(), disclosure.MaxListed, partyFrom),
		Recipients:  listFrom(f, at, "recipients", m.GetRecipients(), disclosure.MaxListed, partyFrom),
		Purposes:    parseList(f, at, "purposes", m.GetPurposes(), disclosure.MaxListed, disclosure.ParsePurpose),
		Categories:  parseList(f, at, "categories", m.GetCategories(), disclosure.MaxListed, disclosure.ParseCategory),
		Details:     detailsFrom(f, at, m.GetDetails()),
		ValidFrom:   requiredTimeFrom(f, at, "valid_from_time", m.GetValidFromTime()),
		ValidUntil:  requiredTimeFrom(f, at, "valid_until_time", m.GetValidUntilTime()),
		WithdrawnAt: optionalTimeFrom(f, at, "withdraw_time", m.GetWithdrawTime()),
	}
	if !e.ValidUntil.After(e.ValidFrom) {
		f.add(at, "valid_until_time", "must be after valid_from_time")
	}
	return e
}

// detailsFrom reads the details of evidence. A faulty one is not named: its name comes from the caller too.
func detailsFrom(f *faults, at *path, details map[string]string) map[string]string {
	if len(details) == 0 {
		return nil
	}
	if len(details) > disclosure.MaxListed {
		f.add(at, "details", "must not have that many members")
		return nil
	}
	for key, value := range details {
		if !detailPattern.MatchString(key) {
			f.add(at, "details", "must have names of 1 to 40 letters, digits, dots, dashes and underscores")
			return nil
		}
		before := len(f.violations)
		if text(f, at, "details", value, 0, disclosure.MaxText); len(f.violations) > before {
			return nil
		}
	}
	return details
}

func organisationTo(o disclosure.Organisation) *sluisv1.Organisation {
	return &sluisv1.Organisation{
		Oin: string(o.OIN), Name: o.Name, Domains: stringsOf(o.Domains), KeyStatement: o.Statement,
	}
}

func organisationFrom(f *faults, at *path, m *sluisv1.Organisation) disclosure.Organisation {
	if !required(f, at, m != nil) {
		return disclosure.Organisation{}
	}
	return disclosure.Organisation{
		Partner: disclosure.Partner{
			OIN:     parse(f, at, "oin", m.GetOin(), disclosure.ParseOIN),
			Name:    text(f, at, "name", m.GetName(), 1, maxName),
			Domains: parseList(f, at, "domains", m.GetDomains(), maxHats, disclosure.ParseDomain),
		},
		Statement: bytesOf(f, at, "key_statement", m.GetKeyStatement(), 0, disclosure.MaxStatement),
	}
}

func elementsFrom(f *faults, at *path, name string, elements [][]byte) [][]byte {
	if len(elements) == 0 || len(elements) > maxElements {
		f.add(at, name, "must be 1 to 100 elements")
		return nil
	}
	for i, element := range elements {
		if len(element) != elementSize {
			where := at.at(name, i)
			f.add(&where, "", "must be 32 bytes")
		}
	}
	return elements
}

func evaluationTo(e disclosure.Evaluation) *sluisv1.EvaluatePseudonymsResponse {
	return &sluisv1.EvaluatePseudonymsResponse{
		EvaluatedElements: e.Elements, Proof: e.Proof, KeyVersion: e.KeyVersion,
		RemainingBudget: int32(max(0, min(e.RemainingBudget, math.MaxInt32))),
	}
}

func evaluationFrom(f *faults, at *path, m *sluisv1.EvaluatePseudonymsResponse) disclosure.Evaluation {
	if m.GetKeyVersion() == 0 {
		f.add(at, "key_version", "must not be 0")
	}
	return disclosure.Evaluation{
		Elements:        elementsFrom(f, at, "evaluated_elements", m.GetEvaluatedElements()),
		Proof:           bytesOf(f, at, "proof", m.GetProof(), 1, maxProof),
		KeyVersion:      m.GetKeyVersion(),
		RemainingBudget: int(m.GetRemainingBudget()),
	}
}

func searchTo(q disclosure.EntryQuery, why string) *sluisv1.SearchEntriesRequest {
	m := &sluisv1.SearchEntriesRequest{
		CaseId: string(q.Case), Subject: string(q.Subject), RequesterOin: string(q.Requester), SourceOin: string(q.Source),
		Purpose: string(q.Purpose), Kind: string(q.Kind), ReasonCode: string(q.Reason),
		FromTime: timeTo(q.From), ToTime: timeTo(q.To), Reason: why, PageSize: pageSizeTo(q.Limit),
	}
	if q.Before > 0 {
		m.PageToken = entriesToken(q.Before)
	}
	return m
}

func searchFrom(f *faults, at *path, m *sluisv1.SearchEntriesRequest) disclosure.EntryQuery {
	q := disclosure.EntryQuery{
		Case:      parseOptionalID[disclosure.CaseID](f, at, "case_id", m.GetCaseId()),
		Subject:   parseOptional(f, at, "subject", m.GetSubject(), disclosure.ParsePseudonym),
		Requester: parseOptional(f, at, "requester_oin", m.GetRequesterOin(), disclosure.ParseOIN),
		Source:    parseOptional(f, at, "source_oin", m.GetSourceOin(), disclosure.ParseOIN),
		Purpose:   parseOptional(f, at, "purpose", m.GetPurpose(), disclosure.ParsePurpose),
		Kind:      disclosure.Kind(m.GetKind()),
		Reason:    disclosure.ReasonCode(m.GetReasonCode()),
		From:      timeFrom(f, at, "from_time", m.GetFromTime()),
		To:        timeFrom(f, at, "to_time", m.GetToTime()),
		Before:    entriesFromToken(f, at, m.GetPageToken()),
		Limit:     pageSizeFrom(f, at, m.GetPageSize()),
	}
	if q.Kind != "" && !isKind(q.Kind) {
		f.add(at, "kind", "must be a kind of event")
	}
	if _, ok := reasonRow(q.Reason); !ok && q.Reason != "" {
		f.add(at, "reason_code", "must be a reason code")
	}
	if !q.To.IsZero() && !q.To.After(q.From) {
		f.add(at, "to_time", "must be after from_time")
	}
	return q
}

func isKind(k disclosure.Kind) bool {
	switch k {
	case disclosure.KindBrokerKeys, disclosure.KindPolicyActivated, disclosure.KindPartnerAdded, disclosure.KindStatementPublished,
		disclosure.KindPseudonymsMade, disclosure.KindCaseOpened, disclosure.KindPhaseChanged, disclosure.KindParticipantAdded,
		disclosure.KindParticipantRemoved, disclosure.KindCaseClosed, disclosure.KindGrantCreated, disclosure.KindGrantRevoked,
		disclosure.KindEvidenceRecorded, disclosure.KindEvidenceWithdrawn, disclosure.KindDecisionMade,
		disclosure.KindOutcomeRecorded, disclosure.KindLogRead, disclosure.KindExplained:
		return true
	default:
		return false
	}
}

func noteFrom(f *faults, at *path, name, value string, minimum int) []byte {
	if len(value) < minimum || len(value) > maxNote {
		f.add(at, name, "must have a size that the contract allows")
		return nil
	}
	if value == "" {
		return nil
	}
	return []byte(value)
}

func hashesFrom(f *faults, at *path, name string, hashes [][]byte) [][]byte {
	if len(hashes) > maxHashes {
		f.add(at, name, "must be at most 63 hashes")
		return nil
	}
	for i, hash := range hashes {
		if len(hash) != hashSize {
			where := at.at(name, i)
			f.add(&where, "", "must be 32 bytes")
		}
	}
	return hashes
}

func questionFrom(f *faults, at *path, m *sluisv1.BrokerQuestion) disclosure.Question {
	permit := at.to("permit")
	if !required(f, &permit, m.GetPermit() != nil) {
		return disclosure.Question{}
	}
	return disclosure.Question{
		Permit:             signedFrom(f, &permit, m.GetPermit()),
		SealedIdentity:     bytesOf(f, at, "sealed_identity", m.GetSealedIdentity(), 0, disclosure.MaxSealed),
		RequesterStatement: bytesOf(f, at, "requester_statement", m.GetRequesterStatement(), 0, disclosure.MaxStatement),
	}
}
