package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"sluis/internal/agent"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/receipt"
	"sluis/internal/rpc"
)

const (
	outputTable = "table"
	outputJSON  = "json"
)

// The exit statuses.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDenied      = 3
	exitUnreachable = 4
	exitNotVerified = 5
)

// print writes data to standard output: as JSON, or as the table that show makes.
func (a *app) print(data any, show func(*table)) error {
	if a.output == outputJSON {
		return writeJSON(a.stdout, data)
	}
	t := &table{w: tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0), dutch: a.language == "nl"}
	show(t)
	return t.w.Flush()
}

func writeJSON(w io.Writer, data any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(data)
}

// table writes rows for people.
type table struct {
	w     *tabwriter.Writer
	dutch bool
}

func (t *table) line(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
	}
	_, _ = fmt.Fprintln(t.w, strings.Join(cells, "\t")) // Flush tells of a failure
}

// heading writes the heads of columns, in capitals.
func (t *table) heading(heads ...label) {
	cells := make([]string, len(heads))
	for i, h := range heads {
		cells[i] = strings.ToUpper(h.in(t.dutch))
	}
	t.line(cells...)
}

// row writes a name and what it has, if it has something.
func (t *table) row(name label, value string) {
	if value != "" {
		t.line(name.in(t.dutch), value)
	}
}

// label is a word in both languages.
type label struct{ en, nl string }

func (l label) in(dutch bool) string {
	if dutch {
		return l.nl
	}
	return l.en
}

// clean keeps what others wrote from moving the cursor or breaking the table.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return ' '
		}
		return r
	}, s)
}

func join[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return strings.Join(texts, ", ")
}

func party(p disclosure.Party) string {
	if p.Domain == "" {
		return string(p.OIN)
	}
	return string(p.OIN) + "/" + string(p.Domain)
}

func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func localOr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return local(*t)
}

// jsonReason is a reason for scripts.
type jsonReason struct {
	Code      disclosure.ReasonCode `json:"code"`
	Text      string                `json:"text"`
	Article   string                `json:"article,omitempty"`
	Row       disclosure.RowID      `json:"row,omitempty"`
	Condition disclosure.Condition  `json:"condition,omitempty"`
}

func (a *app) reason(r disclosure.Reason) jsonReason {
	text := r.Code.Text()
	if r.Article == "" && text.Article != "-" {
		r.Article = text.Article
	}
	return jsonReason{Code: r.Code, Text: a.in(text.EN, text.NL), Article: r.Article, Row: r.Row, Condition: r.Condition}
}

func (a *app) in(en, nl string) string { return label{en, nl}.in(a.language == "nl") }

func (r jsonReason) String() string {
	text := string(r.Code)
	if r.Condition != "" {
		text += " (" + string(r.Condition) + ")"
	}
	if r.Text != "" {
		text += ": " + r.Text
	}
	if r.Article != "" {
		text += " [" + r.Article + "]"
	}
	return text
}

// deniedError says that there is an answer, which was printed, and that it is no.
type deniedError struct{ what string }

func (e *deniedError) Error() string { return e.what }

// failure is how an error is told.
type failure struct {
	Exit    int                   `json:"exit"`
	Code    disclosure.ReasonCode `json:"code,omitempty"`
	Text    string                `json:"text"`
	Article string                `json:"article,omitempty"`
	Next    string                `json:"next,omitempty"`
}

// fail tells of an error on standard error and gives the exit status.
func (a *app) fail(err error) int {
	f := a.explainError(err)
	if a.output == outputJSON {
		_ = writeJSON(a.stderr, map[string]failure{"error": f})
		return f.Exit
	}
	text := "agent: " + f.Text
	if f.Article != "" {
		text += " [" + f.Article + "]"
	}
	_, _ = fmt.Fprintln(a.stderr, text)
	if f.Next != "" {
		_, _ = fmt.Fprintln(a.stderr, a.in("Next: ", "Nu: ")+f.Next)
	}
	return f.Exit
}

// explainError turns an error into what to tell, with what to do about it.
func (a *app) explainError(err error) failure {
	f := failure{Exit: exitFailed, Text: err.Error()}
	var denied *deniedError
	var refused *rpc.Error
	var code disclosure.ReasonCode
	switch {
	case errors.As(err, &denied):
		f.Exit, f.Next = exitDenied, a.in("agent explain tells what is missing and who can help", "agent explain zegt wat er ontbreekt en wie kan helpen")
	case errors.Is(err, errUsage):
		f.Exit, f.Next = exitUsage, a.in("see --help", "zie --help")
	case errors.Is(err, config.ErrInvalid):
		f.Exit, f.Next = exitUsage, a.in("correct the configuration; agent config check tells when it is right",
			"verbeter de configuratie; agent config check zegt wanneer die goed is")
	case errors.Is(err, agent.ErrSplitView):
		f.Exit, f.Next = exitNotVerified, a.in(
			"do not use what came; keep the state folder as evidence and call the privacy officer: the broker's ledger was changed, or its key was reused",
			"gebruik niets van het antwoord; bewaar de map state als bewijs en bel de FG: het logboek van de broker is veranderd, of de sleutel is hergebruikt")
	case errors.Is(err, agent.ErrVerification), errors.Is(err, receipt.ErrSignature), errors.Is(err, receipt.ErrNotIncluded),
		errors.Is(err, receipt.ErrMismatch), errors.Is(err, receipt.ErrMalformed), errors.Is(err, receipt.ErrIncomplete):
		f.Exit, f.Next = exitNotVerified, a.in("do not use what came; tell the privacy officer and the operator of the broker",
			"gebruik niets van het antwoord; meld het de FG en de beheerder van de broker")
	case errors.Is(err, agent.ErrNotProven):
		f.Exit, f.Next = exitUnreachable, a.in("try the same request again, with --id; nothing is asked of the source twice",
			"probeer hetzelfde verzoek opnieuw, met --id; de bron wordt niet nog eens bevraagd")
	case errors.Is(err, agent.ErrBSN):
		f.Exit = exitUsage
	case errors.As(err, &refused):
		a.explainRefusal(&f, refused)
	case errors.As(err, &code):
		text := code.Text()
		f.Code, f.Article = code, article(text)
		if reason := a.in(text.EN, text.NL); reason != "" {
			f.Text = err.Error() + ": " + reason
		}
		if code == disclosure.ReasonIdentityMissing || code == disclosure.ReasonHatNotAllowed {
			f.Exit = exitUsage
		}
	case errors.Is(err, disclosure.ErrMalformed):
		f.Exit, f.Next = exitUsage, a.in("see --help", "zie --help")
	case errors.Is(err, context.DeadlineExceeded):
		f.Exit, f.Next = exitUnreachable, a.in("check the address of the broker and the network, or give it more time with --timeout",
			"controleer het adres van de broker en het netwerk, of geef meer tijd met --timeout")
	case errors.Is(err, fs.ErrNotExist):
		f.Next = a.in("check the path; -c names the configuration", "controleer het pad; -c noemt de configuratie")
	}
	return f
}

func article(t disclosure.ReasonText) string {
	if t.Article == "-" {
		return ""
	}
	return t.Article
}

// explainRefusal tells of an error that the broker gave.
func (a *app) explainRefusal(f *failure, e *rpc.Error) {
	f.Code, f.Article = e.Code, article(e.Text)
	f.Text += ": " + a.in(e.Text.EN, e.Text.NL)
	if e.Detail != "" {
		f.Text += " (" + e.Detail + ")"
	}
	switch e.GRPC.String() { // by name: gRPC itself stays in package rpc
	case "Unavailable", "DeadlineExceeded":
		f.Exit, f.Next = exitUnreachable, a.in("try again later, with the same --id", "probeer het later opnieuw, met dezelfde --id")
		if e.Code == "" {
			f.Next = a.in("check the address of the broker, its certificate and the network", "controleer het adres van de broker, zijn certificaat en het netwerk")
		}
	case "PermissionDenied", "FailedPrecondition":
		f.Exit, f.Next = exitDenied, a.in("agent explain tells what is missing and who can help", "agent explain zegt wat er ontbreekt en wie kan helpen")
	case "InvalidArgument":
		f.Exit, f.Next = exitUsage, a.in("see --help", "zie --help")
	case "Unauthenticated":
		f.Next = a.in("sign in again and give the new token with --token-file", "log opnieuw in en geef het nieuwe token met --token-file")
	}
}
