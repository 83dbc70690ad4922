package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
)

func (a *app) caseCommand() *cobra.Command {
	return group(
		"case", "Open, show and change cases",
		a.caseOpenCommand(), a.caseShowCommand(), a.caseListCommand(), a.participantAddCommand(), a.participantRemoveCommand(),
		a.casePhaseCommand(), a.caseCloseCommand(),
	)
}

// jsonCase is a case for scripts. Its members are stable.
type jsonCase struct {
	CaseID       disclosure.CaseID        `json:"case_id"`
	Reference    string                   `json:"reference"`
	Owner        disclosure.Party         `json:"owner"`
	Regime       disclosure.Regime        `json:"regime"`
	Phase        disclosure.Phase         `json:"phase"`
	Subject      disclosure.Pseudonym     `json:"subject"`
	Facts        disclosure.SubjectFacts  `json:"facts"`
	Participants []disclosure.Participant `json:"participants"`
	OpenedAt     time.Time                `json:"opened_at"`
	ClosedAt     *time.Time               `json:"closed_at,omitempty"`
	Receipt      string                   `json:"receipt,omitempty"` // file
}

func newJSONCase(c disclosure.Case, path string) jsonCase {
	return jsonCase{
		CaseID: c.ID, Reference: c.Reference, Owner: c.Owner, Regime: c.Regime, Phase: c.Phase, Subject: c.Subject, Facts: c.Facts,
		Participants: slices.Concat([]disclosure.Participant{}, c.Participants), OpenedAt: c.OpenedAt, ClosedAt: c.ClosedAt, Receipt: path,
	}
}

func (a *app) showCase(c disclosure.Case, path string) error {
	j := newJSONCase(c, path)
	return a.print(j, func(t *table) {
		t.row(label{"Case", "Casus"}, string(j.CaseID))
		t.row(label{"Reference", "Zaaknummer"}, j.Reference)
		t.row(label{"Owner", "Eigenaar"}, party(j.Owner))
		t.row(label{"Regime", "Regime"}, string(j.Regime))
		t.row(label{"Phase", "Fase"}, string(j.Phase))
		t.row(label{"Pseudonym", "Pseudoniem"}, string(j.Subject))
		t.row(label{"Born in", "Geboren in"}, j.Facts.BirthMonth)
		t.row(label{"Opened", "Geopend"}, local(j.OpenedAt))
		t.row(label{"Closed", "Gesloten"}, localOr(j.ClosedAt))
		t.row(label{"Receipt", "Bewijs"}, j.Receipt)
		for _, p := range j.Participants {
			t.row(label{"Participant", "Deelnemer"}, party(p.Party)+"  "+local(p.JoinedAt))
		}
	})
}

func (a *app) caseOpenCommand() *cobra.Command {
	var id, domain, reference, regime, birthMonth string
	var resident, multiProblem bool
	var person personFlags
	c := &cobra.Command{
		Use:   "open",
		Short: "Open a case about a person",
		Long: "Makes the pseudonym of the person together with the broker, which learns nothing about the person, and opens the case under it. The\n" +
			"citizen service number is read from a file or from standard input, never from an argument.",
		Example: "  agent case open --reference HIL-2026-0007 --resident --multi-problem --person person.json\n" +
			"  echo 999961007 | agent case open --reference HIL-2026-0007 --resident --multi-problem --bsn-stdin --birth-date 2007-03-05 \\\n" +
			"    --family-name Voorbeeld -o json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				p := parser{}
				n := agent.NewCase{
					ID: parseWith(&p, "id", id, disclosure.ParseID[disclosure.CaseID]), Domain: p.domain(s, domain), Reference: reference,
					Regime: parseOne(&p, "regime", regime, disclosure.ParseRegime),
					Facts:  disclosure.SubjectFacts{BirthMonth: birthMonth, Resident: resident, MultiProblem: multiProblem},
				}
				if p.err != nil {
					return p.err
				}
				var err error
				if n.Person, err = person.identity(a); err != nil {
					return err
				}
				opened, path, err := agent.NewCaseManager(s.agent, s).OpenCase(ctx, n)
				if err != nil {
					return err
				}
				return a.showCase(opened, path)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&id, "id", "", "id of the case, a UUID (default: a new one)")
	flags.StringVar(&domain, "domain", "", "hat of the owner (default: the agent's only one)")
	flags.StringVar(&reference, "reference", "", "the municipality's own case number: letters, digits and dashes, no names")
	flags.StringVar(&regime, "regime", string(disclosure.RegimeLPGA), "LPGA or ZVH")
	flags.StringVar(&birthMonth, "birth-month", "", "month of birth, YYYY-MM (default: from the birth date)")
	flags.BoolVar(&resident, "resident", false, "the person lives in the municipality")
	flags.BoolVar(&multiProblem, "multi-problem", false, "the person has problems on several life domains at once")
	person.add(flags)
	return required(c, "reference")
}

// caseArgument is a command about one case.
func (a *app) caseArgument(c *cobra.Command, do func(context.Context, *session, disclosure.CaseID) error) *cobra.Command {
	c.Args = cobra.ExactArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		id, err := disclosure.ParseID[disclosure.CaseID]("CASE", args[0])
		if err != nil {
			return usage("%w", err)
		}
		return a.with(c.Context(), func(ctx context.Context, s *session) error { return do(ctx, s, id) })
	}
	return c
}

func (a *app) caseShowCommand() *cobra.Command {
	return a.caseArgument(&cobra.Command{
		Use: "show CASE", Short: "Show a case", Example: "  agent case show 0f9a7d50-2f0f-4a5e-9f0a-000000000001",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		found, err := s.GetCase(ctx, id)
		if err != nil {
			return err
		}
		return a.showCase(found, "")
	})
}

// pageSize is how much is asked at once.
const pageSize = 200

// pages reads pages until there are limit values, or all if limit is 0.
func pages[T any](limit int, read func(after string, size int) ([]T, string, error)) ([]T, error) {
	all := []T{}
	for after := ""; ; {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		page, next, err := read(after, size)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		after = next
	}
}

func limitFlag(flags *pflag.FlagSet, limit *int) {
	flags.IntVar(limit, "limit", 0, "at most this many (default: all)")
}

func (a *app) caseListCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List the cases in which this organisation takes part", Example: "  agent case list --limit 20", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				cases, err := pages(limit, func(after string, size int) ([]disclosure.Case, string, error) {
					return s.ListCases(ctx, after, size)
				})
				if err != nil {
					return err
				}
				list := make([]jsonCase, len(cases))
				for i, found := range cases {
					list[i] = newJSONCase(found, "")
				}
				return a.print(map[string]any{"cases": list}, func(t *table) {
					t.heading(label{"Case", "Casus"}, label{"Reference", "Zaaknummer"}, label{"Phase", "Fase"}, label{"Regime", "Regime"},
						label{"Owner", "Eigenaar"}, label{"Opened", "Geopend"}, label{"Closed", "Gesloten"})
					for _, j := range list {
						t.line(string(j.CaseID), j.Reference, string(j.Phase), string(j.Regime), party(j.Owner), local(j.OpenedAt), localOr(j.ClosedAt))
					}
				})
			})
		},
	}
	limitFlag(c.Flags(), &limit)
	return c
}

func (a *app) participantAddCommand() *cobra.Command {
	var participant string
	var person personFlags
	c := a.caseArgument(&cobra.Command{
		Use:   "participant-add CASE",
		Short: "Let an organisation take part, and tell it, sealed, whom the case is about",
		Long: "Seals the identity of the person to the organisation, with the citizen service number only if the law lets it hold one in that hat.\n" +
			"The person must be the person of the case. Repeating it replaces the sealed identity.",
		Example: "  agent case participant-add 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --participant 00000001000000000003/P --person person.json",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		p := parser{}
		to := p.party("participant", participant)
		if p.err != nil {
			return p.err
		}
		who, err := person.identity(a)
		if err != nil {
			return err
		}
		changed, path, err := agent.NewCaseManager(s.agent, s).AddParticipant(ctx, id, to, who)
		if err != nil {
			return err
		}
		return a.showCase(changed, path)
	})
	c.Flags().StringVar(&participant, "participant", "", "organisation and hat, OIN/DOMAIN")
	person.add(c.Flags())
	return required(c, "participant")
}

func (a *app) participantRemoveCommand() *cobra.Command {
	var participant string
	c := a.caseArgument(&cobra.Command{
		Use:     "participant-remove CASE",
		Short:   "End the participation of an organisation",
		Example: "  agent case participant-remove 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --participant 00000001000000000003/P",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		p := parser{}
		leaving := p.party("participant", participant)
		if p.err != nil {
			return p.err
		}
		changed, r, err := s.RemoveParticipant(ctx, id, leaving)
		if err != nil {
			return err
		}
		path, err := s.keep(ctx, "participant-removed", r, disclosure.KindParticipantRemoved, func(e disclosure.Event) bool {
			return e.Case == id && e.ParticipantRemoved.Participant == leaving
		})
		if err != nil {
			return err
		}
		return a.showCase(changed, path)
	})
	c.Flags().StringVar(&participant, "participant", "", "organisation and hat, OIN/DOMAIN")
	return required(c, "participant")
}

// keep proves and saves the receipt of a change, after checking that it says what was asked. The file is named after the place of the
// entry in the ledger, so that nothing is overwritten when the same is done again.
func (s *session) keep(
	ctx context.Context, what string, r disclosure.Receipt, kind disclosure.Kind, says func(disclosure.Event) bool,
) (string, error) {
	return s.agent.Keep(ctx, fmt.Sprintf("%d-%s", r.Index, what), r, func(e disclosure.Event) error {
		if e.Kind != kind || !says(e) {
			return errors.New("it does not say what was asked")
		}
		return nil
	})
}

func (a *app) casePhaseCommand() *cobra.Command {
	var from, to string
	c := a.caseArgument(&cobra.Command{
		Use:     "phase CASE",
		Short:   "Move a case to another phase",
		Example: "  agent case phase 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --to F3",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		p := parser{}
		target := parseOne(&p, "to", to, disclosure.ParsePhase)
		current := parseOptional(&p, "from", from, disclosure.ParsePhase)
		if p.err != nil {
			return p.err
		}
		if current == "" {
			found, err := s.GetCase(ctx, id)
			if err != nil {
				return err
			}
			current = found.Phase
		}
		changed, r, err := s.ChangePhase(ctx, id, current, target)
		if err != nil {
			return err
		}
		path, err := s.keep(ctx, "phase-changed", r, disclosure.KindPhaseChanged, func(e disclosure.Event) bool {
			return e.Case == id && *e.PhaseChanged == disclosure.PhaseChanged{From: current, To: target}
		})
		if err != nil {
			return err
		}
		return a.showCase(changed, path)
	})
	c.Flags().StringVar(&from, "from", "", "phase it must be in now, F1 to F6 (default: the one it is in)")
	c.Flags().StringVar(&to, "to", "", "phase to move to, F1 to F6")
	return required(c, "to")
}

func (a *app) caseCloseCommand() *cobra.Command {
	var reason string
	c := a.caseArgument(&cobra.Command{
		Use:     "close CASE",
		Short:   "Close and shield a case: from then on nothing is permitted in it",
		Example: "  agent case close 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --reason 'Plan afgerond'",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		changed, r, err := s.CloseCase(ctx, id, reason)
		if err != nil {
			return err
		}
		path, err := s.keep(ctx, "case-closed", r, disclosure.KindCaseClosed, func(e disclosure.Event) bool {
			return e.Case == id && e.CaseClosed.Reason == reason
		})
		if err != nil {
			return err
		}
		return a.showCase(changed, path)
	})
	c.Flags().StringVar(&reason, "reason", "", "why, 1 to 1000 characters, no names")
	return required(c, "reason")
}

// newID gives a new id where none was chosen.
func newID[T ~string](id T) T {
	if id == "" {
		return T(uuid.NewString())
	}
	return id
}
