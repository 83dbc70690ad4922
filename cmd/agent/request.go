package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
)

// askFlags are the flags of request and explain.
type askFlags struct {
	id, domain, caseID, source, purpose string
	fields                              []string
	motive                              motiveFlags
	person                              personFlags
}

func (f *askFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.id, "id", "", "id of the request, a UUID; give the same one to try again (default: a new one)")
	flags.StringVar(&f.domain, "domain", "", "hat to ask in (default: the agent's only one)")
	flags.StringVar(&f.caseID, "case", "", "id of the case; without it, the person must be given")
	flags.StringVar(&f.source, "source", "", "who holds the data, OIN/DOMAIN")
	flags.StringVar(&f.purpose, "purpose", "", "purpose, a code of the catalogue")
	flags.StringSliceVar(&f.fields, "field", nil, "field, CATEGORY.name or CATEGORY.*; may be repeated")
	f.motive.add(flags)
	f.person.add(flags)
}

// ask reads the flags.
func (f *askFlags) ask(a *app, s *session) (agent.Ask, error) {
	p := parser{}
	ask := agent.Ask{
		Domain:  p.domain(s, f.domain),
		Case:    parseWith(&p, "case", f.caseID, disclosure.ParseID[disclosure.CaseID]),
		Source:  p.party("source", f.source),
		Purpose: parseOne(&p, "purpose", f.purpose, disclosure.ParsePurpose),
		Fields:  parseList(&p, "field", f.fields, disclosure.ParseField),
		Motive:  f.motive.motive(),
	}
	ask.ID = disclosure.RequestID(uuid.NewString())
	if f.id != "" {
		ask.ID = parseWith(&p, "id", f.id, disclosure.ParseID[disclosure.RequestID])
	}
	if p.err == nil && f.person.given() {
		var person envelope.Identity
		if person, p.err = f.person.identity(a); p.err == nil {
			ask.Person = &person
		}
	}
	return ask, p.err
}

func (a *app) requestCommand() *cobra.Command {
	f := &askFlags{}
	c := &cobra.Command{
		Use:   "request",
		Short: "Ask a source for data, and verify the answer",
		Long: "Asks the broker for a disclosure and waits for its end. The answer is printed only if everything about it holds: permit, manifest,\n" +
			"answer and both receipts. The receipts are kept in the state folder.\n\n" +
			"In a case the source already knows whom it is about. Outside a case (acute danger, signals) the person must be given; who it is goes\n" +
			"to the source, sealed, and never to the broker.",
		Example: "  agent request --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --source 00000001000000000003/P --purpose CASUSOVERLEG \\\n" +
			"    --field 'POLNUIS.*' --aim 'Plan van aanpak opstellen' --necessity 'Zonder meldingen is overlast niet te duiden'\n" +
			"  agent request --source 00000001000000000003/P --purpose ACUUT_GEVAAR --field SAFE.advice --person person.json -o json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				ask, err := f.ask(a, s)
				if err != nil {
					return err
				}
				if err := s.agent.EnsureStatement(ctx); err != nil {
					return err
				}
				result, err := agent.NewRequester(s.agent, s).Request(ctx, ask)
				if err != nil {
					return fmt.Errorf("request %s: %w", result.Request, err)
				}
				return a.showResult(result)
			})
		},
	}
	f.add(c.Flags())
	return required(c, "source", "purpose", "field")
}

// jsonResult is a disclosure for scripts. Its members are stable.
type jsonResult struct {
	RequestID    disclosure.RequestID    `json:"request_id"`
	Effect       disclosure.Effect       `json:"effect"`
	Outcome      disclosure.Outcome      `json:"outcome,omitempty"`
	Reason       *jsonReason             `json:"reason,omitempty"`
	Reasons      []jsonReason            `json:"reasons,omitempty"`
	Released     []disclosure.Field      `json:"released,omitempty"`
	WithoutValue []disclosure.Field      `json:"without_value,omitempty"`
	Withheld     []jsonWithheld          `json:"withheld,omitempty"`
	Records      []jsonRecord            `json:"records,omitempty"`
	Rows         []disclosure.RowID      `json:"rows,omitempty"`
	Articles     []string                `json:"articles,omitempty"`
	Obligations  []disclosure.Obligation `json:"obligations,omitempty"`
	Retention    string                  `json:"retention,omitempty"`
	PolicyDigest string                  `json:"policy_digest"`
	Receipts     []string                `json:"receipts,omitempty"`
	TimingsMS    map[string]float64      `json:"timings_ms,omitempty"`
}

type jsonWithheld struct {
	Field disclosure.Field `json:"field"`
	jsonReason
}

type jsonRecord struct {
	Category disclosure.Category `json:"category"`
	Values   map[string]string   `json:"values"`
}

func (a *app) result(r agent.Result) jsonResult {
	j := a.decision(r.Decision)
	j.RequestID, j.Outcome, j.Released, j.Receipts = r.Request, r.Outcome, r.Released, r.Receipts
	j.Withheld = a.withheld(r.Withheld)
	if r.Reason != "" {
		reason := a.reason(disclosure.Reason{Code: r.Reason})
		j.Reason = &reason
	}
	for _, record := range r.Records {
		j.Records = append(j.Records, jsonRecord(record))
	}
	j.WithoutValue = withoutValue(r.Released, r.Records)
	j.TimingsMS = map[string]float64{
		"ask": milliseconds(r.Timings.Ask), "verify": milliseconds(r.Timings.Verify), "prove": milliseconds(r.Timings.Prove),
	}
	return j
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// decision gives what a decision says.
func (a *app) decision(d disclosure.Decision) jsonResult {
	j := jsonResult{
		Effect: d.Effect, Released: d.Released, Withheld: a.withheld(d.Withheld), Rows: d.Rows, Articles: d.Articles,
		Obligations: d.Obligations, Retention: d.Retention, PolicyDigest: d.PolicyDigest,
	}
	for _, r := range d.Reasons {
		j.Reasons = append(j.Reasons, a.reason(r))
	}
	return j
}

func (a *app) withheld(list []disclosure.Withheld) []jsonWithheld {
	var converted []jsonWithheld
	for _, w := range list {
		converted = append(converted, jsonWithheld{Field: w.Field, jsonReason: a.reason(w.Reason)})
	}
	return converted
}

// withoutValue are the released fields about which the source had nothing to tell.
func withoutValue(released []disclosure.Field, records []receipt.Record) []disclosure.Field {
	var fields []disclosure.Field
	for _, f := range released {
		if !slices.ContainsFunc(records, func(r receipt.Record) bool { return r.Category == f.Category() && r.Values[f.Name()] != "" }) {
			fields = append(fields, f)
		}
	}
	return fields
}

func (a *app) showResult(r agent.Result) error {
	j := a.result(r)
	if err := a.print(j, func(t *table) { t.result(j) }); err != nil {
		return err
	}
	switch {
	case j.Effect != disclosure.Permit:
		return &deniedError{a.in("denied by the policy", "geweigerd door het beleid")}
	case j.Outcome != disclosure.Disclosed:
		return &deniedError{a.in("refused by the source", "geweigerd door de bron")}
	}
	return nil
}

func (t *table) result(j jsonResult) {
	t.row(label{"Request", "Verzoek"}, string(j.RequestID))
	t.row(label{"Decision", "Besluit"}, string(j.Effect))
	t.row(label{"Outcome", "Uitkomst"}, string(j.Outcome))
	if j.Reason != nil {
		t.row(label{"Reason", "Reden"}, j.Reason.String())
	}
	for _, r := range j.Reasons {
		t.row(label{"Reason", "Reden"}, r.String())
	}
	t.row(label{"Rows", "Rijen"}, join(j.Rows))
	t.row(label{"Articles", "Artikelen"}, strings.Join(j.Articles, "; "))
	for _, o := range j.Obligations {
		t.row(label{"Obligation", "Verplichting"}, strings.TrimSpace(o.Type+" "+o.Detail))
	}
	t.row(label{"Retention", "Bewaartermijn"}, j.Retention)
	for _, w := range j.Withheld {
		t.row(label{"Withheld", "Weggelaten"}, string(w.Field)+"  "+w.String())
	}
	t.row(label{"No data", "Geen gegevens"}, join(j.WithoutValue))
	for _, path := range j.Receipts {
		t.row(label{"Receipt", "Bewijs"}, path)
	}
	if len(j.Records) == 0 {
		return
	}
	t.line("")
	t.heading(label{"Field", "Veld"}, label{"Value", "Waarde"})
	for i, r := range j.Records {
		if i > 0 && r.Category == j.Records[i-1].Category {
			t.line("", "")
		}
		for _, name := range slices.Sorted(maps.Keys(r.Values)) {
			t.line(string(r.Category)+"."+name, r.Values[name])
		}
	}
}

func (a *app) explainCommand() *cobra.Command {
	f := &askFlags{}
	c := &cobra.Command{
		Use:   "explain",
		Short: "Ask what would be decided, and what is missing",
		Long: "Asks the broker what it would decide, which rows of the catalogue there are, which of their conditions are proven and who can\n" +
			"prove the others. No source is asked. That it was asked is recorded.",
		Example: "  agent explain --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --source 00000001000000000003/P --purpose CASUSOVERLEG \\\n" +
			"    --field 'POLNUIS.*' --lang nl",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				ask, err := f.ask(a, s)
				if err != nil {
					return err
				}
				explained, err := agent.NewRequester(s.agent, s).Explain(ctx, ask)
				if err != nil {
					return err
				}
				return a.showExplanation(explained)
			})
		},
	}
	f.add(c.Flags())
	return required(c, "source", "purpose", "field")
}

type jsonExplanation struct {
	jsonResult
	Candidates []jsonRow `json:"candidates"`
}

type jsonRow struct {
	Row        disclosure.RowID      `json:"row"`
	Articles   []string              `json:"articles"`
	Categories []disclosure.Category `json:"categories"`
	Confidence string                `json:"confidence"`
	Conditions []jsonCondition       `json:"conditions"`
}

type jsonCondition struct {
	Condition disclosure.Condition `json:"condition"`
	Proven    bool                 `json:"proven"`
	Text      string               `json:"text"`
	Suppliers []disclosure.Domain  `json:"suppliers,omitempty"`
}

// showExplanation prints the explanation. What would be denied is an answer here and no failure.
func (a *app) showExplanation(e disclosure.Explanation) error {
	j := jsonExplanation{jsonResult: a.decision(e.Decision), Candidates: []jsonRow{}}
	for _, r := range e.Rows {
		row := jsonRow{Row: r.Row, Articles: r.Articles, Categories: r.Categories, Confidence: r.Confidence, Conditions: []jsonCondition{}}
		for _, c := range r.Conditions {
			row.Conditions = append(row.Conditions, jsonCondition{
				Condition: c.Condition, Proven: c.Proven, Text: a.in(c.EN, c.NL), Suppliers: c.Suppliers,
			})
		}
		j.Candidates = append(j.Candidates, row)
	}
	return a.print(j, func(t *table) {
		t.result(j.jsonResult)
		t.row(label{"Would release", "Zou vrijgeven"}, join(j.Released))
		for _, r := range j.Candidates {
			t.line("")
			t.row(label{"Row", "Rij"}, string(r.Row)+"  "+strings.Join(r.Articles, "; ")+"  ("+r.Confidence+")")
			t.row(label{"Categories", "Categorieën"}, join(r.Categories))
			for _, c := range r.Conditions {
				mark := label{"missing", "ontbreekt"}
				if c.Proven {
					mark = label{"proven", "bewezen"}
				}
				text := string(c.Condition) + ": " + c.Text
				if !c.Proven && len(c.Suppliers) > 0 {
					text += " (" + join(c.Suppliers) + ")"
				}
				t.line("  "+mark.in(t.dutch), text)
			}
		}
	})
}

// motiveFlags are the answers that a professional must be able to give.
type motiveFlags disclosure.Motivation

func (m *motiveFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&m.Aim, "aim", "", "which goal it serves; no names")
	flags.StringVar(&m.Necessity, "necessity", "", "why it cannot be reached without these data; no names")
	flags.StringVar(&m.Subsidiarity, "subsidiarity", "", "why no less intrusive way will do; no names")
	flags.StringVar(&m.Proportionality, "proportionality", "", "why it outweighs the harm to the person; no names")
}

// motive is nil when nothing was said.
func (m *motiveFlags) motive() *disclosure.Motivation {
	if *m == (motiveFlags{}) {
		return nil
	}
	motive := disclosure.Motivation(*m)
	return &motive
}

// readInput reads a file, or standard input for "-", of at most limit bytes.
func (a *app) readInput(path string, limit int64) (content []byte, err error) {
	input := a.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		input = file
	}
	content, err = io.ReadAll(io.LimitReader(input, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return content, nil
}
