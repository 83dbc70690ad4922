package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read and check the ledger", a.auditSearchCommand(), a.auditEntryCommand(), a.auditCheckpointCommand())
}

// jsonEntry is an entry for scripts: its place, its time and the event as it was recorded.
type jsonEntry struct {
	Index   uint64          `json:"index"`
	Time    time.Time       `json:"time"`
	Event   json.RawMessage `json:"event"`
	Receipt string          `json:"receipt,omitempty"` // file
}

// newEntry reads an entry whose leaf commits to its payload.
func newEntry(r disclosure.Receipt) (jsonEntry, disclosure.Event, error) {
	if err := receipt.Check(r); err != nil {
		return jsonEntry{}, disclosure.Event{}, err
	}
	event, err := disclosure.DecodeEvent(r.Payload)
	if err != nil {
		return jsonEntry{}, disclosure.Event{}, fmt.Errorf("entry %d: %w", r.Index, receipt.ErrMalformed)
	}
	return jsonEntry{Index: r.Index, Time: r.Time, Event: r.Payload}, event, nil
}

// summary says in a few words what an event is about.
func summary(e disclosure.Event) string {
	switch {
	case e.DecisionMade != nil:
		r := e.DecisionMade.Input.Request
		words := []string{string(e.DecisionMade.Decision.Effect), party(r.Source) + " -> " + party(r.Requester), string(r.Purpose)}
		for _, reason := range e.DecisionMade.Decision.Reasons {
			words = append(words, string(reason.Code))
		}
		return strings.Join(words, "  ")
	case e.OutcomeRecorded != nil:
		return strings.TrimSpace(fmt.Sprintf("%s  of entry %d  %s", e.OutcomeRecorded.Outcome, e.OutcomeRecorded.DecisionIndex, e.OutcomeRecorded.Reason))
	case e.PhaseChanged != nil:
		return string(e.PhaseChanged.From) + " -> " + string(e.PhaseChanged.To)
	case e.ParticipantAdded != nil:
		return party(e.ParticipantAdded.Participant)
	case e.ParticipantRemoved != nil:
		return party(e.ParticipantRemoved.Participant)
	case e.GrantCreated != nil:
		return party(e.GrantCreated.Source) + " -> " + party(e.GrantCreated.Recipient) + "  " + string(e.GrantCreated.Purpose)
	case e.EvidenceRecorded != nil:
		return string(e.EvidenceRecorded.Kind)
	case e.LogRead != nil:
		return e.LogRead.What + "  " + e.LogRead.Reason
	}
	return ""
}

func (a *app) auditSearchCommand() *cobra.Command {
	var caseID, subject, requester, source, purpose, kind, code, from, until, reason string
	var before uint64
	var limit int
	c := &cobra.Command{
		Use:   "search",
		Short: "Search the entries about this organisation, newest first",
		Long:  "For privacy officers. Why somebody searches is recorded with the search itself.",
		Example: "  agent audit search --requester 00000001000000000004 --purpose CASUSOVERLEG --from 2026-10-01 --reason 'Steekproef 2026-Q4'\n" +
			"  agent audit search --reason-code NO_GRANT --limit 20 --reason 'Klacht 2026-031' -o json",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p := parser{}
			q := disclosure.EntryQuery{
				Case:      parseWith(&p, "case", caseID, disclosure.ParseID[disclosure.CaseID]),
				Subject:   parseOptional(&p, "subject", subject, disclosure.ParsePseudonym),
				Requester: parseOptional(&p, "requester", requester, disclosure.ParseOIN),
				Source:    parseOptional(&p, "source", source, disclosure.ParseOIN),
				Purpose:   parseOptional(&p, "purpose", purpose, disclosure.ParsePurpose),
				Kind:      disclosure.Kind(kind), Reason: disclosure.ReasonCode(code),
				From: p.time("from", from), To: p.time("until", until), Before: before, Limit: pageSize,
			}
			if limit > 0 {
				q.Limit = min(q.Limit, limit)
			}
			if p.err != nil {
				return p.err
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				found, next, err := s.Search(ctx, q, reason)
				if err != nil {
					return err
				}
				return a.showEntries(found, next)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&caseID, "case", "", "id of the case")
	flags.StringVar(&subject, "subject", "", "pseudonym of the person")
	flags.StringVar(&requester, "requester", "", "OIN of the requester")
	flags.StringVar(&source, "source", "", "OIN of the source")
	flags.StringVar(&purpose, "purpose", "", "purpose, a code of the catalogue")
	flags.StringVar(&kind, "kind", "", "kind of event, such as DECISION_MADE")
	flags.StringVar(&code, "reason-code", "", "reason code, such as NO_GRANT")
	flags.StringVar(&from, "from", "", "date or time from when")
	flags.StringVar(&until, "until", "", "date or time until when")
	flags.Uint64Var(&before, "before", 0, "entries before this one: the next of the page before")
	flags.IntVar(&limit, "limit", 50, "at most this many, up to 200")
	flags.StringVar(&reason, "reason", "", "why you search, 10 to 1000 characters, no names")
	return required(c, "reason")
}

func (a *app) showEntries(found []disclosure.Receipt, next uint64) error {
	list, events := make([]jsonEntry, len(found)), make([]disclosure.Event, len(found))
	for i, r := range found {
		var err error
		if list[i], events[i], err = newEntry(r); err != nil {
			return err
		}
	}
	return a.print(struct {
		Entries []jsonEntry `json:"entries"`
		Next    uint64      `json:"next,omitempty"` // give it to --before for the next page
	}{list, next}, func(t *table) {
		t.heading(label{"Entry", "Regel"}, label{"Time", "Tijd"}, label{"Kind", "Soort"}, label{"Case", "Casus"}, label{"Summary", "Samenvatting"})
		for i, j := range list {
			t.line(strconv.FormatUint(j.Index, 10), local(j.Time), string(events[i].Kind), string(events[i].Case), summary(events[i]))
		}
		if next > 0 {
			t.line("", fmt.Sprintf("--before %d", next))
		}
	})
}

func (a *app) auditEntryCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "entry INDEX", Short: "Show one entry, prove that it is in the ledger, and keep the receipt", Args: cobra.ExactArgs(1),
		Long:    "For privacy officers. Why somebody looks is recorded with the look-up itself.",
		Example: "  agent audit entry 18204 --reason 'Klacht 2026-031'",
		RunE: func(c *cobra.Command, args []string) error {
			index, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return usage("INDEX must be the number of an entry, from 0")
			}
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				r, err := s.Entry(ctx, index, reason)
				if err != nil {
					return err
				}
				j, event, err := newEntry(r)
				if err != nil {
					return err
				}
				j.Receipt, err = s.agent.Keep(ctx, fmt.Sprintf("%d-entry", index), r, func(disclosure.Event) error {
					if r.Index != index {
						return errors.New("it is another entry")
					}
					return nil
				})
				if err != nil {
					return err
				}
				return a.print(j, func(t *table) { t.entry(j, event) })
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why you look it up, 10 to 1000 characters, no names")
	return required(c, "reason")
}

func (t *table) entry(j jsonEntry, e disclosure.Event) {
	t.row(label{"Entry", "Regel"}, strconv.FormatUint(j.Index, 10))
	t.row(label{"Time", "Tijd"}, local(j.Time))
	t.row(label{"Kind", "Soort"}, string(e.Kind))
	t.row(label{"By", "Door"}, party(e.By))
	t.row(label{"Person", "Persoon"}, string(e.Actor))
	t.row(label{"Case", "Casus"}, string(e.Case))
	t.row(label{"Summary", "Samenvatting"}, summary(e))
	t.row(label{"Receipt", "Bewijs"}, j.Receipt)
}

func (a *app) auditCheckpointCommand() *cobra.Command {
	var minimum uint64
	c := &cobra.Command{
		Use: "checkpoint", Short: "Print the latest signed checkpoint of the ledger", Args: cobra.NoArgs,
		Long:    "Prints a signed note (c2sp.org/tlog-checkpoint), after checking that the pinned key of the ledger signed it.",
		Example: "  agent audit checkpoint > checkpoint.txt",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error {
				checkpoint, err := s.Checkpoint(ctx, minimum)
				if err != nil {
					return err
				}
				ledger, err := note.NewVerifier(s.cfg.Broker.LedgerKey)
				if err != nil {
					return err
				}
				if _, err := note.Open(checkpoint, note.VerifierList(ledger)); err != nil {
					return fmt.Errorf("checkpoint: %w", receipt.ErrSignature)
				}
				if a.output == outputJSON {
					return writeJSON(a.stdout, map[string]string{"checkpoint": string(checkpoint)})
				}
				_, err = a.stdout.Write(checkpoint)
				return err
			})
		},
	}
	c.Flags().Uint64Var(&minimum, "min-size", 0, "covering at least this many entries")
	return c
}

func (a *app) receiptCommand() *cobra.Command {
	return group("receipt", "Check receipts", a.receiptVerifyCommand())
}

func (a *app) receiptVerifyCommand() *cobra.Command {
	var ledgerKey string
	var witnessKeys []string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify a receipt, without a network",
		Long: "Verifies that the ledger holds exactly what the receipt says, at that place and time. It needs the file and the ledger's key, and\n" +
			"nobody's help. Without --ledger-key the key in the configuration is used.",
		Example: "  agent receipt verify state/receipts/6b9d0f7a-7f2d-4a83-9d0b-000000000001-outcome.tlog-proof --ledger-key 'sluis.example/2026+...'",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if ledgerKey == "" {
				cfg, err := config.LoadAgent(a.configPath)
				if err != nil {
					return fmt.Errorf("no --ledger-key, and no key from the configuration: %w", err)
				}
				ledgerKey = cfg.Broker.LedgerKey
			}
			ledger, err := note.NewVerifier(ledgerKey)
			if err != nil {
				return usage("--ledger-key must be a verifier key, name+hash+base64 (c2sp.org/signed-note)")
			}
			witnesses := make([]note.Verifier, len(witnessKeys))
			for i, key := range witnessKeys {
				if witnesses[i], err = note.NewVerifier(key); err != nil {
					return usage("--witness must be a verifier key, name+hash+base64 (c2sp.org/signed-note)")
				}
			}
			file, err := a.readInput(args[0], receipt.MaxFile)
			if err != nil {
				return err
			}
			verified, err := receipt.Verify(file, ledger, witnesses...)
			if err != nil {
				return err
			}
			return a.showVerified(verified)
		},
	}
	c.Flags().StringVar(&ledgerKey, "ledger-key", "", "verifier key of the ledger (default: broker.ledger_key of the configuration)")
	c.Flags().StringSliceVar(&witnessKeys, "witness", nil, "verifier key of a witness; may be repeated")
	return c
}

func (a *app) showVerified(v receipt.Verified) error {
	event, err := v.Event()
	if err != nil {
		return fmt.Errorf("event: %w", receipt.ErrMalformed)
	}
	j := struct {
		Verified  bool     `json:"verified"`
		Origin    string   `json:"origin"`
		TreeSize  uint64   `json:"tree_size"`
		Cosigners []string `json:"cosigners,omitempty"`
		jsonEntry
	}{true, v.Origin, v.TreeSize, v.Cosigners, jsonEntry{Index: v.Index, Time: v.Time, Event: v.Payload}}
	return a.print(j, func(t *table) {
		t.line(a.in("Verified: the ledger holds this entry.", "Geverifieerd: deze regel staat in het logboek."))
		t.row(label{"Ledger", "Logboek"}, fmt.Sprintf("%s (%d)", j.Origin, j.TreeSize))
		t.row(label{"Witnesses", "Getuigen"}, strings.Join(j.Cosigners, ", "))
		t.entry(j.jsonEntry, event)
	})
}
