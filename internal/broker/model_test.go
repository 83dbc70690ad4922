package broker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluis/internal/disclosure"
)

// model is what the broker should do, one call at a time, as simply as it can be said. What a call comes to is a line of text, on both sides.
type model struct {
	w        *world
	r        *rand.Rand
	cases    []*modelCase
	grants   map[disclosure.GrantID]*modelGrant
	granted  []disclosure.GrantID // oldest first
	consents []*modelConsent
	requests map[string]*modelRequest
	entries  uint64 // in the ledger
	restarts int
	last     disclosure.Request // asked; only its id and requester
	told     map[string]int     // what happened how often
}

type modelCase struct {
	disclosure.Case
	opened, closed bool
	members        map[disclosure.Party]bool
}

type modelGrant struct {
	disclosure.Grant
	revoked bool
}

type modelConsent struct {
	disclosure.Evidence
	withdrawn bool
}

type modelRequest struct {
	query     disclosure.Query
	line      string // what the last try came to
	ended     bool
	at        time.Time // of its end
	restarts  int       // at its end
	disclosed bool
	receipts  [2]uint64
}

// TestModel does at random what people do, on the broker and on the model, and compares.
func TestModel(t *testing.T) {
	const enough = 40 // rounds in which everything has happened, however slow they were
	deadline := time.Now().Add(soak(t, 3*time.Second))
	told := map[string]int{}
	missing := func() bool {
		return slices.ContainsFunc([]string{
			"denied", "disclosed", "refused by the source", "offline", "again after offline", "same with answer", "same without answer", "reused",
		}, func(what string) bool { return told[what] == 0 })
	}
	for seed := uint64(1); time.Now().Before(deadline) || missing() && seed < enough; seed++ {
		if !t.Run("", func(t *testing.T) { modelRound(t, seed, told) }) {
			t.Fatalf("seed %d", seed)
		}
	}
	if missing() {
		t.Errorf("not everything has happened: %v", told)
	}
}

func modelRound(t *testing.T, seed uint64, told map[string]int) {
	const steps = 400
	m := &model{
		w: newWorld(t), r: rand.New(rand.NewPCG(seed, 1)), grants: map[disclosure.GrantID]*modelGrant{}, requests: map[string]*modelRequest{},
		told: told,
	}
	for range 2 {
		m.cases = append(m.cases, &modelCase{Case: newCase(), members: map[disclosure.Party]bool{}})
	}
	m.entries = m.w.log.Size()
	steering := []func() (string, string, string){
		m.open, m.add, m.add, m.add, m.remove, m.phase, m.grant, m.grant, m.grant, m.revoke, m.consent, m.consent, m.withdraw, m.list,
		m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask, m.ask,
	}
	for step := range steps {
		do := steering[m.r.IntN(len(steering))]
		switch n := m.r.IntN(300); {
		case n < 4:
			do = m.restart
		case n < 25:
			do = m.tick
		case n < 26 && step > steps*3/4:
			do = m.close
		}
		what, got, want := do()
		if got != want {
			t.Fatalf("step %d, %s:\n got %s\nwant %s", step, what, got, want)
		}
		if size := m.w.log.Size(); size != m.entries {
			t.Fatalf("step %d, %s: %d entries in the ledger, want %d", step, what, size, m.entries)
		}
	}
}

// line says what a call came to.
func line(err error, format string, args ...any) string {
	var code disclosure.ReasonCode
	switch {
	case err == nil:
		return fmt.Sprintf(format, args...)
	case errors.As(err, &code):
		return "refused: " + string(code)
	case errors.Is(err, disclosure.ErrMalformed):
		return "refused: malformed"
	}
	return err.Error()
}

func refused(code disclosure.ReasonCode) string { return "refused: " + string(code) }

func (m *model) pick() *modelCase { return m.cases[m.r.IntN(len(m.cases))] }

func (m *model) party() disclosure.Party {
	return []disclosure.Party{constable(), nurse(), officer()}[m.r.IntN(3)]
}

// flow is two parties, now and then the same one twice.
func (m *model) flow() (source, recipient disclosure.Party) {
	source, recipient = m.party(), m.party()
	for source == recipient && m.r.IntN(10) > 0 {
		recipient = m.party()
	}
	return source, recipient
}

func describe(c disclosure.Case) string {
	var parties []string
	for _, p := range c.Participants {
		parties = append(parties, string(p.Domain))
	}
	slices.Sort(parties)
	return fmt.Sprintf("%s closed=%t %v", c.Phase, c.ClosedAt != nil, parties)
}

func (c *modelCase) describe() string {
	var parties []string
	for p := range c.members {
		parties = append(parties, string(p.Domain))
	}
	slices.Sort(parties)
	return fmt.Sprintf("%s closed=%t %v", c.Phase, c.closed, parties)
}

func (m *model) open() (what, got, want string) {
	c, again := m.pick(), m.r.IntN(4) == 0
	asked := newCase()
	asked.ID = c.ID
	if again {
		asked.Reference = "other-1"
	}
	opened, _, err := m.w.broker.OpenCase(m.w.t.Context(), expert(), asked)
	got = line(err, "%s %s", opened.Reference, describe(opened))
	switch {
	case !c.opened:
		c.opened, c.Reference, c.Phase, c.members[process()] = true, asked.Reference, "F1", true
		m.entries++
		want = fmt.Sprintf("%s %s", c.Reference, c.describe())
	case c.Reference != asked.Reference:
		want = refused(disclosure.ReasonAlreadyExists)
	default:
		want = fmt.Sprintf("%s %s", c.Reference, c.describe())
	}
	return "open case", got, want
}

// change is what every change of a case meets first.
func (c *modelCase) change() string {
	switch {
	case !c.opened:
		return refused(disclosure.ReasonNotFound)
	case c.closed:
		return refused(disclosure.ReasonCaseClosed)
	}
	return ""
}

func (m *model) add() (what, got, want string) {
	c, p := m.pick(), m.party()
	changed, _, err := m.w.broker.AddParticipant(m.w.t.Context(), expert(), c.ID, p, identity(c.ID, p))
	if want = c.change(); want == "" {
		c.members[p] = true
		m.entries++
		want = c.describe()
	}
	return "add " + string(p.Domain), line(err, "%s", describe(changed)), want
}

func (m *model) remove() (what, got, want string) {
	c, p := m.pick(), m.party()
	changed, _, err := m.w.broker.RemoveParticipant(m.w.t.Context(), expert(), c.ID, p)
	if want = c.change(); want == "" && !c.members[p] {
		want = refused(disclosure.ReasonNotFound)
	} else if want == "" {
		delete(c.members, p)
		m.entries++
		want = c.describe()
	}
	return "remove " + string(p.Domain), line(err, "%s", describe(changed)), want
}

func (m *model) phase() (what, got, want string) {
	c := m.pick()
	from, to := disclosure.Phase(fmt.Sprint("F", 1+m.r.IntN(3))), disclosure.Phase(fmt.Sprint("F", 1+m.r.IntN(3)))
	changed, _, err := m.w.broker.ChangePhase(m.w.t.Context(), expert(), c.ID, from, to)
	if want = c.change(); want == "" && (c.Phase != from || from == to) {
		want = refused(disclosure.ReasonWrongPhase)
	} else if want == "" {
		c.Phase = to
		m.entries++
		want = c.describe()
	}
	return "change phase", line(err, "%s", describe(changed)), want
}

func (m *model) close() (what, got, want string) {
	c := m.pick()
	changed, _, err := m.w.broker.CloseCase(m.w.t.Context(), expert(), c.ID, "done")
	if want = c.change(); want == "" {
		c.closed, c.Phase = true, "F7"
		m.entries++
		want = c.describe()
	}
	return "close case", line(err, "%s", describe(changed)), want
}

func (m *model) grant() (what, got, want string) {
	c := m.pick()
	source, recipient := m.flow()
	g := m.w.newGrant(c.ID, source, recipient, []disclosure.Field{"CONT.*", "CONT.*", "CONT.phone", "HEALTH.doctor"}[m.r.IntN(4)])
	g.Purpose = []disclosure.Purpose{"CASE_TALK", "CONSENTED"}[m.r.IntN(2)]
	g.LastPhase = []disclosure.Phase{"F2", "F6", "F6"}[m.r.IntN(3)]
	g.ExpiresAt = g.NotBefore.Add(time.Duration(1+m.r.IntN(500)) * time.Minute)
	if n := len(m.granted); n > 0 && m.r.IntN(4) == 0 { // one that there is already
		before := m.grants[m.granted[m.r.IntN(n)]]
		other := m.r.IntN(2) == 0
		if g = before.Grant; other {
			g.Motive.Aim = "another"
		}
		created, _, err := m.w.broker.CreateGrant(m.w.t.Context(), expert(), g)
		if want = "revoked=" + fmt.Sprint(before.revoked); other {
			want = refused(disclosure.ReasonAlreadyExists)
		}
		return "grant again", line(err, "revoked=%t", created.RevokedAt != nil), want
	}
	created, _, err := m.w.broker.CreateGrant(m.w.t.Context(), expert(), g)
	if want = c.change(); want == "" && (!c.members[source] || !c.members[recipient]) {
		want = refused(disclosure.ReasonNotMember)
	} else if want == "" {
		m.grants[g.ID], m.granted = &modelGrant{Grant: g}, append(m.granted, g.ID)
		m.entries++
		want = "revoked=false"
	}
	return "grant", line(err, "revoked=%t", created.RevokedAt != nil), want
}

func (m *model) revoke() (what, got, want string) {
	if len(m.granted) == 0 {
		return "", "", ""
	}
	g := m.grants[m.granted[m.r.IntN(len(m.granted))]]
	revoked, written, err := m.w.broker.RevokeGrant(m.w.t.Context(), expert(), g.ID, "over")
	i := slices.IndexFunc(m.cases, func(c *modelCase) bool { return c.ID == g.Case })
	if want = m.cases[i].change(); want == "" {
		want = fmt.Sprintf("%t first=%t", true, !g.revoked)
		if !g.revoked {
			m.entries++
		}
		g.revoked = true
	}
	return "revoke", line(err, "%t first=%t", revoked.RevokedAt != nil, written != nil), want
}

func (m *model) consent() (what, got, want string) {
	c := m.pick()
	e := m.w.consent(c.ID)
	e.ValidUntil = e.ValidFrom.Add(time.Duration(1+m.r.IntN(500)) * time.Minute)
	recorded, _, err := m.w.broker.RecordEvidence(m.w.t.Context(), caregiver(), e)
	switch {
	case !c.opened || !c.members[nurse()]:
		want = refused(disclosure.ReasonNotFound)
	case c.closed:
		want = refused(disclosure.ReasonCaseClosed)
	default:
		m.consents = append(m.consents, &modelConsent{Evidence: e})
		m.entries++
		want = string(subject)
	}
	return "consent", line(err, "%s", recorded.Subject), want
}

func (m *model) withdraw() (what, got, want string) {
	if len(m.consents) == 0 {
		return "", "", ""
	}
	e := m.consents[m.r.IntN(len(m.consents))]
	i := slices.IndexFunc(m.cases, func(c *modelCase) bool { return c.ID == e.Case })
	c := m.cases[i]
	withdrawn, written, err := m.w.broker.WithdrawEvidence(m.w.t.Context(), caregiver(), e.Case, e.ID, "asked to")
	switch {
	case !c.members[nurse()]:
		want = refused(disclosure.ReasonNotFound)
	case e.withdrawn:
		want = "true first=false"
	case c.closed:
		want = refused(disclosure.ReasonCaseClosed)
	default:
		e.withdrawn = true
		m.entries++
		want = "true first=true"
	}
	return "withdraw", line(err, "%t first=%t", withdrawn.WithdrawnAt != nil, written != nil), want
}

func (m *model) list() (what, got, want string) {
	p := m.party()
	caller := person("x", disclosure.RoleProfessional, p)
	cases, _, err := m.w.broker.ListCases(m.w.t.Context(), caller, "", 100)
	var seen, expected []string
	for _, c := range cases {
		grants, _, err := m.w.broker.ListGrants(m.w.t.Context(), caller, c.ID, "", 100)
		evidence, _, err2 := m.w.broker.ListEvidence(m.w.t.Context(), caller, c.ID, "", 100)
		seen = append(seen, fmt.Sprint(c.ID, describe(c), len(grants), len(evidence), err, err2))
	}
	for _, c := range m.cases {
		if !c.members[p] {
			continue
		}
		grants, evidence := 0, 0
		for _, g := range m.grants {
			if g.Case == c.ID {
				grants++
			}
		}
		for _, e := range m.consents {
			if e.Case == c.ID {
				evidence++
			}
		}
		expected = append(expected, fmt.Sprint(c.ID, c.describe(), grants, evidence, nil, nil))
	}
	slices.Sort(seen)
	slices.Sort(expected)
	return "list", line(err, "%s", strings.Join(seen, "\n")), strings.Join(expected, "\n")
}

func (m *model) tick() (what, got, want string) {
	m.w.clock.Move(time.Duration(m.r.IntN(15*60)) * time.Second)
	return "", "", ""
}

func (m *model) restart() (what, got, want string) {
	m.w.restart()
	m.restarts++
	return "", "", ""
}

// ask asks under one of a few ids, so that retries, reuse and requests that are tried again all happen.
func (m *model) ask() (what, got, want string) {
	c := m.pick().ID
	source, requester := m.flow()
	purpose := []disclosure.Purpose{"CASE_TALK", "CONSENTED"}[m.r.IntN(2)]
	if n := len(m.granted); n > 0 && m.r.IntN(4) > 0 {
		g := m.grants[m.granted[n-1-m.r.IntN(min(n, 5))]]
		c, requester, source, purpose = g.Case, g.Recipient, g.Source, g.Purpose
	}
	id := disclosure.RequestID(fmt.Sprintf("00000000-0000-4000-8000-%012d", m.r.IntN(60)))
	if m.last.ID != "" && m.r.IntN(6) == 0 { // the last one once more
		requester, id = m.last.Requester, m.last.ID
	}
	m.last = disclosure.Request{ID: id, Requester: requester}
	q := talk(c, []disclosure.Field{"CONT.phone", "CONT.*", "HEALTH.doctor"}[m.r.IntN(3)])
	q.Domain, q.Source, q.Purpose = requester.Domain, source, purpose
	caller := person("x", disclosure.RoleProfessional, requester)
	key := string(requester.OIN) + string(id)
	before := m.requests[key]
	if before != nil && m.r.IntN(3) > 0 {
		q = before.query
	}
	acts := m.r.IntN(4)
	m.w.sources.act([]script{m.w.sources.answer, m.w.sources.answer, m.w.sources.refuse(disclosure.ReasonHouseRule), fail(offline())}[acts])
	d, err := m.w.ask(caller, id, q)
	got = m.disclosed(d, err)
	return fmt.Sprintf("ask %s of %s for %s", requester.Domain, q.Source.Domain, q.Purpose), got, m.wantDisclosed(key, q, requester, acts)
}

func (m *model) disclosed(d disclosure.Disclosure, err error) string {
	var reasons []disclosure.ReasonCode
	for _, r := range d.Decision.Reasons {
		reasons = append(reasons, r.Code)
	}
	outcome := uint64(0)
	if d.OutcomeReceipt != nil {
		outcome = d.OutcomeReceipt.Index
	}
	return line(err, "%s %v %v %s %q answer=%t %d %d", d.Decision.Effect, d.Decision.Released, reasons, d.Outcome, d.OutcomeReason,
		string(d.Answer) == string(sealedAnswer(d.Request)), d.DecisionReceipt.Index, outcome)
}

func (m *model) wantDisclosed(key string, q disclosure.Query, requester disclosure.Party, acts int) string {
	if q.Source == requester {
		return "refused: malformed"
	}
	before := m.requests[key]
	if before != nil && string(bodyDigest(before.query)) != string(bodyDigest(q)) {
		m.told["reused"]++
		return refused(disclosure.ReasonRequestIDReused)
	}
	if before != nil && before.ended {
		kept := before.disclosed && before.restarts == m.restarts && m.w.clock.Now().Before(before.at.Add(10*time.Minute))
		if before.disclosed {
			m.told[map[bool]string{true: "same with answer", false: "same without answer"}[kept]]++
		}
		return fmt.Sprintf("%s answer=%t %d %d", before.line, kept, before.receipts[0], before.receipts[1])
	}
	if before != nil {
		m.told["again after offline"]++
	}
	request := &modelRequest{query: q, ended: true, at: m.w.clock.Now(), restarts: m.restarts}
	m.requests[key] = request
	request.receipts[0] = m.entries
	m.entries++
	released, reason := m.judge(q, requester)
	if reason != "" {
		m.told["denied"]++
		request.line = fmt.Sprintf("DENY [] [%s]  \"\"", reason)
		return fmt.Sprintf("%s answer=false %d 0", request.line, request.receipts[0])
	}
	request.receipts[1] = m.entries
	m.entries++
	permit := fmt.Sprintf("PERMIT %v []", released)
	switch acts {
	case 2:
		m.told["refused by the source"]++
		request.line = permit + ` REFUSED "HOUSE_RULE"`
	case 3:
		m.told["offline"]++
		request.ended = false
		return refused(disclosure.ReasonSourceOffline)
	default:
		m.told["disclosed"]++
		request.line, request.disclosed = permit+` DISCLOSED ""`, true
	}
	return fmt.Sprintf("%s answer=%t %d %d", request.line, request.disclosed, request.receipts[0], request.receipts[1])
}

// judge says what is released, or why nothing is.
func (m *model) judge(q disclosure.Query, requester disclosure.Party) ([]disclosure.Field, disclosure.ReasonCode) {
	c := m.cases[slices.IndexFunc(m.cases, func(c *modelCase) bool { return c.ID == q.Case })]
	now := m.w.clock.Now()
	switch {
	case !c.opened || !c.members[requester] || !c.members[q.Source]:
		return nil, disclosure.ReasonNotMember
	case c.closed:
		return nil, disclosure.ReasonWrongPhase
	case q.Purpose == "CONSENTED" && !slices.ContainsFunc(m.consents, func(e *modelConsent) bool {
		return e.Case == c.ID && !e.withdrawn && now.Before(e.ValidUntil)
	}):
		return nil, disclosure.ReasonConsentMissing
	}
	var valid []*modelGrant
	for _, g := range m.grants {
		if g.Case == c.ID && g.Source == q.Source && g.Recipient == requester && g.Purpose == q.Purpose && !g.revoked &&
			now.Before(g.ExpiresAt) && c.Phase <= g.LastPhase {
			valid = append(valid, g)
		}
	}
	if len(valid) == 0 {
		return nil, disclosure.ReasonNoGrant
	}
	var released []disclosure.Field
	for _, f := range fields() {
		if q.Fields[0].Covers(f) && slices.ContainsFunc(valid, func(g *modelGrant) bool { return g.Fields[0].Covers(f) }) {
			released = append(released, f)
		}
	}
	if len(released) == 0 {
		return nil, disclosure.ReasonNotGranted
	}
	return released, ""
}
