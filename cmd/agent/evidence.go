package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluis/internal/disclosure"
)

func (a *app) evidenceCommand() *cobra.Command {
	return group(
		"evidence", "Record what proves the conditions of the law: consents, decisions, covenants",
		a.evidenceRecordCommand(), a.evidenceListCommand(), a.evidenceWithdrawCommand(),
	)
}

// jsonEvidence is evidence for scripts. Its members are stable.
type jsonEvidence struct {
	EvidenceID  disclosure.EvidenceID `json:"evidence_id"`
	Kind        disclosure.Condition  `json:"kind"`
	CaseID      disclosure.CaseID     `json:"case_id,omitempty"`
	Sources     []disclosure.Party    `json:"sources,omitempty"`
	Recipients  []disclosure.Party    `json:"recipients,omitempty"`
	Purposes    []disclosure.Purpose  `json:"purposes,omitempty"`
	Categories  []disclosure.Category `json:"categories,omitempty"`
	Details     map[string]string     `json:"details,omitempty"`
	ValidFrom   time.Time             `json:"valid_from"`
	ValidUntil  time.Time             `json:"valid_until"`
	WithdrawnAt *time.Time            `json:"withdrawn_at,omitempty"`
	Receipt     string                `json:"receipt,omitempty"` // file
}

func newJSONEvidence(e disclosure.Evidence, path string) jsonEvidence {
	return jsonEvidence{
		EvidenceID: e.ID, Kind: e.Kind, CaseID: e.Case, Sources: e.Sources, Recipients: e.Recipients, Purposes: e.Purposes,
		Categories: e.Categories, Details: e.Details, ValidFrom: e.ValidFrom, ValidUntil: e.ValidUntil, WithdrawnAt: e.WithdrawnAt, Receipt: path,
	}
}

func (a *app) showEvidence(e disclosure.Evidence, path string) error {
	j := newJSONEvidence(e, path)
	return a.print(j, func(t *table) {
		t.row(label{"Evidence", "Bewijsstuk"}, string(j.EvidenceID))
		t.row(label{"Kind", "Soort"}, string(j.Kind))
		t.row(label{"Case", "Casus"}, string(j.CaseID))
		t.row(label{"Sources", "Bronnen"}, parties(j.Sources))
		t.row(label{"Recipients", "Ontvangers"}, parties(j.Recipients))
		t.row(label{"Purposes", "Doelen"}, join(j.Purposes))
		t.row(label{"Categories", "Categorieën"}, join(j.Categories))
		for _, key := range slices.Sorted(maps.Keys(j.Details)) {
			t.line("  "+key, j.Details[key])
		}
		t.row(label{"From", "Vanaf"}, local(j.ValidFrom))
		t.row(label{"Until", "Tot"}, local(j.ValidUntil))
		t.row(label{"Withdrawn", "Ingetrokken"}, localOr(j.WithdrawnAt))
		t.row(label{"Receipt", "Bewijs"}, j.Receipt)
	})
}

func parties(list []disclosure.Party) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = party(p)
	}
	return strings.Join(texts, ", ")
}

func (a *app) evidenceRecordCommand() *cobra.Command {
	var id, kind, caseID, domain, from, until string
	var sources, recipients, purposes, categories, details []string
	var days int
	c := &cobra.Command{
		Use:   "record",
		Short: "Record a piece of evidence",
		Long: "Records that somebody decided, agreed or signed something on which the law makes a disclosure depend. It says what was decided and by\n" +
			"whom in which capacity, never a name or the content of a file. What is not limited holds for all.",
		Example: "  agent evidence record --kind CONS --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --source 00000001000000000005/CG \\\n" +
			"    --recipient 00000001000000000002/ME --purpose CASUSOVERLEG --category FUNC --detail giver=subject --detail channel=paper --days 90",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				p := parser{}
				e := disclosure.Evidence{
					ID:         newID(parseWith(&p, "id", id, disclosure.ParseID[disclosure.EvidenceID])),
					Kind:       parseOne(&p, "kind", kind, disclosure.ParseCondition),
					Case:       parseWith(&p, "case", caseID, disclosure.ParseID[disclosure.CaseID]),
					Sources:    parseList(&p, "source", sources, parseParty),
					Recipients: parseList(&p, "recipient", recipients, parseParty),
					Purposes:   parseList(&p, "purpose", purposes, disclosure.ParsePurpose),
					Categories: parseList(&p, "category", categories, disclosure.ParseCategory),
					Details:    p.details(details),
				}
				e.RecordedFor.Domain = p.domain(s, domain)
				e.ValidFrom, e.ValidUntil = p.term(from, until, days)
				if p.err == nil {
					if err := e.Validate(); err != nil {
						p.fail("%w", err)
					}
				}
				if p.err != nil {
					return p.err
				}
				recorded, r, err := s.RecordEvidence(ctx, e)
				if err != nil {
					return err
				}
				path, err := s.keep(ctx, "evidence-recorded", r, disclosure.KindEvidenceRecorded, func(event disclosure.Event) bool {
					made := event.EvidenceRecorded
					return made.ID == e.ID && made.Kind == e.Kind && made.Case == e.Case && maps.Equal(made.Details, e.Details)
				})
				if err != nil {
					return err
				}
				return a.showEvidence(recorded, path)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&id, "id", "", "id of the evidence, a UUID (default: a new one)")
	flags.StringVar(&kind, "kind", "", "condition that it proves, a code of the catalogue")
	flags.StringVar(&caseID, "case", "", "id of the case; without it, the evidence is about an organisation, such as a covenant")
	flags.StringVar(&domain, "domain", "", "hat that records it (default: the agent's only one)")
	flags.StringSliceVar(&sources, "source", nil, "source that it holds for, OIN/DOMAIN; may be repeated")
	flags.StringSliceVar(&recipients, "recipient", nil, "recipient that it holds for, OIN/DOMAIN; may be repeated")
	flags.StringSliceVar(&purposes, "purpose", nil, "purpose that it holds for; may be repeated")
	flags.StringSliceVar(&categories, "category", nil, "category that it holds for; may be repeated")
	flags.StringArrayVar(&details, "detail", nil, "what the catalogue asks of this kind, NAME=TEXT; may be repeated; no names of people")
	flags.StringVar(&from, "from", "", "date or time from when it holds (default: now)")
	flags.StringVar(&until, "until", "", "date or time until when it holds")
	flags.IntVar(&days, "days", 90, "how many days it holds, when --until is not given")
	c.MarkFlagsMutuallyExclusive("until", "days")
	return required(c, "kind")
}

func (a *app) evidenceListCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list [CASE]", Short: "List the evidence of a case, or about this organisation", Args: cobra.MaximumNArgs(1),
		Example: "  agent evidence list 0f9a7d50-2f0f-4a5e-9f0a-000000000001",
		RunE: func(c *cobra.Command, args []string) error {
			var id disclosure.CaseID
			if len(args) == 1 {
				var err error
				if id, err = disclosure.ParseID[disclosure.CaseID]("CASE", args[0]); err != nil {
					return usage("%w", err)
				}
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				evidence, err := pages(limit, func(after string, size int) ([]disclosure.Evidence, string, error) {
					return s.ListEvidence(ctx, id, after, size)
				})
				if err != nil {
					return err
				}
				list := make([]jsonEvidence, len(evidence))
				for i, e := range evidence {
					list[i] = newJSONEvidence(e, "")
				}
				return a.print(map[string]any{"evidence": list}, func(t *table) {
					t.heading(label{"Evidence", "Bewijsstuk"}, label{"Kind", "Soort"}, label{"Sources", "Bronnen"}, label{"Recipients", "Ontvangers"},
						label{"Until", "Tot"}, label{"Withdrawn", "Ingetrokken"})
					for _, j := range list {
						t.line(string(j.EvidenceID), string(j.Kind), parties(j.Sources), parties(j.Recipients), local(j.ValidUntil), localOr(j.WithdrawnAt))
					}
				})
			})
		},
	}
	limitFlag(c.Flags(), &limit)
	return c
}

func (a *app) evidenceWithdrawCommand() *cobra.Command {
	var caseID, reason string
	c := &cobra.Command{
		Use: "withdraw EVIDENCE", Short: "End the use of a piece of evidence, such as a consent, at once", Args: cobra.ExactArgs(1),
		Long:    "Withdraws evidence, at once and forward only (AVG art. 7(3)). Repeating it changes nothing.",
		Example: "  agent evidence withdraw 0f9a7d50-2f0f-4a5e-9f0a-00000000000a --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --reason 'Ingetrokken'",
		RunE: func(c *cobra.Command, args []string) error {
			p := parser{}
			id, err := disclosure.ParseID[disclosure.EvidenceID]("EVIDENCE", args[0])
			if err != nil {
				p.fail("%w", err)
			}
			of := parseWith(&p, "case", caseID, disclosure.ParseID[disclosure.CaseID])
			if p.err != nil {
				return p.err
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				withdrawn, r, err := s.WithdrawEvidence(ctx, of, id, reason)
				if err != nil {
					return err
				}
				path := ""
				if r != nil {
					path, err = s.keep(ctx, "evidence-withdrawn", *r, disclosure.KindEvidenceWithdrawn, func(e disclosure.Event) bool {
						return e.EvidenceWithdrawn.Evidence == id && e.EvidenceWithdrawn.Reason == reason
					})
					if err != nil {
						return err
					}
				}
				return a.showEvidence(withdrawn, path)
			})
		},
	}
	c.Flags().StringVar(&caseID, "case", "", "id of the case; without it, evidence about this organisation")
	c.Flags().StringVar(&reason, "reason", "", "why, 1 to 1000 characters, no names")
	return required(c, "reason")
}
