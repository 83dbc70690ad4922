package casefile

import (
	"slices"

	"sluis/internal/disclosure"
)

// Terms names what an entry can be found by. A term is the name of a filter, an equals sign and its value; see Query.
func (Folder) Terms(prepared any) []string {
	e, ok := prepared.(*disclosure.Event)
	if !ok {
		return nil
	}
	t := terms{}
	t.add("kind", string(e.Kind))
	t.add("case", string(e.Case))
	t.add("org", string(e.By.OIN))
	switch e.Kind {
	case disclosure.KindDecisionMade:
		t.decision(e.DecisionMade)
	case disclosure.KindExplained:
		t.decision(e.Explained)
	case disclosure.KindOutcomeRecorded:
		t.add("org", string(e.OutcomeRecorded.Requester.OIN))
		t.add("org", string(e.OutcomeRecorded.Source.OIN))
		t.add("reason", string(e.OutcomeRecorded.Reason))
	case disclosure.KindCaseOpened:
		t.add("subject", string(e.CaseOpened.Subject))
	case disclosure.KindGrantCreated:
		t.add("purpose", string(e.GrantCreated.Purpose))
		t.add("org", string(e.GrantCreated.Source.OIN))
		t.add("org", string(e.GrantCreated.Recipient.OIN))
	case disclosure.KindParticipantAdded:
		t.add("org", string(e.ParticipantAdded.Participant.OIN))
	case disclosure.KindParticipantRemoved:
		t.add("org", string(e.ParticipantRemoved.Participant.OIN))
	case disclosure.KindBrokerKeys, disclosure.KindPolicyActivated, disclosure.KindPartnerAdded, disclosure.KindStatementPublished,
		disclosure.KindPseudonymsMade, disclosure.KindPhaseChanged, disclosure.KindCaseClosed, disclosure.KindGrantRevoked,
		disclosure.KindEvidenceRecorded, disclosure.KindEvidenceWithdrawn, disclosure.KindLogRead:
	}
	return t.list
}

// Query returns the terms of a search. An officer sees what his own organisation had a part in, so org is always among them, even one
// that is empty, which finds nothing.
func Query(org disclosure.OIN, q disclosure.EntryQuery) []string {
	t := terms{list: []string{"org=" + string(org)}}
	t.add("kind", string(q.Kind))
	t.add("case", string(q.Case))
	t.add("subject", string(q.Subject))
	t.add("requester", string(q.Requester))
	t.add("source", string(q.Source))
	t.add("purpose", string(q.Purpose))
	t.add("reason", string(q.Reason))
	return t.list
}

// Concerns reports whether an organisation had a part in an event: it acted, asked or was asked, or takes part by it.
func Concerns(e disclosure.Event, org disclosure.OIN) bool {
	return slices.Contains(Folder{}.Terms(&e), "org="+string(org))
}

type terms struct {
	seen map[string]bool
	list []string
}

func (t *terms) add(name, value string) {
	term := name + "=" + value
	if value == "" || t.seen[term] {
		return
	}
	if t.seen == nil {
		t.seen = map[string]bool{}
	}
	t.seen[term] = true
	t.list = append(t.list, term)
}

func (t *terms) decision(made *disclosure.DecisionMade) {
	request := made.Input.Request
	t.add("subject", string(request.Subject))
	t.add("requester", string(request.Requester.OIN))
	t.add("source", string(request.Source.OIN))
	t.add("org", string(request.Requester.OIN))
	t.add("org", string(request.Source.OIN))
	t.add("purpose", string(request.Purpose))
	for _, reason := range made.Decision.Reasons {
		t.add("reason", string(reason.Code))
	}
	for _, withheld := range made.Decision.Withheld {
		t.add("reason", string(withheld.Reason.Code))
	}
}
