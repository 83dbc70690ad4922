package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sluis/internal/disclosure"
)

// ErrMalformedResponse is wrapped where the broker's response is not of the form that the wire contract describes.
var ErrMalformedResponse = errors.New("malformed response of the broker")

// Error is a call that failed. errors.Is finds its ReasonCode, and context.DeadlineExceeded or context.Canceled where the call ended so.
type Error struct {
	// Code is the broker's reason. It is empty if the broker gave none: it could not be reached, or the call ended before it answered.
	Code disclosure.ReasonCode
	GRPC codes.Code
	// Text is what to tell a person, from this program's own table, or the broker's if this program does not know the code.
	Text disclosure.ReasonText
	// Detail names the faulty fields of a request and what was wanted; it may be empty. For technicians.
	Detail string
	// Retry is when it is worth trying again; 0: not by itself.
	Retry time.Duration
}

// Error holds codes only, so that it can be logged.
func (e *Error) Error() string {
	if e.Code == "" {
		return "broker: " + e.GRPC.String()
	}
	return fmt.Sprintf("broker: %s (%s)", e.Code, e.GRPC)
}

// Is reports whether target is the reason code of e, or the context's error that its gRPC code stands for.
func (e *Error) Is(target error) bool {
	if code, ok := target.(disclosure.ReasonCode); ok {
		return e.Code != "" && e.Code == code
	}
	switch target {
	case context.DeadlineExceeded:
		return e.GRPC == codes.DeadlineExceeded
	case context.Canceled:
		return e.GRPC == codes.Canceled
	default:
		return false
	}
}

// As makes the reason code reachable for errors.As.
func (e *Error) As(target any) bool {
	code, ok := target.(*disclosure.ReasonCode)
	if !ok || e.Code == "" {
		return false
	}
	*code = e.Code
	return true
}

// What the broker's texts are cut down to: they are shown to people.
const (
	maxErrorText = 1000
	maxDetail    = 4000
	maxRetry     = 10 * time.Minute
)

// errorFrom reads the error of a call. It trusts the shape of nothing in it.
func errorFrom(err error) error {
	if err == nil {
		return nil
	}
	received, _ := status.FromError(err)
	e := &Error{GRPC: received.Code(), Text: textWithoutReason(received.Code())}
	var fromBroker disclosure.ReasonText
	for _, detail := range received.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == errorDomain && shortCodePattern.MatchString(detail.GetReason()) {
				e.Code = disclosure.ReasonCode(detail.GetReason())
			}
		case *errdetails.LocalizedMessage:
			switch detail.GetLocale() {
			case "nl":
				fromBroker.NL = clean(detail.GetMessage(), maxErrorText)
			case "en":
				fromBroker.EN = clean(detail.GetMessage(), maxErrorText)
			}
		case *errdetails.BadRequest:
			e.Detail = clean((&invalidRequestError{detail.GetFieldViolations()}).Error(), maxDetail)
		case *errdetails.RetryInfo:
			e.Retry = max(0, min(detail.GetRetryDelay().AsDuration(), maxRetry))
		}
	}
	if e.Code == "" {
		return e
	}
	if _, known := reasonRow(e.Code); known {
		e.Text = e.Code.Text()
	} else if fromBroker.EN != "" && fromBroker.NL != "" {
		e.Text = fromBroker
		e.Text.Article = "-"
	}
	return e
}

// textWithoutReason says what a person can be told when the broker gave no reason.
func textWithoutReason(code codes.Code) disclosure.ReasonText {
	switch code {
	case codes.Unavailable:
		return disclosure.ReasonText{
			EN: "The broker cannot be reached. Try again later.", NL: "De broker is niet bereikbaar. Probeer het later opnieuw.", Article: "-",
		}
	case codes.DeadlineExceeded:
		return disclosure.ReasonText{
			EN: "The broker did not answer in time. Try again; nothing is done twice.",
			NL: "De broker antwoordde niet op tijd. Probeer het opnieuw; er gebeurt niets dubbel.", Article: "-",
		}
	case codes.Canceled:
		return disclosure.ReasonText{EN: "The call was broken off.", NL: "De aanroep is afgebroken.", Article: "-"}
	default:
		return disclosure.ReasonText{
			EN: "The broker gave an answer that this program does not understand.",
			NL: "De broker gaf een antwoord dat dit programma niet begrijpt.", Article: "-",
		}
	}
}

// clean cuts a text of the broker down to printable characters and a length in runes.
func clean(s string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == limit {
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
