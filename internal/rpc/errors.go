package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"sluis/internal/disclosure"
	"sluis/internal/identity"
)

// errorDomain is the domain of google.rpc.ErrorInfo.
const errorDomain = "sluis"

// row is what the edge makes of a reason.
type row struct {
	code  codes.Code
	retry time.Duration // when it is worth trying again; 0: not by itself
}

// When to try again.
const (
	soon  = 200 * time.Millisecond // somebody else was first
	later = 5 * time.Second        // something is down
)

// reasonRow is the one table from reason codes to gRPC codes. A test holds it against every reason code there is. Reasons that the law
// gives for good are PERMISSION_DENIED; those that somebody can do something about are FAILED_PRECONDITION.
func reasonRow(code disclosure.ReasonCode) (row, bool) {
	switch code {
	case disclosure.ReasonNoRow, disclosure.ReasonPurposeMismatch, disclosure.ReasonPurposeIncompatible,
		disclosure.ReasonConsentWrongPerson, disclosure.ReasonNoArt9, disclosure.ReasonNoArt10, disclosure.ReasonMayorPurpose,
		disclosure.ReasonOutOfTarget, disclosure.ReasonNotMember, disclosure.ReasonBSNNotAllowed, disclosure.ReasonHardDeny,
		disclosure.ReasonThirdPerson, disclosure.ReasonWrongRegime, disclosure.ReasonObjection, disclosure.ReasonSelfApproval,
		disclosure.ReasonCategoryForbidden, disclosure.ReasonCategoryNotInRow, disclosure.ReasonPolicyUndefined,
		disclosure.ReasonRoleNotAllowed, disclosure.ReasonUnknownOrganisation, disclosure.ReasonHatNotAllowed,
		disclosure.ReasonPermitInvalid, disclosure.ReasonPermitExpired, disclosure.ReasonPermitReplayed,
		disclosure.ReasonIdentityMismatch, disclosure.ReasonHouseRule, disclosure.ReasonSecretAddress:
		return row{code: codes.PermissionDenied}, true
	case disclosure.ReasonGrantExpired, disclosure.ReasonGrantRevoked, disclosure.ReasonNoGrant, disclosure.ReasonNotGranted,
		disclosure.ReasonConsentMissing, disclosure.ReasonConsentWithdrawn, disclosure.ReasonSecrecyNotReleased,
		disclosure.ReasonNoW20, disclosure.ReasonW20RecipientUnnamed, disclosure.ReasonNotHit2, disclosure.ReasonWrongPhase,
		disclosure.ReasonRetentionOver, disclosure.ReasonNoMotivation, disclosure.ReasonEvidenceMissing,
		disclosure.ReasonAnswerGone, disclosure.ReasonCaseClosed, disclosure.ReasonKeyStatementInvalid,
		disclosure.ReasonIdentityMissing, disclosure.ReasonAnswerRejected, disclosure.ReasonPersonAmbiguous,
		disclosure.ReasonTooManyRows:
		return row{code: codes.FailedPrecondition}, true
	case disclosure.ReasonTokenMissing, disclosure.ReasonTokenInvalid, disclosure.ReasonTokenExpired:
		return row{code: codes.Unauthenticated}, true
	case disclosure.ReasonInvalidRequest, disclosure.ReasonUnknownCode:
		return row{code: codes.InvalidArgument}, true
	case disclosure.ReasonNotFound, disclosure.ReasonPersonNotFound, disclosure.ReasonNoData, disclosure.ReasonFieldNotAvailable:
		return row{code: codes.NotFound}, true
	case disclosure.ReasonAlreadyExists, disclosure.ReasonRequestIDReused:
		return row{code: codes.AlreadyExists}, true
	case disclosure.ReasonRequestInProgress, disclosure.ReasonContention:
		return row{code: codes.Aborted, retry: soon}, true
	case disclosure.ReasonBudgetSpent:
		return row{code: codes.ResourceExhausted}, true
	case disclosure.ReasonOverloaded:
		return row{code: codes.ResourceExhausted, retry: soon}, true
	case disclosure.ReasonSourceOffline, disclosure.ReasonSourceFailed, disclosure.ReasonBrokerRestarted,
		disclosure.ReasonLedgerUnavailable, disclosure.ReasonPolicyUnavailable:
		return row{code: codes.Unavailable, retry: later}, true
	case disclosure.ReasonSourceTimeout:
		return row{code: codes.DeadlineExceeded, retry: later}, true
	case disclosure.ReasonInternal:
		return row{code: codes.Internal}, true
	default:
		return row{}, false
	}
}

// reasonOf finds what to tell the caller about an error of a use case. Errors that are not meant for callers come out as ReasonInternal;
// for the end of a context there is no reason code, and its gRPC code says it.
func reasonOf(err error) (disclosure.ReasonCode, codes.Code) {
	if code, ok := errors.AsType[disclosure.ReasonCode](err); ok {
		if row, ok := reasonRow(code); ok {
			return code, row.code
		}
		return disclosure.ReasonInternal, codes.Internal
	}
	switch {
	case errors.Is(err, disclosure.ErrMalformed):
		return disclosure.ReasonInvalidRequest, codes.InvalidArgument
	case errors.Is(err, identity.ErrNoToken):
		return disclosure.ReasonTokenMissing, codes.Unauthenticated
	case errors.Is(err, identity.ErrTokenExpired):
		return disclosure.ReasonTokenExpired, codes.Unauthenticated
	case errors.Is(err, identity.ErrTokenInvalid), errors.Is(err, identity.ErrWrongOrganisation):
		return disclosure.ReasonTokenInvalid, codes.Unauthenticated
	case errors.Is(err, identity.ErrNoOrganisation):
		return disclosure.ReasonUnknownOrganisation, codes.PermissionDenied
	case errors.Is(err, context.DeadlineExceeded):
		return "", codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return "", codes.Canceled
	default:
		return disclosure.ReasonInternal, codes.Internal
	}
}

// statusOf returns the status that the caller is shown: fixed texts and names of fields, never a value.
func statusOf(err error) *status.Status {
	reason, code := reasonOf(err)
	if reason == "" {
		return status.New(code, "the call ended before there was an answer")
	}
	text := reason.Text()
	details := []protoadapt.MessageV1{
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: string(reason), Domain: errorDomain}),
		protoadapt.MessageV1Of(&errdetails.LocalizedMessage{Locale: "nl", Message: text.NL}),
		protoadapt.MessageV1Of(&errdetails.LocalizedMessage{Locale: "en", Message: text.EN}),
	}
	var invalid *invalidRequestError
	switch {
	case errors.As(err, &invalid):
		details = append(details, protoadapt.MessageV1Of(&errdetails.BadRequest{FieldViolations: invalid.violations}))
	case code == codes.FailedPrecondition:
		details = append(details, protoadapt.MessageV1Of(&errdetails.PreconditionFailure{
			Violations: []*errdetails.PreconditionFailure_Violation{{Type: string(reason), Description: text.EN}},
		}))
	case reason == disclosure.ReasonBudgetSpent:
		details = append(details, protoadapt.MessageV1Of(&errdetails.QuotaFailure{
			Violations: []*errdetails.QuotaFailure_Violation{{Subject: "organisation", Description: text.EN}},
		}))
	}
	if row, ok := reasonRow(reason); ok && row.retry > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(row.retry)}))
	}
	shown := status.New(code, text.EN)
	detailed, err := shown.WithDetails(details...)
	if err != nil {
		return shown
	}
	return detailed
}

// maxViolations bounds what one bad request makes of a response.
const maxViolations = 50

// invalidRequestError lists what is wrong with a message.
type invalidRequestError struct {
	violations []*errdetails.BadRequest_FieldViolation
}

func (e *invalidRequestError) Error() string {
	var b strings.Builder
	for i, v := range e.violations {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(v.GetField() + ": " + v.GetDescription())
	}
	return b.String()
}

// Unwrap makes it the reason INVALID_REQUEST.
func (e *invalidRequestError) Unwrap() error { return disclosure.ReasonInvalidRequest }

// path names a field within a message. It is turned into text only for a fault.
type path struct {
	parent *path
	name   string
	index  int // 1 more than the position in a list; 0: not in a list
}

func (p *path) to(name string) path { return path{parent: p, name: name} }

func (p *path) at(name string, i int) path { return path{parent: p, name: name, index: i + 1} }

// text writes the path as google.rpc.BadRequest asks, such as "grant.fields[2]".
func (p *path) text() string {
	if p == nil {
		return ""
	}
	name := p.name
	if p.index > 0 {
		name = fmt.Sprintf("%s[%d]", name, p.index-1)
	}
	if parent := p.parent.text(); parent != "" {
		return parent + "." + name
	}
	return name
}

// faults collects what is wrong with a message.
type faults struct {
	violations []*errdetails.BadRequest_FieldViolation
}

// add notes a fault; the description must not repeat the value.
func (f *faults) add(at *path, name, description string) {
	if len(f.violations) == maxViolations {
		return
	}
	field := at.to(name)
	where := field.text()
	if name == "" {
		where = at.text()
	}
	f.violations = append(f.violations, &errdetails.BadRequest_FieldViolation{Field: where, Description: description})
}

func (f *faults) err() error {
	if len(f.violations) == 0 {
		return nil
	}
	return &invalidRequestError{f.violations}
}

// describe takes the text of an error of a Parse function or a Validate method, which says what was wanted.
func describe(err error) string {
	return strings.TrimPrefix(err.Error(), disclosure.ErrMalformed.Error()+": ")
}
