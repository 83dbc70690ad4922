package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluis/internal/disclosure"
	"sluis/internal/identity"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

// reasonCodes reads every constant of the type ReasonCode from the source.
func reasonCodes(t *testing.T) []disclosure.ReasonCode {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../disclosure/reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []disclosure.ReasonCode
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, disclosure.ReasonCode(value))
		return true
	})
	if len(found) < 60 {
		t.Fatalf("found only %d reason codes", len(found))
	}
	return found
}

func TestEveryReasonHasARow(t *testing.T) {
	for _, code := range reasonCodes(t) {
		if !rpc.HasRow(code) {
			t.Errorf("%s has no row in the error table", code)
		}
		shown := rpc.StatusOf(fmt.Errorf("inner secret: %w", code))
		if shown.Code() == codes.Internal && code != disclosure.ReasonInternal || shown.Code() == codes.OK || shown.Code() == codes.Unknown {
			t.Errorf("%s becomes %s", code, shown.Code())
		}
		if strings.Contains(fmt.Sprint(shown.Proto()), "inner secret") {
			t.Errorf("%s shows what was wrapped around it", code)
		}
		var locales []string
		preconditions, retries := 0, 0
		for _, detail := range shown.Details() {
			switch detail := detail.(type) {
			case *errdetails.LocalizedMessage:
				locales = append(locales, detail.GetLocale())
				if detail.GetMessage() == "" {
					t.Errorf("%s: no text in %s", code, detail.GetLocale())
				}
			case *errdetails.PreconditionFailure:
				preconditions++
			case *errdetails.RetryInfo:
				retries++
			}
		}
		if fmt.Sprint(locales) != "[nl en]" {
			t.Errorf("%s: locales %v", code, locales)
		}
		if (preconditions == 1) != (shown.Code() == codes.FailedPrecondition) {
			t.Errorf("%s: %d precondition failures with %s", code, preconditions, shown.Code())
		}
		if wantRetry := shown.Code() == codes.Unavailable || shown.Code() == codes.Aborted || shown.Code() == codes.DeadlineExceeded; wantRetry && retries != 1 {
			t.Errorf("%s: no retry with %s", code, shown.Code())
		}
		if got := reasonIn(t, shown.Err()); got != code {
			t.Errorf("%s is shown as %s", code, got)
		}
	}
}

func TestErrorTable(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		code   codes.Code
		reason disclosure.ReasonCode
	}{
		"malformed":             {fmt.Errorf("x: %w", disclosure.ErrMalformed), codes.InvalidArgument, disclosure.ReasonInvalidRequest},
		"reason before context": {fmt.Errorf("%w: %w", disclosure.ReasonSourceTimeout, context.DeadlineExceeded), codes.DeadlineExceeded, disclosure.ReasonSourceTimeout},
		"reason before shape":   {fmt.Errorf("%w: %w", disclosure.ReasonUnknownCode, disclosure.ErrMalformed), codes.InvalidArgument, disclosure.ReasonUnknownCode},
		"deadline":              {fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded, ""},
		"cancelled":             {context.Canceled, codes.Canceled, ""},
		"no token":              {identity.ErrNoToken, codes.Unauthenticated, disclosure.ReasonTokenMissing},
		"expired token":         {identity.ErrTokenExpired, codes.Unauthenticated, disclosure.ReasonTokenExpired},
		"another's token":       {identity.ErrWrongOrganisation, codes.Unauthenticated, disclosure.ReasonTokenInvalid},
		"unknown reason":        {disclosure.ReasonCode("NEVER_HEARD_OF"), codes.Internal, disclosure.ReasonInternal},
		"anything":              {errors.New("secret"), codes.Internal, disclosure.ReasonInternal},
		"a status of others":    {status.Error(codes.NotFound, "secret"), codes.Internal, disclosure.ReasonInternal},
		"budget":                {disclosure.ReasonBudgetSpent, codes.ResourceExhausted, disclosure.ReasonBudgetSpent},
		"overloaded":            {disclosure.ReasonOverloaded, codes.ResourceExhausted, disclosure.ReasonOverloaded},
		"ledger":                {disclosure.ReasonLedgerUnavailable, codes.Unavailable, disclosure.ReasonLedgerUnavailable},
	} {
		shown := rpc.StatusOf(test.err)
		if got := reasonIn(t, shown.Err()); shown.Code() != test.code || got != test.reason {
			t.Errorf("%s: got %s %s, want %s %s", name, shown.Code(), got, test.code, test.reason)
		}
		if strings.Contains(fmt.Sprint(shown.Proto()), "secret") {
			t.Errorf("%s: shows its cause: %v", name, shown.Proto())
		}
	}
}

func TestErrorsReachTheClient(t *testing.T) {
	w := newWorld(t)
	client := w.client(city)
	for _, code := range reasonCodes(t) {
		w.broker.set(func(b *fakeBroker) { b.err = fmt.Errorf("use case: %w", code) })
		_, err := client.Checkpoint(w.deadline(), 1)
		var failed *rpc.Error
		if !errors.As(err, &failed) {
			t.Fatalf("%s: got %v", code, err)
		}
		var found disclosure.ReasonCode
		if !errors.Is(err, code) || !errors.As(err, &found) || found != code || failed.Code != code {
			t.Errorf("%s: errors.Is and errors.As do not find it in %v", code, err)
		}
		if failed.Text != code.Text() {
			t.Errorf("%s: text %+v", code, failed.Text)
		}
	}
	w.broker.set(func(b *fakeBroker) { b.err = errors.New("a very secret cause") })
	_, err := client.Checkpoint(w.deadline(), 1)
	if !errors.Is(err, disclosure.ReasonInternal) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(w.log.String(), "a very secret cause") {
		t.Error("the cause is not in the log")
	}
}

func TestPanicTellsNothing(t *testing.T) {
	w := newWorld(t)
	client := w.client(city)
	w.broker.set(func(b *fakeBroker) { b.panicky = "burgerservicenummer 999961007" })
	_, err := client.Checkpoint(w.deadline(), 1)
	if !errors.Is(err, disclosure.ReasonInternal) {
		t.Errorf("got %v", err)
	}
	if logged := w.log.String(); !strings.Contains(logged, "panic in a call") || strings.Contains(logged, "999961007") {
		t.Errorf("log: %s", logged)
	}
	w.broker.set(func(b *fakeBroker) { b.panicky = nil })
	if _, err := client.Checkpoint(w.deadline(), 1); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

func TestClientErrorsWithoutAReason(t *testing.T) {
	w := newWorld(t)
	client := w.client(city)
	w.broker.set(func(b *fakeBroker) { b.held = make(chan struct{}) })
	ctx, cancel := context.WithCancel(w.deadline())
	result := make(chan error, 1)
	go func() {
		_, err := client.Checkpoint(ctx, 1)
		result <- err
	}()
	receive(t, "call", w.broker.entered)
	cancel()
	err := receive(t, "cancellation", result)
	var failed *rpc.Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) || failed.Code != "" || failed.Text.NL == "" {
		t.Errorf("cancelled: got %v", err)
	}
	var none disclosure.ReasonCode
	if errors.As(err, &none) || errors.Is(err, disclosure.ReasonCode("")) {
		t.Error("cancelled: has a reason code")
	}
	w.stop()
	_ = receive(t, "stop", w.stopped)
	w.stopped <- nil
	_, err = client.Checkpoint(w.deadline(), 1)
	if !errors.As(err, &failed) || failed.GRPC != codes.Unavailable || failed.Text.EN == "" {
		t.Errorf("unreachable: got %v", err)
	}
}

func TestClientDoesNotTrustErrorTexts(t *testing.T) {
	shown, err := status.New(codes.Aborted, "x").WithDetails(
		&errdetails.ErrorInfo{Reason: "NEW_REASON", Domain: "sluis"},
		&errdetails.LocalizedMessage{Locale: "en", Message: "line\none" + strings.Repeat("x", 5000)},
		&errdetails.LocalizedMessage{Locale: "nl", Message: "regel\x1b[31m"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "a\r\nb", Description: strings.Repeat("y", 9000)},
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	var failed *rpc.Error
	if !errors.As(rpc.ErrorFrom(shown.Err()), &failed) || failed.Code != "NEW_REASON" {
		t.Fatalf("got %+v", failed)
	}
	if strings.ContainsAny(failed.Text.EN+failed.Text.NL+failed.Detail, "\r\n\x1b") {
		t.Errorf("control characters pass: %+v", failed)
	}
	if len(failed.Text.EN) > 1000 || len(failed.Detail) > 4000 {
		t.Errorf("lengths %d and %d", len(failed.Text.EN), len(failed.Detail))
	}
	other, err := status.New(codes.Aborted, "x").WithDetails(
		&errdetails.ErrorInfo{Reason: "NO_GRANT", Domain: "elsewhere"}, &errdetails.ErrorInfo{Reason: "lower", Domain: "sluis"},
	)
	if err != nil {
		t.Fatal(err)
	}
	if errors.As(rpc.ErrorFrom(other.Err()), &failed); failed.Code != "" {
		t.Errorf("takes the reason %q", failed.Code)
	}
}

// TestFieldViolations checks that all faults are named at once, by their path, and that no value comes back.
func TestFieldViolations(t *testing.T) {
	w := newWorld(t)
	value := "Jan de Vries 999961007"
	err := unary(w.as(city, disclosure.RolePGAExpert), w.conn(city), sluisv1.GrantService_CreateGrant_FullMethodName,
		&sluisv1.CreateGrantRequest{Grant: &sluisv1.Grant{
			GrantId: value, Source: &sluisv1.Party{Oin: value}, Purpose: value,
			Fields: []string{"POLNUIS.count", value, value + "2"}, FirstPhase: value, Motivation: &sluisv1.Motivation{Aim: value + "\x00"},
		}})
	if got := reasonIn(t, err); got != disclosure.ReasonInvalidRequest || status.Code(err) != codes.InvalidArgument {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(fmt.Sprint(status.Convert(err).Proto()), "Vries") || strings.Contains(fmt.Sprint(status.Convert(err).Proto()), "99996") {
		t.Error("a value comes back")
	}
	if strings.Contains(w.log.String(), "Vries") {
		t.Error("a value is logged")
	}
	fields := make(map[string]int)
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				fields[v.GetField()]++
				if v.GetDescription() == "" {
					t.Errorf("%s: no description", v.GetField())
				}
			}
		}
	}
	for _, want := range []string{
		"grant.grant_id", "grant.case_id", "grant.source.oin", "grant.source.domain", "grant.recipient", "grant.purpose",
		"grant.fields[1]", "grant.fields[2]", "grant.first_phase", "grant.last_phase", "grant.not_before_time", "grant.expire_time",
		"grant.motivation.aim",
	} {
		if fields[want] == 0 {
			t.Errorf("%s is not named in %v", want, fields)
		}
	}
	if fields["grant.fields[0]"] != 0 {
		t.Error("a sound field is named")
	}
}
