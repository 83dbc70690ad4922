package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"sluis/internal/agent"
	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/keys"
	"sluis/internal/rpc"
)

const (
	origin = "bench.example/1"
	// cases is how many cases the callers ask about, in turn.
	cases = 16
)

// world is a broker, a municipality that asks and a police that answers. Broker and police are processes of their own; the municipality's
// agent is this process.
type world struct {
	dir, bin string
	address  string // of the broker
	vkey     string // of its ledger
	broker   *child
	source   *child
	asker    *rpc.Client // a professional of the municipality
	token    string      // of that professional
	clients  []*rpc.Client
	issuers  map[disclosure.OIN]*devca.Issuer
	keeping  *agent.Requester // completes and keeps the receipts of each disclosure, as an agent does
	checking *agent.Requester // stops before that: see unproven
	cases    []disclosure.CaseID
	next     atomic.Uint64
}

func party(oin disclosure.OIN, domain disclosure.Domain) disclosure.Party {
	return disclosure.Party{OIN: oin, Domain: domain}
}

// startWorld makes certificates, keys and files, starts the processes, and opens cases in which the police may answer the municipality.
func startWorld(ctx context.Context, dir, bin string) (_ *world, err error) {
	w := &world{dir: dir, bin: bin, issuers: map[disclosure.OIN]*devca.Issuer{}}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	if err := w.certificates(); err != nil {
		return nil, err
	}
	if err := w.startBroker(ctx); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := w.startSource(); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	if err := w.openCases(ctx); err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	return w, nil
}

func (w *world) stop() {
	for _, c := range w.clients {
		_ = c.Close()
	}
	w.source.stop()
	w.broker.stop()
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

func (w *world) certificates() error {
	authority, err := devca.New(w.path("ca"))
	if err != nil {
		return err
	}
	for _, o := range []struct {
		oin  disclosure.OIN
		name string
		dir  string
	}{
		{brokerOIN, "Sluis (bench)", brokerDir},
		{municipalityOIN, "Gemeente (bench)", municipalityDir},
		{policeOIN, "Politie (bench)", policeDir},
	} {
		if err := authority.Issue(devca.Leaf{OIN: o.oin, Name: o.name, Dir: w.path(o.dir)}); err != nil {
			return err
		}
		if o.oin == brokerOIN {
			continue
		}
		if w.issuers[o.oin], err = devca.CreateIssuer(w.path(o.dir, "issuer"), o.oin, ""); err != nil {
			return err
		}
	}
	return nil
}

// freeAddress returns an address that nobody listens on, and that nobody is likely to take before we do.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (w *world) startBroker(ctx context.Context) error {
	var err error
	if w.address, err = freeAddress(ctx); err != nil {
		return err
	}
	program := filepath.Join(w.bin, "broker")
	out, err := run(ctx, program, "init", "--dir", w.path("broker"), "--oin", string(brokerOIN), "--name", "Sluis (bench)",
		"--origin", origin, "--listen", w.address, "--tls", w.path(brokerDir))
	if err != nil {
		return err
	}
	_, after, found := strings.Cut(out, "ledger key:")
	if w.vkey = strings.TrimSpace(after); !found || strings.ContainsAny(w.vkey, " \n") {
		return errors.New("init printed no ledger key")
	}
	config := w.path("broker", "broker.yaml")
	for _, p := range []struct{ oin, name, domains, dir string }{
		{string(municipalityOIN), "Gemeente (bench)", "ME,MB", municipalityDir},
		{string(policeOIN), "Politie (bench)", "P", policeDir},
	} {
		issuer := w.issuers[disclosure.OIN(p.oin)]
		if _, err := run(ctx, program, "partner", "add", "--config", config, "--oin", p.oin, "--name", p.name, "--domain", p.domains,
			"--issuer", issuer.URL(), "--jwks", w.path(p.dir, "issuer", devca.JWKSFile)); err != nil {
			return err
		}
	}
	if w.broker, err = start(program, "serve", "--config", config); err != nil {
		return err
	}
	client, err := w.client(policeOIN, policeDir, "")
	if err != nil {
		return err
	}
	return w.until(ctx, w.broker, func() error {
		_, err := client.BrokerKeys(ctx)
		return err
	})
}

// until waits until something works, or the process that it waits for has ended.
func (w *world) until(ctx context.Context, c *child, works func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := works()
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("%s ended: %w: %s", c.cmd.Path, c.err, c.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", c.cmd.Path, err, c.log)
		case <-time.After(patience / 600):
		}
	}
}

// client connects as an organisation, with the token of one of its people or with none.
func (w *world) client(oin disclosure.OIN, dir, token string) (*rpc.Client, error) {
	files := tlsFiles(w.dir, dir)
	config, err := identity.ClientTLS(files)
	if err != nil {
		return nil, err
	}
	c, err := rpc.Dial(rpc.ClientConfig{
		Target: w.address, TLS: config, Token: func(context.Context) (string, error) { return token, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("dial as %s: %w", oin, err)
	}
	w.clients = append(w.clients, c)
	return c, nil
}

// person signs someone in.
func (w *world) person(oin disclosure.OIN, name string, role disclosure.Role, domain disclosure.Domain) (string, error) {
	return w.issuers[oin].Token(devca.TokenClaims{
		Subject: name, Roles: []disclosure.Role{role}, Domains: []disclosure.Domain{domain}, Audience: origin, TTL: time.Hour,
	})
}

// sourceConfig is the configuration of the police's agent.
const sourceConfig = `oin: "$oin"
name: Politie (bench)
domains: [P]
broker: {address: "$address", server_name: localhost, oin: "$broker", ledger_key: "$vkey"}
tls: {cert: $tls/cert.pem, key: $tls/key.pem, ca: $tls/ca.pem}
keys: {envelope: envelope.key, signing: signing.key}
state: state
test_bsn: true
sources:
  - domain: P
    name: politie
    driver: sqlite
    path: politie.db
    person: {table: persoon, bsn: bsn}
    categories:
      ID: {table: persoon, key: bsn, fields: {name: achternaam, birth_date: geboortedatum, sex: geslacht}}
      POLNUIS: {table: melding, key: bsn, fields: {date: datum, kind: soort, count: aantal, summary: samenvatting}}
      POLINC: {table: incident, key: bsn, fields: {date: datum, kind: soort, role: rol, summary: samenvatting}}
      SAFE: {table: advies, key: bsn, fields: {advice: advies}}
`

// fields are what the municipality asks: all that the source has.
func fields() []disclosure.Field {
	return []disclosure.Field{
		"ID.name", "ID.birth_date", "ID.sex", "POLNUIS.date", "POLNUIS.kind", "POLNUIS.count", "POLNUIS.summary",
		"POLINC.date", "POLINC.kind", "POLINC.role", "POLINC.summary", "SAFE.advice",
	}
}

func (w *world) startSource() error {
	dir := w.path("police")
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	if _, err := agentKeys(dir); err != nil {
		return err
	}
	if err := fillSource(filepath.Join(dir, "politie.db")); err != nil {
		return err
	}
	text := strings.NewReplacer("$oin", string(policeOIN), "$address", w.address, "$broker", string(brokerOIN), "$vkey", w.vkey,
		"$tls", w.path(policeDir)).Replace(sourceConfig)
	config := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	var err error
	w.source, err = start(filepath.Join(w.bin, "agent"), "serve", "--config", config)
	return err
}

// keyPair are the keys of an agent, beside that of its certificate.
type keyPair struct {
	envelope *envelope.PrivateKey
	signing  keys.SigningKey
}

// agentKeys makes the keys of an agent in a folder.
func agentKeys(dir string) (keyPair, error) {
	key, err := envelope.GenerateKey(envelope.SuiteHybrid)
	if err != nil {
		return keyPair{}, err
	}
	secret, err := key.Encode()
	if err != nil {
		return keyPair{}, err
	}
	if err := keys.CreateSecret(filepath.Join(dir, "envelope.key"), "SLUIS ENVELOPE KEY", secret); err != nil {
		return keyPair{}, err
	}
	signing, err := keys.CreateSigningKey(filepath.Join(dir, "signing.key"))
	return keyPair{key, signing}, err
}

// unproven is the part of the broker that proves, as long as there is no checkpoint yet: an agent then stops after it has checked
// everything else, which is where a disclosure can be shown to who asked.
type unproven struct {
	*rpc.Client
	on atomic.Bool
}

var errUnproven = errors.New("no checkpoint yet")

// InclusionProof implements agent.Prover.
func (u *unproven) InclusionProof(ctx context.Context, index uint64) ([][]byte, []byte, error) {
	if u.on.Load() {
		return nil, nil, errUnproven
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // the agent's own patience is none
	defer cancel()
	return u.Client.InclusionProof(ctx, index)
}

// municipality makes the municipality's agent. With impatience it waits for no proof.
func (w *world) municipality(dir string, own keyPair, client *rpc.Client, prover agent.Prover, impatient bool) (*agent.Agent, error) {
	files := tlsFiles(w.dir, municipalityDir)
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return nil, err
	}
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("key of the certificate cannot sign")
	}
	roots, err := roots(w.dir)
	if err != nil {
		return nil, err
	}
	var patience time.Duration
	if impatient {
		patience = time.Nanosecond
	}
	return agent.New(agent.Config{
		OIN: municipalityOIN, Domains: []disclosure.Domain{"ME"}, TLSKey: key, Chain: certificate.Certificate,
		EnvelopeKey: own.envelope, SigningKey: own.signing, Trust: envelope.Trust{Roots: roots},
		BrokerOIN: brokerOIN, LedgerKey: w.vkey, Directory: client, Evaluator: client, Prover: prover,
		MayHoldBSN: func(disclosure.Domain) bool { return true }, TestBSN: true,
		State: dir, Proof: patience, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

// openCases makes the municipality's agents and opens the cases.
func (w *world) openCases(ctx context.Context) error {
	expertToken, err := w.person(municipalityOIN, "e.expert", disclosure.RolePGAExpert, "ME")
	if err != nil {
		return err
	}
	if w.token, err = w.person(municipalityOIN, "p.vrager", disclosure.RoleProfessional, "ME"); err != nil {
		return err
	}
	policeToken, err := w.person(policeOIN, "w.agent", disclosure.RoleProfessional, "P")
	if err != nil {
		return err
	}
	expert, err := w.client(municipalityOIN, municipalityDir, expertToken)
	if err != nil {
		return err
	}
	police, err := w.client(policeOIN, policeDir, policeToken)
	if err != nil {
		return err
	}
	if w.asker, err = w.client(municipalityOIN, municipalityDir, w.token); err != nil {
		return err
	}
	dir := w.path("municipality")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	own, err := agentKeys(dir)
	if err != nil {
		return err
	}
	managing, err := w.municipality(filepath.Join(dir, "keeping"), own, w.asker, w.asker, false)
	if err != nil {
		return err
	}
	if err := managing.EnsureStatement(ctx); err != nil {
		return err
	}
	w.keeping = agent.NewRequester(managing, w.asker)
	prover := &unproven{Client: w.asker}
	impatient, err := w.municipality(filepath.Join(dir, "checking"), own, w.asker, prover, true)
	if err != nil {
		return err
	}
	if err := impatient.TrustBroker(ctx); err != nil {
		return err
	}
	prover.on.Store(true)
	w.checking = agent.NewRequester(impatient, w.asker)

	// The police's keys are there once its agent has published them.
	if err := w.until(ctx, w.source, func() error {
		organisation, err := w.asker.Organisation(ctx, policeOIN)
		if err == nil && len(organisation.Statement) == 0 {
			err = errors.New("no keys published")
		}
		return err
	}); err != nil {
		return err
	}
	covenant := evidence("CONV", "ME", map[string]string{"reference": "bench"})
	covenant.Recipients = []disclosure.Party{party(municipalityOIN, "ME")}
	if _, _, err := expert.RecordEvidence(ctx, covenant); err != nil {
		return fmt.Errorf("covenant: %w", err)
	}
	for i := range cases {
		id, err := openCase(ctx, agent.NewCaseManager(managing, expert), expert, police, i)
		if err != nil {
			return err
		}
		w.cases = append(w.cases, id)
	}
	return w.until(ctx, w.source, func() error { // connected, and able to answer
		result, err := w.keeping.Request(ctx, w.question())
		if err == nil && result.Outcome != disclosure.Disclosed {
			err = fmt.Errorf("%s %v: %s %s", result.Decision.Effect, result.Decision.Reasons, result.Outcome, string(result.Reason))
		}
		return err
	})
}

func evidence(kind disclosure.Condition, domain disclosure.Domain, details map[string]string) disclosure.Evidence {
	now := time.Now().UTC().Truncate(time.Second)
	return disclosure.Evidence{
		ID: disclosure.EvidenceID(uuid.NewString()), Kind: kind, Details: details, RecordedFor: disclosure.Party{Domain: domain},
		ValidFrom: now.Add(-time.Hour), ValidUntil: now.AddDate(0, 0, 30),
	}
}

// openCase opens a case with everything in it that row LB-011 asks for.
func openCase(
	ctx context.Context, manager *agent.CaseManager, expert, police *rpc.Client, n int,
) (disclosure.CaseID, error) {
	person := envelope.Identity{BSN: bsn(n), FamilyName: "Verzonnen", BirthDate: "2006-05-04", Address: "Nergensstraat 1, Hilversum"}
	opened, _, err := manager.OpenCase(ctx, agent.NewCase{
		Domain: "ME", Reference: fmt.Sprintf("BENCH-%d", n), Regime: disclosure.RegimeLPGA,
		Facts: disclosure.SubjectFacts{Resident: true, MultiProblem: true}, Person: person,
	})
	if err != nil {
		return "", err
	}
	source, recipient := party(policeOIN, "P"), party(municipalityOIN, "ME")
	if _, _, err := manager.AddParticipant(ctx, opened.ID, source, person); err != nil {
		return "", err
	}
	if _, _, err := expert.ChangePhase(ctx, opened.ID, "F1", "F3"); err != nil {
		return "", err
	}
	now := time.Now().UTC().Truncate(time.Second)
	if _, _, err := expert.CreateGrant(ctx, disclosure.Grant{
		ID: disclosure.GrantID(uuid.NewString()), Case: opened.ID, Source: source, Recipient: recipient, Purpose: "CASUSOVERLEG",
		Fields: fields(), FirstPhase: "F3", LastPhase: "F6", NotBefore: now.Add(-time.Hour), ExpiresAt: now.AddDate(0, 0, 30),
		Motive: disclosure.Motivation{Aim: "bench", Necessity: "bench"},
	}); err != nil {
		return "", fmt.Errorf("grant: %w", err)
	}
	hit := evidence("HIT2", "ME", map[string]string{"domains": "P,ME,MW"})
	informed := evidence("INFO", "ME", map[string]string{"status": "INFORMED"})
	agreed := evidence("W20", "P", map[string]string{"authority": "MB", "public_interest": "x", "cooperation": "x", "aim": "x"})
	agreed.Recipients = []disclosure.Party{recipient}
	agreed.Categories = []disclosure.Category{"ID", "POLNUIS", "POLINC", "SAFE"}
	for _, e := range []struct {
		by       *rpc.Client
		evidence disclosure.Evidence
	}{{expert, hit}, {expert, informed}, {police, agreed}} {
		e.evidence.Case = opened.ID
		if _, _, err := e.by.RecordEvidence(ctx, e.evidence); err != nil {
			return "", fmt.Errorf("evidence %s: %w", e.evidence.Kind, err)
		}
	}
	return opened.ID, nil
}

// question is what a caller asks: the next case, a new request each time.
func (w *world) question() agent.Ask {
	return agent.Ask{
		ID: disclosure.RequestID(uuid.NewString()), Domain: "ME", Case: w.cases[w.next.Add(1)%cases], Source: party(policeOIN, "P"),
		Purpose: "CASUSOVERLEG", Fields: fields(), Motive: motive(),
	}
}

func motive() *disclosure.Motivation {
	return &disclosure.Motivation{Aim: "Een plan voor het casusoverleg (fictief).", Necessity: "Anders is het plan niet veilig (fictief)."}
}

// ask is one whole disclosure, up to the answer opened and everything checked but the proofs.
func (w *world) ask(ctx context.Context) error {
	_, err := w.checking.Request(ctx, w.question())
	switch {
	case errors.Is(err, agent.ErrNotProven):
		return nil
	case err == nil:
		return errors.New("no answer: denied or refused")
	}
	return err
}

// askAndKeep is one whole disclosure with both receipts proven, verified and saved.
func (w *world) askAndKeep(ctx context.Context) error {
	result, err := w.keeping.Request(ctx, w.question())
	if err == nil && len(result.Records) == 0 {
		return errors.New("no answer: denied or refused")
	}
	return err
}
