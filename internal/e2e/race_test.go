//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

// TestRevocationRace lets requesters ask while others revoke the grant, withdraw the evidence, remove a participant, change the phase and
// close the case, all by real calls, and then walks the ledger: nothing was permitted on what an earlier entry had ended (I2).
func TestRevocationRace(t *testing.T) {
	const rounds = 4
	w := newWorld(t)
	w.start()
	w.station(police())
	w.station(probation())
	var done atomic.Int64
	deadline := time.Now().Add(suite.soak)
	for round := 0; round < rounds || time.Now().Before(deadline); round++ {
		done.Add(raceOneCase(t, w, persons()[round%len(persons())]))
	}
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	found := checkStanding(t, entries)
	t.Logf("%d requests in %d entries: %d permits, %d denials after something had ended", done.Load(), len(entries), found.permits, found.denials)
	if found.permits == 0 || found.denials == 0 {
		t.Error("not both permits and denials, so nothing was tested")
	}
}

// raceOneCase lets two pairs of parties ask in one case, and meanwhile ends and renews what their permits rest on. In the end it closes the
// case, while they still ask. It gives the number of answers and denials.
func raceOneCase(t *testing.T, w *world, about envelope.Identity) int64 {
	t.Helper()
	const requesters, least = 8, 15
	c := w.openCase(about)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var done atomic.Int64
	var group sync.WaitGroup
	for n := range requesters {
		client, q := w.client(supervisor()), c.aboutNuisance()
		if n%2 == 0 {
			client, q = w.client(director()), c.aboutSupervision()
		}
		group.Go(func() {
			for ctx.Err() == nil {
				_, err := client.RequestDisclosure(ctx, newRequestID(), q, nil)
				code := reasonOf(err)
				switch {
				case err == nil:
					done.Add(1)
				case ctx.Err() != nil:
				case code == disclosure.ReasonContention:
				case code == disclosure.ReasonIdentityMissing: // the source left the case between the permit and the question
				default:
					t.Errorf("request: %v", err)
					return
				}
			}
		})
	}
	for _, end := range c.ends() {
		before := done.Load()
		eventually(t, "requests before "+end.what, func() bool { return done.Load() >= before+least || t.Failed() })
		if err := end.do(); err != nil {
			t.Errorf("%s: %v", end.what, err)
		}
		before = done.Load()
		eventually(t, "requests after "+end.what, func() bool { return done.Load() >= before+least || t.Failed() })
		if end.undo != nil {
			end.undo()
		}
	}
	stop()
	group.Wait()
	return done.Load()
}

// change ends something, and may bring it back.
type change struct {
	what string
	do   func() error
	undo func()
}

// ends are all the ways in which what a permit rests on can end, in some order; closing the case is the last.
func (c *casus) ends() []change {
	ctx, client := c.w.t.Context(), c.w.client(expert())
	list := []change{
		{"the revocation of the grant", func() error {
			_, _, err := client.RevokeGrant(ctx, c.grant, "einde")
			return err
		}, c.createGrant},
		{"the removal of a participant", func() error {
			_, _, err := client.RemoveParticipant(ctx, c.id, probation())
			return err
		}, func() { c.addParticipant(probation()) }},
		{"the change of phase", func() error {
			_, _, err := client.ChangePhase(ctx, c.id, "F3", "F2")
			return err
		}, func() {
			if _, _, err := client.ChangePhase(ctx, c.id, "F2", "F3"); err != nil {
				c.w.t.Errorf("change phase back: %v", err)
			}
		}},
	}
	for kind, by := range recordedBy() {
		list = append(list, change{"the withdrawal of " + string(kind), func() error {
			_, _, err := c.w.client(by).WithdrawEvidence(ctx, c.id, c.evidence[kind], "einde")
			return err
		}, func() { c.record(kind) }})
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return append(list, change{"the closing of the case", func() error {
		_, _, err := client.CloseCase(ctx, c.id, "einde")
		return err
	}, nil})
}

// standing is what stands in a case at some place of the ledger, as these tests understand the events: independent of package casefile.
type standing struct {
	closed       bool
	phase        disclosure.Phase
	participants map[disclosure.Party]bool
	grants       map[disclosure.GrantID]disclosure.Grant
	evidence     map[disclosure.EvidenceID]disclosure.Evidence
}

// needs is what the two rows of the tests rest on.
func needs() map[disclosure.RowID][]disclosure.Condition {
	return map[disclosure.RowID][]disclosure.Condition{
		"LB-012": {"SUPACT", "LAW"},
		"LB-071": {"HIT2", "CONV", "SUPACT", "INFO"},
	}
}

type counts struct{ permits, denials int }

// checkStanding walks the ledger and checks that every permit rests on what stands at that place.
func checkStanding(t *testing.T, entries []entry) counts {
	t.Helper()
	var found counts
	cases := map[disclosure.CaseID]*standing{}
	for _, e := range entries {
		if e.event.Case == "" {
			continue
		}
		if e.event.Kind == disclosure.KindCaseOpened {
			cases[e.event.Case] = &standing{
				phase: "F1", participants: map[disclosure.Party]bool{e.event.CaseOpened.Owner: true},
				grants: map[disclosure.GrantID]disclosure.Grant{}, evidence: map[disclosure.EvidenceID]disclosure.Evidence{},
			}
			continue
		}
		s := cases[e.event.Case]
		if e.event.Kind != disclosure.KindDecisionMade {
			s.apply(e.event)
			continue
		}
		made := e.event.DecisionMade
		if made.Decision.Effect == disclosure.Permit {
			found.permits++
			for _, fault := range s.faults(made, e.Time) {
				t.Errorf("entry %d: permit by %v for %s, and %s", e.Index, made.Decision.Rows, made.Input.Request.ID, fault)
			}
		} else {
			found.denials++
		}
	}
	return found
}

func (s *standing) apply(e disclosure.Event) {
	switch e.Kind {
	case disclosure.KindPhaseChanged:
		s.phase = e.PhaseChanged.To
	case disclosure.KindParticipantAdded:
		s.participants[e.ParticipantAdded.Participant] = true
	case disclosure.KindParticipantRemoved:
		delete(s.participants, e.ParticipantRemoved.Participant)
	case disclosure.KindCaseClosed:
		s.closed = true
	case disclosure.KindGrantCreated:
		s.grants[e.GrantCreated.ID] = *e.GrantCreated
	case disclosure.KindGrantRevoked:
		delete(s.grants, e.GrantRevoked.Grant)
	case disclosure.KindEvidenceRecorded:
		s.evidence[e.EvidenceRecorded.ID] = *e.EvidenceRecorded
	case disclosure.KindEvidenceWithdrawn:
		delete(s.evidence, e.EvidenceWithdrawn.Evidence)
	default:
	}
}

// faults says what a permit that was written at t lacks.
func (s *standing) faults(made *disclosure.DecisionMade, at time.Time) []string {
	var list []string
	r := made.Input.Request
	if s.closed {
		list = append(list, "the case was closed before")
	}
	for _, p := range []disclosure.Party{r.Requester, r.Source} {
		if !s.participants[p] {
			list = append(list, fmt.Sprintf("%s does not take part any more", p.Domain))
		}
	}
	for _, row := range made.Decision.Rows {
		kinds, ok := needs()[row]
		if !ok {
			list = append(list, fmt.Sprintf("row %s is not one of these tests", row))
		}
		for _, kind := range kinds {
			if !s.holds(kind, at) {
				list = append(list, fmt.Sprintf("%s does not stand any more", kind))
			}
		}
		if row == "LB-071" {
			if s.phase < "F3" || s.phase > "F6" {
				list = append(list, fmt.Sprintf("the case is in phase %s", s.phase))
			}
			if !s.granted(r, made.Decision.Released, at) {
				list = append(list, "no grant stands any more")
			}
		}
	}
	// What the policy was told must be what stands, so that the same decision can be made again.
	for _, g := range made.Input.Grants {
		if _, stands := s.grants[g.ID]; stands != (g.RevokedAt == nil) {
			list = append(list, fmt.Sprintf("the policy was told another state of grant %s", g.ID))
		}
	}
	for _, e := range made.Input.Evidence {
		if _, stands := s.evidence[e.ID]; stands != (e.WithdrawnAt == nil) {
			list = append(list, fmt.Sprintf("the policy was told another state of evidence %s", e.Kind))
		}
	}
	return list
}

func (s *standing) holds(kind disclosure.Condition, at time.Time) bool {
	for _, e := range s.evidence {
		if e.Kind == kind && !at.Before(e.ValidFrom) && at.Before(e.ValidUntil) {
			return true
		}
	}
	return false
}

func (s *standing) granted(r disclosure.Request, released []disclosure.Field, at time.Time) bool {
	for _, g := range s.grants {
		covers := !slices.ContainsFunc(released, func(f disclosure.Field) bool { return !slices.Contains(g.Fields, f) })
		if g.Source == r.Source && g.Recipient == r.Requester && g.Purpose == r.Purpose && covers &&
			!at.Before(g.NotBefore) && at.Before(g.ExpiresAt) && g.FirstPhase <= s.phase && s.phase <= g.LastPhase {
			return true
		}
	}
	return false
}
