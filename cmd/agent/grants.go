package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"sluis/internal/disclosure"
)

func (a *app) grantCommand() *cobra.Command {
	return group(
		"grant", "Let one organisation ask another, for a purpose and for a time",
		a.grantCreateCommand(), a.grantShowCommand(), a.grantListCommand(), a.grantRevokeCommand(),
	)
}

// jsonGrant is a grant for scripts. Its members are stable.
type jsonGrant struct {
	GrantID    disclosure.GrantID    `json:"grant_id"`
	CaseID     disclosure.CaseID     `json:"case_id"`
	Source     disclosure.Party      `json:"source"`
	Recipient  disclosure.Party      `json:"recipient"`
	Purpose    disclosure.Purpose    `json:"purpose"`
	Fields     []disclosure.Field    `json:"fields"`
	FirstPhase disclosure.Phase      `json:"first_phase"`
	LastPhase  disclosure.Phase      `json:"last_phase"`
	NotBefore  time.Time             `json:"not_before"`
	ExpiresAt  time.Time             `json:"expires_at"`
	Motivation disclosure.Motivation `json:"motivation"`
	RevokedAt  *time.Time            `json:"revoked_at,omitempty"`
	Receipt    string                `json:"receipt,omitempty"` // file
}

func newJSONGrant(g disclosure.Grant, path string) jsonGrant {
	return jsonGrant{
		GrantID: g.ID, CaseID: g.Case, Source: g.Source, Recipient: g.Recipient, Purpose: g.Purpose, Fields: g.Fields, FirstPhase: g.FirstPhase,
		LastPhase: g.LastPhase, NotBefore: g.NotBefore, ExpiresAt: g.ExpiresAt, Motivation: g.Motive, RevokedAt: g.RevokedAt, Receipt: path,
	}
}

func (a *app) showGrant(g disclosure.Grant, path string) error {
	j := newJSONGrant(g, path)
	return a.print(j, func(t *table) {
		t.row(label{"Grant", "Verlening"}, string(j.GrantID))
		t.row(label{"Case", "Casus"}, string(j.CaseID))
		t.row(label{"Recipient", "Ontvanger"}, party(j.Recipient))
		t.row(label{"Source", "Bron"}, party(j.Source))
		t.row(label{"Purpose", "Doel"}, string(j.Purpose))
		t.row(label{"Fields", "Velden"}, join(j.Fields))
		t.row(label{"Phases", "Fasen"}, string(j.FirstPhase)+" - "+string(j.LastPhase))
		t.row(label{"From", "Vanaf"}, local(j.NotBefore))
		t.row(label{"Until", "Tot"}, local(j.ExpiresAt))
		t.row(label{"Revoked", "Ingetrokken"}, localOr(j.RevokedAt))
		t.row(label{"Aim", "Doelstelling"}, j.Motivation.Aim)
		t.row(label{"Necessity", "Noodzaak"}, j.Motivation.Necessity)
		t.row(label{"Receipt", "Bewijs"}, j.Receipt)
	})
}

func (a *app) grantCreateCommand() *cobra.Command {
	var id, caseID, source, recipient, purpose, first, last, from, until string
	var fields []string
	var days int
	var motive motiveFlags
	c := &cobra.Command{
		Use:   "create",
		Short: "Create a grant, if it would be lawful",
		Long:  "A grant is necessary where the catalogue says so, and never sufficient: law and source decide too. It lasts at most 90 days.",
		Example: "  agent grant create --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --source 00000001000000000003/P --recipient 00000001000000000004/R \\\n" +
			"    --purpose CASUSOVERLEG --field 'POLNUIS.*' --first-phase F3 --last-phase F4 --days 30 \\\n" +
			"    --aim 'Plan van aanpak opstellen' --necessity 'Zonder meldingen is overlast niet te duiden'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p := parser{}
			g := disclosure.Grant{
				ID: newID(parseWith(&p, "id", id, disclosure.ParseID[disclosure.GrantID])), Case: parseWith(&p, "case", caseID, disclosure.ParseID[disclosure.CaseID]),
				Source: p.party("source", source), Recipient: p.party("recipient", recipient),
				Purpose:    parseOne(&p, "purpose", purpose, disclosure.ParsePurpose),
				Fields:     parseList(&p, "field", fields, disclosure.ParseField),
				FirstPhase: parseOne(&p, "first-phase", first, disclosure.ParsePhase),
				LastPhase:  parseOne(&p, "last-phase", last, disclosure.ParsePhase),
				Motive:     disclosure.Motivation(motive),
			}
			g.NotBefore, g.ExpiresAt = p.term(from, until, days)
			if p.err == nil {
				if err := g.Validate(); err != nil {
					p.fail("%w", err)
				}
			}
			if p.err != nil {
				return p.err
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				created, r, err := s.CreateGrant(ctx, g)
				if err != nil {
					return err
				}
				path, err := s.keep(ctx, "grant-created", r, disclosure.KindGrantCreated, func(e disclosure.Event) bool {
					made := e.GrantCreated
					return made.ID == g.ID && made.Case == g.Case && made.Source == g.Source && made.Recipient == g.Recipient && made.Purpose == g.Purpose
				})
				if err != nil {
					return err
				}
				return a.showGrant(created, path)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&id, "id", "", "id of the grant, a UUID (default: a new one)")
	flags.StringVar(&caseID, "case", "", "id of the case")
	flags.StringVar(&source, "source", "", "who may be asked, OIN/DOMAIN")
	flags.StringVar(&recipient, "recipient", "", "who may ask, OIN/DOMAIN")
	flags.StringVar(&purpose, "purpose", "", "purpose, a code of the catalogue")
	flags.StringSliceVar(&fields, "field", nil, "field, CATEGORY.name or CATEGORY.*; may be repeated")
	flags.StringVar(&first, "first-phase", "F1", "first phase in which it may be used, F1 to F6")
	flags.StringVar(&last, "last-phase", "F6", "last phase in which it may be used, F1 to F6")
	flags.StringVar(&from, "from", "", "date or time from when it may be used (default: now)")
	flags.StringVar(&until, "until", "", "date or time until when; at most 90 days later")
	flags.IntVar(&days, "days", 30, "how many days it lasts, when --until is not given")
	motive.add(flags)
	c.MarkFlagsMutuallyExclusive("until", "days")
	return required(c, "case", "source", "recipient", "purpose", "field")
}

func (a *app) grantShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show GRANT", Short: "Show a grant", Example: "  agent grant show 0f9a7d50-2f0f-4a5e-9f0a-000000000009", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := disclosure.ParseID[disclosure.GrantID]("GRANT", args[0])
			if err != nil {
				return usage("%w", err)
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				found, err := s.GetGrant(ctx, id)
				if err != nil {
					return err
				}
				return a.showGrant(found, "")
			})
		},
	}
}

func (a *app) grantListCommand() *cobra.Command {
	var limit int
	c := a.caseArgument(&cobra.Command{
		Use: "list CASE", Short: "List the grants of a case", Example: "  agent grant list 0f9a7d50-2f0f-4a5e-9f0a-000000000001",
	}, func(ctx context.Context, s *session, id disclosure.CaseID) error {
		grants, err := pages(limit, func(after string, size int) ([]disclosure.Grant, string, error) {
			return s.ListGrants(ctx, id, after, size)
		})
		if err != nil {
			return err
		}
		list := make([]jsonGrant, len(grants))
		for i, g := range grants {
			list[i] = newJSONGrant(g, "")
		}
		return a.print(map[string]any{"grants": list}, func(t *table) {
			t.heading(label{"Grant", "Verlening"}, label{"Recipient", "Ontvanger"}, label{"Source", "Bron"}, label{"Purpose", "Doel"},
				label{"Fields", "Velden"}, label{"Until", "Tot"}, label{"Revoked", "Ingetrokken"})
			for _, j := range list {
				t.line(string(j.GrantID), party(j.Recipient), party(j.Source), string(j.Purpose), join(j.Fields), local(j.ExpiresAt), localOr(j.RevokedAt))
			}
		})
	})
	limitFlag(c.Flags(), &limit)
	return c
}

func (a *app) grantRevokeCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke GRANT", Short: "End a grant at once; repeating it changes nothing", Args: cobra.ExactArgs(1),
		Example: "  agent grant revoke 0f9a7d50-2f0f-4a5e-9f0a-000000000009 --reason 'Niet meer nodig'",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := disclosure.ParseID[disclosure.GrantID]("GRANT", args[0])
			if err != nil {
				return usage("%w", err)
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				revoked, r, err := s.RevokeGrant(ctx, id, reason)
				if err != nil {
					return err
				}
				path := ""
				if r != nil {
					path, err = s.keep(ctx, "grant-revoked", *r, disclosure.KindGrantRevoked, func(e disclosure.Event) bool {
						return e.GrantRevoked.Grant == id && e.GrantRevoked.Reason == reason
					})
					if err != nil {
						return err
					}
				}
				return a.showGrant(revoked, path)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, 1 to 1000 characters, no names")
	return required(c, "reason")
}
