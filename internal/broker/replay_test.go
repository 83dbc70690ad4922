package broker_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
)

// replay goes through a ledger in order, keeps its own idea of what holds at each entry, and says which entry should not have been possible.
// It shares no code with casefile: what that folds wrongly shows here.
type replay struct {
	partners   map[disclosure.OIN]disclosure.Partner
	statements map[disclosure.OIN][]byte
	cases      map[disclosure.CaseID]*disclosure.Case
	grants     map[disclosure.GrantID]*disclosure.Grant
	evidence   []*disclosure.Evidence
	open       map[uint64]*disclosure.DecisionMade
	requests   map[string]*asked
	budgets    map[string]int
	days       map[disclosure.OIN]string
	policy     string
	limit      int
}

// asked is what a replay remembers of a request.
type asked struct {
	body  []byte
	ended bool
	under bool // under way
}

// replayAll replays the ledger of a world and reports what is wrong with it.
func replayAll(w *world) {
	w.t.Helper()
	r := replay{
		partners: map[disclosure.OIN]disclosure.Partner{}, statements: map[disclosure.OIN][]byte{},
		cases: map[disclosure.CaseID]*disclosure.Case{}, grants: map[disclosure.GrantID]*disclosure.Grant{},
		open: map[uint64]*disclosure.DecisionMade{}, requests: map[string]*asked{}, budgets: map[string]int{},
		days: map[disclosure.OIN]string{},
	}
	events, times := w.events()
	for i, e := range events {
		if e.Kind == "" {
			continue // erased
		}
		if err := r.apply(uint64(i), times[i], e); err != nil {
			w.t.Errorf("entry %d, %s: %v", i, e.Kind, err)
		}
	}
}

func (r *replay) apply(index uint64, at time.Time, e disclosure.Event) error {
	c := r.cases[e.Case]
	switch e.Kind {
	case disclosure.KindCaseOpened, disclosure.KindDecisionMade, disclosure.KindOutcomeRecorded, disclosure.KindExplained:
	default:
		if e.Case != "" && (c == nil || c.ClosedAt != nil) {
			return fmt.Errorf("of a case that is not there or is closed")
		}
	}
	switch e.Kind {
	case disclosure.KindBrokerKeys:
		r.limit = e.BrokerKeys.PseudonymBudget
	case disclosure.KindPolicyActivated:
		r.policy = e.PolicyActivated.Digest
	case disclosure.KindPartnerAdded:
		r.partners[e.PartnerAdded.OIN] = *e.PartnerAdded
	case disclosure.KindStatementPublished:
		r.statements[e.By.OIN] = e.StatementPublished.Statement
	case disclosure.KindPseudonymsMade:
		return r.pseudonyms(e)
	case disclosure.KindCaseOpened:
		if c != nil {
			return fmt.Errorf("opened twice")
		}
		opened := *e.CaseOpened
		opened.OpenedAt = at
		opened.Participants = slices.Clone(opened.Participants)
		for i := range opened.Participants {
			opened.Participants[i].JoinedAt = at
		}
		r.cases[opened.ID] = &opened
	case disclosure.KindPhaseChanged:
		if c.Phase != e.PhaseChanged.From {
			return fmt.Errorf("from %s, but it is in %s", e.PhaseChanged.From, c.Phase)
		}
		c.Phase = e.PhaseChanged.To
	case disclosure.KindParticipantAdded:
		if !c.Has(e.ParticipantAdded.Participant) {
			c.Participants = append(c.Participants, disclosure.Participant{Party: e.ParticipantAdded.Participant, JoinedAt: at})
		}
	case disclosure.KindParticipantRemoved:
		if p := e.ParticipantRemoved.Participant; !c.Has(p) || p == c.Owner {
			return fmt.Errorf("takes no part, or owns the case")
		}
		c.Participants = slices.DeleteFunc(slices.Clone(c.Participants), func(p disclosure.Participant) bool {
			return p.Party == e.ParticipantRemoved.Participant
		})
	case disclosure.KindCaseClosed:
		c.Phase, c.ClosedAt = "F7", &at
	case disclosure.KindGrantCreated:
		return r.grant(c, *e.GrantCreated)
	case disclosure.KindGrantRevoked:
		g := r.grants[e.GrantRevoked.Grant]
		if g == nil || g.RevokedAt != nil || g.Case != e.Case {
			return fmt.Errorf("no such grant, or revoked before")
		}
		g.RevokedAt = &at
	case disclosure.KindEvidenceRecorded:
		recorded := *e.EvidenceRecorded
		if recorded.Case != "" && (!c.Has(recorded.RecordedFor) || recorded.Subject != c.Subject) {
			return fmt.Errorf("by an outsider, or about another person")
		}
		r.evidence = append(r.evidence, &recorded)
	case disclosure.KindEvidenceWithdrawn:
		return r.withdraw(at, e)
	case disclosure.KindDecisionMade:
		return r.decision(index, at, e)
	case disclosure.KindOutcomeRecorded:
		return r.outcome(e.OutcomeRecorded)
	case disclosure.KindExplained:
		return r.mayKnow(e.Explained.Input)
	case disclosure.KindLogRead:
	}
	return nil
}

func (r *replay) pseudonyms(e disclosure.Event) error {
	// Whatever day an entry says, an organisation's days only go on.
	r.days[e.By.OIN] = max(r.days[e.By.OIN], e.PseudonymsMade.Day)
	key := string(e.By.OIN) + " " + r.days[e.By.OIN]
	if r.budgets[key] += e.PseudonymsMade.Count; r.budgets[key] > r.limit {
		return fmt.Errorf("%d of %d", r.budgets[key], r.limit)
	}
	return nil
}

func (r *replay) grant(c *disclosure.Case, g disclosure.Grant) error {
	if r.grants[g.ID] != nil || g.RevokedAt != nil || !c.Has(g.Source) || !c.Has(g.Recipient) {
		return fmt.Errorf("there before, revoked at birth, or to an outsider")
	}
	r.grants[g.ID] = &g
	return nil
}

func (r *replay) withdraw(at time.Time, e disclosure.Event) error {
	for _, held := range r.evidence {
		if held.ID == e.EvidenceWithdrawn.Evidence && held.Case == e.Case && (e.Case != "" || held.RecordedFor == e.By) {
			if held.WithdrawnAt != nil {
				return fmt.Errorf("withdrawn before")
			}
			held.WithdrawnAt = &at
			return nil
		}
	}
	return fmt.Errorf("no such evidence")
}

// mayKnow checks that an input, of which the requester is given the receipt, holds no more than the requester may know.
func (r *replay) mayKnow(in disclosure.DecisionInput) error {
	if c := in.Case; c != nil && (r.cases[c.ID] == nil || !r.cases[c.ID].Has(in.Request.Requester)) {
		return fmt.Errorf("tells an outsider about a case")
	}
	if in.Case == nil && (len(in.Grants) > 0 || in.Request.Case != "" && (len(in.Evidence) > 0 || in.Request.Subject != "")) {
		return fmt.Errorf("tells an outsider what belongs to a case")
	}
	for _, e := range in.Evidence {
		if e.Subject != "" && e.Subject != in.Request.Subject {
			return fmt.Errorf("tells about another data subject")
		}
	}
	return nil
}

// decision is invariant I2 and half of I1: a permit in this place of the ledger rests on what holds in this place.
func (r *replay) decision(index uint64, at time.Time, e disclosure.Event) error {
	made := e.DecisionMade
	in, request := made.Input, made.Input.Request
	key := string(request.Requester.OIN) + " " + string(request.ID)
	if before := r.requests[key]; before != nil && (before.ended || before.under || string(before.body) != string(made.BodyDigest)) {
		return fmt.Errorf("second decision under one request id")
	}
	permit := made.Decision.Effect == disclosure.Permit
	r.requests[key] = &asked{body: made.BodyDigest, ended: !permit, under: permit}
	if err := r.mayKnow(in); err != nil {
		return err
	}
	if made.Decision.PolicyDigest != r.policy {
		return fmt.Errorf("by a policy that is not active")
	}
	if !permit {
		return nil
	}
	r.open[index] = made
	return r.permit(at, made)
}

func (r *replay) permit(at time.Time, made *disclosure.DecisionMade) error {
	in, request := made.Input, made.Input.Request
	for _, p := range []disclosure.Party{request.Requester, request.Source} {
		if !slices.Contains(r.partners[p.OIN].Domains, p.Domain) {
			return fmt.Errorf("permit to or about a hat that nobody wears")
		}
	}
	if keys := sha256.Sum256(r.statements[request.Requester.OIN]); string(keys[:]) != string(made.RequesterKeys) {
		return fmt.Errorf("permit to keys that were replaced")
	}
	if until := made.Decision.ValidUntil; until != nil && !at.Before(*until) {
		return fmt.Errorf("permit after its end")
	}
	var grants []disclosure.Grant
	if request.Case != "" {
		c := r.cases[request.Case]
		if c == nil || c.ClosedAt != nil || !c.Has(request.Requester) || !c.Has(request.Source) {
			return fmt.Errorf("permit in a case that is closed, or with an outsider")
		}
		if diff := cmp.Diff(encode(c), encode(in.Case)); diff != "" {
			return fmt.Errorf("permit on a case that was other (-is +seen):\n%s", diff)
		}
		for _, g := range r.grants {
			if g.Case == request.Case && g.Source == request.Source && g.Recipient == request.Requester {
				grants = append(grants, *g)
			}
		}
	}
	byID := func(a, b disclosure.Grant) int { return strings.Compare(string(a.ID), string(b.ID)) }
	slices.SortFunc(grants, byID)
	if diff := cmp.Diff(encode(grants), encode(in.Grants)); diff != "" {
		return fmt.Errorf("permit on grants that were other (-are +seen):\n%s", diff)
	}
	if diff := cmp.Diff(encode(r.evidenceFor(request)), encode(sorted(in.Evidence))); diff != "" {
		return fmt.Errorf("permit on evidence that was other (-is +seen):\n%s", diff)
	}
	return r.lawful(at, made, grants)
}

// evidenceFor returns the evidence that counts for a request.
func (r *replay) evidenceFor(request disclosure.Request) []disclosure.Evidence {
	var list []disclosure.Evidence
	for _, e := range r.evidence {
		ofParty := e.RecordedFor.OIN == request.Source.OIN || e.RecordedFor.OIN == request.Requester.OIN
		if request.Case != "" && e.Case == request.Case || e.Case == "" && ofParty && (e.Subject == "" || e.Subject == request.Subject) {
			list = append(list, *e)
		}
	}
	return sorted(list)
}

func sorted(list []disclosure.Evidence) []disclosure.Evidence {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b disclosure.Evidence) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return list
}

// lawful checks the rules of the tests once more, at the time of the entry: no revoked, withdrawn or expired thing carries a permit.
func (r *replay) lawful(at time.Time, made *disclosure.DecisionMade, grants []disclosure.Grant) error {
	request := made.Input.Request
	allowed := func(f disclosure.Field) bool {
		if request.Purpose == "DANGER" || request.Purpose == "COVENANT" {
			return true
		}
		return slices.ContainsFunc(grants, func(g disclosure.Grant) bool {
			phase := r.cases[request.Case].Phase
			return g.RevokedAt == nil && !at.Before(g.NotBefore) && at.Before(g.ExpiresAt) && g.FirstPhase <= phase && phase <= g.LastPhase &&
				slices.ContainsFunc(g.Fields, func(of disclosure.Field) bool { return of.Covers(f) })
		})
	}
	for _, f := range made.Decision.Released {
		if !allowed(f) {
			return fmt.Errorf("permit of %s that no grant allows", f)
		}
		if !slices.ContainsFunc(request.Fields, func(of disclosure.Field) bool { return of.Covers(f) }) {
			return fmt.Errorf("permit of %s that nobody asked for", f)
		}
	}
	need := map[disclosure.Purpose]disclosure.Condition{"CONSENTED": "CONS", "COVENANT": "COVENANT"}[request.Purpose]
	if need != "" && !slices.ContainsFunc(r.evidenceFor(request), func(e disclosure.Evidence) bool {
		return e.Kind == need && e.WithdrawnAt == nil && at.Before(e.ValidUntil)
	}) {
		return fmt.Errorf("permit without %s", need)
	}
	return nil
}

// outcome is the other half of I1, and I4: what ended was permitted, ends once, and no more is released than that.
func (r *replay) outcome(o *disclosure.OutcomeRecorded) error {
	made := r.open[o.DecisionIndex]
	if made == nil || made.Input.Request.ID != o.Request || made.Input.Request.Requester != o.Requester ||
		made.Input.Request.Source != o.Source {
		if o.Outcome == disclosure.Dropped {
			return nil // the disclosure ended before
		}
		return fmt.Errorf("of no open permit")
	}
	if o.Outcome == disclosure.Dropped {
		return nil
	}
	delete(r.open, o.DecisionIndex)
	request := r.requests[string(o.Requester.OIN)+" "+string(o.Request)]
	request.under, request.ended = false, o.Outcome == disclosure.Disclosed || o.Outcome == disclosure.Refused
	for _, f := range o.Released {
		if !slices.Contains(made.Decision.Released, f) {
			return fmt.Errorf("released %s, which was not permitted", f)
		}
	}
	if (o.Outcome == disclosure.Disclosed) != (o.Reason == "") || o.Outcome == disclosure.Disclosed && len(o.Manifest) == 0 ||
		o.Outcome == disclosure.Failed && len(o.Released)+len(o.Manifest) > 0 {
		return fmt.Errorf("%s for %q with a manifest of %d bytes", o.Outcome, string(o.Reason), len(o.Manifest))
	}
	return nil
}

func encode(v any) string {
	encoded, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(encoded)
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
