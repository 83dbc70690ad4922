package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluis/internal/disclosure"
)

// The exit statuses of the agent that the scenes expect.
const (
	done        = 0
	denied      = 3
	unreachable = 4
	notVerified = 5
)

// play is the world being played: each scene prints a line, and whether what happened is what had to happen.
type play struct {
	*world
	out    io.Writer
	number int
	failed int
	cases  map[string]string // by given name of the person
}

// answer is what the agent prints of a disclosure.
type answer struct {
	RequestID string   `json:"request_id"`
	Effect    string   `json:"effect"`
	Outcome   string   `json:"outcome"`
	Reason    *reason  `json:"reason"`
	Reasons   []reason `json:"reasons"`
	Released  []string `json:"released"`
	Withheld  []struct {
		Field string `json:"field"`
		reason
	} `json:"withheld"`
	Records []struct {
		Category string            `json:"category"`
		Values   map[string]string `json:"values"`
	} `json:"records"`
	Rows     []string `json:"rows"`
	Articles []string `json:"articles"`
	Receipts []string `json:"receipts"`
	Error    struct {
		Code string `json:"code"`
		Text string `json:"text"`
	} `json:"error"`

	status int
	raw    []byte
}

type reason struct {
	Code    string `json:"code"`
	Text    string `json:"text"`
	Article string `json:"article"`
}

// why are the reasons of a denial, with their articles.
func (a answer) why() string {
	switch {
	case len(a.Reasons) > 0:
		list := make([]string, len(a.Reasons))
		for i, r := range a.Reasons {
			list[i] = r.Code + " (" + r.Article + ")"
		}
		return strings.Join(list, ", ")
	case a.Reason != nil:
		return a.Reason.Code + " (" + a.Reason.Article + ")"
	case a.Error.Code != "":
		return a.Error.Code
	case a.Error.Text != "":
		return a.Error.Text
	}
	return fmt.Sprintf("status %d", a.status)
}

// has reports whether a code is among the reasons.
func (a answer) has(code disclosure.ReasonCode) bool {
	return a.Error.Code == string(code) || a.Reason != nil && a.Reason.Code == string(code) ||
		slices.ContainsFunc(a.Reasons, func(r reason) bool { return r.Code == string(code) })
}

// agent gives a command to an organisation's agent in the name of one of its people.
func (p *play) agent(ctx context.Context, who string, stdin []byte, args ...string) (answer, error) {
	key, _, _ := strings.Cut(who, "/")
	return p.agentWith(ctx, p.config(key), who, stdin, args...)
}

func (p *play) agentWith(ctx context.Context, config, who string, stdin []byte, args ...string) (answer, error) {
	key, person, _ := strings.Cut(who, "/")
	args = append(args, "--config", config, "--token-file", p.path(key, "tokens", person), "-o", "json")
	r, err := command(ctx, p.agentBin(), stdin, args...)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: r.status, raw: r.out}
	text := r.out
	if len(text) == 0 {
		text = r.err
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &a); err != nil {
			return a, fmt.Errorf("agent %v of %s: %w: %s%s", args[:2], who, err, r.out, r.err)
		}
	}
	return a, nil
}

// do gives a command that has to succeed, and returns what it printed.
func (p *play) do(ctx context.Context, who string, stdin []byte, args ...string) (answer, error) {
	a, err := p.agent(ctx, who, stdin, args...)
	if err == nil && a.status != done {
		err = fmt.Errorf("agent %v of %s: status %d: %s", args[:2], who, a.status, a.why())
	}
	return a, err
}

func party(oin disclosure.OIN, domain string) string { return string(oin) + "/" + domain }

// ask is a request by hand.
type ask struct {
	who     string
	domain  string
	about   string // given name of a person with a case
	source  string
	purpose string
	fields  []string
	id      string
	config  string // of the agent, if not the organisation's own
}

func (p *play) request(ctx context.Context, q ask) (answer, error) {
	args := []string{
		"request", "--case", p.cases[q.about], "--source", q.source, "--purpose", q.purpose, "--domain", q.domain,
		"--aim", "Plan van aanpak opstellen", "--necessity", "Zonder deze gegevens kan het plan niet worden gemaakt",
		"--subsidiarity", "Er is geen lichtere weg", "--proportionality", "Alleen wat voor het plan nodig is",
	}
	if q.id == "" {
		q.id = uuid.NewString()
	}
	args = append(args, "--id", q.id)
	for _, field := range q.fields {
		args = append(args, "--field", field)
	}
	if q.config != "" {
		return p.agentWith(ctx, q.config, q.who, nil, args...)
	}
	return p.agent(ctx, q.who, nil, args...)
}

// scene prints what happened, and remembers whether it was expected.
func (p *play) scene(ok bool, what, happened string, a ...any) {
	p.number++
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		p.failed++
	}
	_, _ = fmt.Fprintf(p.out, "%s %2d  %-46s %s\n", mark, p.number, what, fmt.Sprintf(happened, a...))
}

// identity is the person as the municipality's systems know them, for the agent alone.
func (p *play) identity(who persona) []byte {
	encoded, err := json.Marshal(map[string]string{
		"bsn": who.BSN, "family_name": who.FamilyName, "given_names": who.GivenNames,
		"birth_date": who.BirthDate(p.now), "address": who.Address(),
	})
	if err != nil {
		panic(err) // strings always encode
	}
	return encoded
}

const (
	expert   = "gemeente/pga-expert"
	director = "gemeente/regisseur"
	police   = "politie/wijkagent"
	nurse    = "zorg/behandelaar"
	officer  = "reclassering/toezichthouder"
)

// openCase opens a case, adds participants, confirms that two domains know the person, and moves it to the case conference.
func (p *play) openCase(ctx context.Context, name string, number int, participants ...string) error {
	who := person(name)
	a, err := p.do(ctx, expert, p.identity(who), "case", "open", "--domain", "ME", "--reference", fmt.Sprintf("HIL-2026-%04d", number),
		"--resident", "--multi-problem", "--person", "-")
	if err != nil {
		return err
	}
	var opened struct {
		CaseID string `json:"case_id"`
	}
	if err := json.Unmarshal(a.raw, &opened); err != nil {
		return err
	}
	p.cases[name] = opened.CaseID
	for _, participant := range participants {
		if _, err := p.do(ctx, expert, p.identity(who), "case", "participant-add", opened.CaseID,
			"--participant", participant, "--person", "-"); err != nil {
			return err
		}
	}
	if err := p.evidence(ctx, expert, name, "HIT2", "--domain", "ME", "--detail", "domains=P,MW"); err != nil {
		return err
	}
	if err := p.evidence(ctx, expert, name, "INFO", "--domain", "ME", "--detail", "status=INFORMED"); err != nil {
		return err
	}
	_, err = p.do(ctx, expert, nil, "case", "phase", opened.CaseID, "--to", "F3")
	return err
}

func (p *play) evidence(ctx context.Context, who, about, kind string, args ...string) error {
	_, err := p.recordEvidence(ctx, who, about, kind, args...)
	return err
}

// recordEvidence records evidence, in the case of a person or outside cases, and gives its id.
func (p *play) recordEvidence(ctx context.Context, who, about, kind string, args ...string) (string, error) {
	id := uuid.NewString()
	args = append([]string{"evidence", "record", "--id", id, "--kind", kind}, args...)
	if about != "" {
		args = append(args, "--case", p.cases[about])
	}
	_, err := p.do(ctx, who, nil, args...)
	return id, err
}

// grant lets a recipient ask a source about a person, and gives the grant's id.
func (p *play) grant(ctx context.Context, about, source, recipient, purpose string, fields []string, args ...string) (string, error) {
	id := uuid.NewString()
	args = append([]string{
		"grant", "create", "--id", id, "--case", p.cases[about], "--source", source, "--recipient", recipient, "--purpose", purpose,
		"--first-phase", "F3", "--last-phase", "F5", "--aim", "Plan van aanpak opstellen", "--necessity", "Nodig voor het plan",
	}, args...)
	for _, field := range fields {
		args = append(args, "--field", field)
	}
	_, err := p.do(ctx, expert, nil, args...)
	return id, err
}

// prepare opens the cases and records what the scenes rest on.
func (p *play) prepare(ctx context.Context) error {
	me, mw, po := party(gemeenteOIN, "ME"), party(gemeenteOIN, "MW"), party(politieOIN, "P")
	cg, re := party(zorgOIN, "CG"), party(probationOIN, "R")
	var all []string
	for _, o := range organisations() {
		for _, domain := range o.domains {
			all = append(all, "--recipient", party(o.oin, string(domain)))
		}
	}
	for _, kind := range [][]string{
		{expert, "CONV", "--domain", "ME", "--detail", "reference=Reglement lokale PGA (demo)", "--days", "365"},
		{
			police, "W20", "--detail", "authority=MB", "--detail", "public_interest=Openbare orde",
			"--detail", "cooperation=Lokale PGA Hilversum (demo)", "--detail", "aim=Persoonsgerichte aanpak",
			"--category", "ID,ADDR,POLNUIS,POLINC,SAFE,PVA", "--days", "365",
		},
		{officer, "LAW", "--detail", "task=Reclasseringsregeling 1995 artikel 8", "--days", "365"},
	} {
		if err := p.evidence(ctx, kind[0], "", kind[1], append(kind[2:], all...)...); err != nil {
			return err
		}
	}
	for i, c := range []struct {
		name         string
		participants []string
	}{
		{"Daan", []string{po, re, mw}},
		{"Femke", []string{po, re}},
		{"Sanne", []string{po, cg}},
		{"Lotte", []string{po, cg}},
	} {
		if err := p.openCase(ctx, c.name, i+1, c.participants...); err != nil {
			return fmt.Errorf("case of %s: %w", c.name, err)
		}
	}
	for _, name := range []string{"Daan", "Femke"} {
		if err := p.evidence(ctx, officer, name, "SUPACT", "--detail", "reference=Toezichtopdracht (demo)"); err != nil {
			return err
		}
	}
	for _, name := range []string{"Sanne", "Lotte"} {
		if _, err := p.grant(ctx, name, cg, po, "CASUSOVERLEG", []string{"CONT.*", "SAFE.*"}); err != nil {
			return err
		}
	}
	_, err := p.grant(ctx, "Daan", re, me, "CASUSOVERLEG", []string{"SUPV.*", "CONT.*", "RISK.*"})
	if err != nil {
		// A grant that no row could carry is refused; the scene asks for RISK all the same, and is told why it does not come.
		_, err = p.grant(ctx, "Daan", re, me, "CASUSOVERLEG", []string{"SUPV.*", "CONT.*"})
	}
	return err
}

// run plays every scene.
func (p *play) run(ctx context.Context) error {
	for _, scene := range []func(context.Context) error{
		p.permitted, p.partial, p.consent, p.grants, p.offline, p.retried, p.lyingRequester, p.lyingBroker, p.tampered, p.receipt, p.canaries,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return nil
}

func values(a answer) string {
	var list []string
	for _, record := range a.Records {
		for _, name := range slices.Sorted(keysOf(record.Values)) {
			list = append(list, record.Category+"."+name+"="+record.Values[name])
		}
	}
	text := strings.Join(list, "; ")
	if runes := []rune(text); len(runes) > 90 {
		return string(runes[:90]) + "..."
	}
	return text
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for key := range m {
			if !yield(key) {
				return
			}
		}
	}
}

func (p *play) permitted(ctx context.Context) error {
	a, err := p.request(ctx, ask{
		who: officer, domain: "R", about: "Daan", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.date", "POLNUIS.kind", "POLNUIS.count"},
	})
	p.scene(a.status == done && len(a.Released) == 3, "police to probation, supervision", "released %d fields on %s: %s",
		len(a.Released), strings.Join(a.Rows, ","), values(a))
	return err
}

func (p *play) partial(ctx context.Context) error {
	a, err := p.request(ctx, ask{
		who: director, domain: "ME", about: "Daan", source: party(probationOIN, "R"), purpose: "CASUSOVERLEG", fields: []string{"SUPV.status", "SUPV.conditions", "RISK.score"},
	})
	if err != nil {
		return err
	}
	why := "nothing"
	if len(a.Withheld) > 0 {
		why = a.Withheld[0].Field + ": " + a.Withheld[0].Code + " (" + a.Withheld[0].Article + ")"
	}
	p.scene(a.status == done && len(a.Released) == 2 && len(a.Withheld) == 1 && a.Withheld[0].Field == "RISK.score",
		"probation to municipality, part of it", "released %s; withheld %s", strings.Join(a.Released, ", "), why)
	return nil
}

func (p *play) consent(ctx context.Context) error {
	q := ask{who: police, domain: "P", source: party(zorgOIN, "CG"), purpose: "CASUSOVERLEG", fields: []string{"CONT.professional", "SAFE.advice"}}
	q.about = "Sanne"
	a, err := p.request(ctx, q)
	if err != nil {
		return err
	}
	p.scene(a.status == denied && a.has(disclosure.ReasonSecrecyNotReleased), "care to police without consent", "denied: %s", a.why())

	q.about = "Lotte"
	given, err := p.recordEvidence(ctx, nurse, "Lotte", "CONS", "--source", q.source, "--recipient", party(politieOIN, "P"),
		"--purpose", "CASUSOVERLEG", "--category", "CONT,SAFE", "--detail", "giver=betrokkene", "--detail", "capacity=self",
		"--detail", "channel=gesprek", "--detail", "info_version=2026-1")
	if err != nil {
		return err
	}
	if a, err = p.request(ctx, q); err != nil {
		return err
	}
	p.scene(a.status == done && len(a.Released) == 2, "the same with consent given", "released on %s: %s", strings.Join(a.Rows, ","), values(a))

	if _, err := p.do(ctx, nurse, nil, "evidence", "withdraw", given, "--case", p.cases["Lotte"], "--reason", "Betrokkene trekt in"); err != nil {
		return err
	}
	if a, err = p.request(ctx, q); err != nil {
		return err
	}
	p.scene(a.status == denied && a.has(disclosure.ReasonConsentWithdrawn), "the same after consent was withdrawn", "denied: %s", a.why())
	return nil
}

func (p *play) grants(ctx context.Context) error {
	source, recipient := party(politieOIN, "P"), party(gemeenteOIN, "ME")
	q := ask{who: director, domain: "ME", about: "Daan", source: source, purpose: "PVA", fields: []string{"POLNUIS.summary"}}
	if _, err := p.grant(ctx, "Daan", source, recipient, "PVA", q.fields,
		"--until", time.Now().Add(1500*time.Millisecond).Format(time.RFC3339Nano)); err != nil {
		return err
	}
	before, err := p.request(ctx, q)
	if err != nil {
		return err
	}
	a := before
	for deadline := time.Now().Add(10 * time.Second); a.status == done && time.Now().Before(deadline); {
		if a, err = p.request(ctx, q); err != nil {
			return err
		}
	}
	p.scene(before.status == done && a.status == denied && a.has(disclosure.ReasonGrantExpired), "a grant that has expired", "released before; now denied: %s", a.why())

	q.purpose = "REGIE"
	id, err := p.grant(ctx, "Daan", source, recipient, "REGIE", q.fields)
	if err != nil {
		return err
	}
	if before, err = p.request(ctx, q); err != nil {
		return err
	}
	if _, err := p.do(ctx, expert, nil, "grant", "revoke", id, "--reason", "Niet meer nodig"); err != nil {
		return err
	}
	if a, err = p.request(ctx, q); err != nil {
		return err
	}
	p.scene(before.status == done && a.status == denied && a.has(disclosure.ReasonGrantRevoked), "a grant that was revoked", "released before; now denied: %s", a.why())
	return nil
}

func (p *play) offline(ctx context.Context) error {
	if err := p.agents["politie"].stop(); err != nil {
		return err
	}
	q := ask{who: officer, domain: "R", about: "Daan", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.count"}, id: uuid.NewString()}
	a, err := p.request(ctx, q)
	if err != nil {
		return err
	}
	if err := p.startAgent(ctx, "politie"); err != nil {
		return err
	}
	again, err := p.request(ctx, q)
	p.scene(a.status == unreachable && a.has(disclosure.ReasonSourceOffline) && again.status == done, "a source that is offline",
		"%s; the same request once it is back: released %d", a.why(), len(again.Released))
	return err
}

func (p *play) retried(ctx context.Context) error {
	q := ask{who: officer, domain: "R", about: "Femke", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.count"}, id: uuid.NewString()}
	first, err := p.request(ctx, q)
	if err != nil {
		return err
	}
	answered, err := p.answered("politie")
	if err != nil {
		return err
	}
	second, err := p.request(ctx, q)
	if err != nil {
		return err
	}
	still, err := p.answered("politie")
	if err != nil {
		return err
	}
	same := slices.Equal(first.Receipts, second.Receipts) && len(first.Receipts) == 2
	p.scene(first.status == done && second.status == done && same && still == answered, "a request that is repeated",
		"the same receipts, and the source was not asked again")
	q.fields = []string{"POLNUIS.kind"}
	other, err := p.request(ctx, q)
	p.scene(other.status != done && other.has(disclosure.ReasonRequestIDReused), "another request under the same id", "refused: %s", other.why())
	return err
}

// answered counts what an agent has answered, by its log.
func (p *play) answered(key string) (int, error) {
	log, err := os.ReadFile(p.agents[key].log)
	return strings.Count(string(log), "msg=answered"), err
}

func (p *play) receipt(ctx context.Context) error {
	a, err := p.request(ctx, ask{
		who: officer, domain: "R", about: "Femke", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.count"},
	})
	if err != nil {
		return err
	}
	if len(a.Receipts) != 2 {
		p.scene(false, "a receipt verified offline", "no receipts: %s", a.why())
		return nil
	}
	file := a.Receipts[1]
	// An empty folder and no configuration: the receipt and the ledger's key are all that is needed.
	empty, err := os.MkdirTemp("", "sluis-offline-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(empty) }()
	verify := func(path string) (result, error) {
		return command(ctx, p.agentBin(), nil, "receipt", "verify", path, "--ledger-key", p.vkey, "--config", empty+"/none.yaml")
	}
	good, err := verify(file)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	forged := empty + "/forged.tlog-proof"
	data[len(data)/2] ^= 1
	if err := os.WriteFile(forged, data, 0o600); err != nil {
		return err
	}
	bad, err := verify(forged)
	p.scene(good.status == done && bad.status == notVerified, "a receipt verified offline", "verified with the ledger's key alone; with one bit changed: status %d", bad.status)
	return errors.Join(err)
}
