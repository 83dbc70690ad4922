package agent_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/agent"
	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/pseudonym"
	"sluis/internal/receipt"
)

const (
	brokerOIN       = disclosure.OIN("00000001000000000001")
	municipalityOIN = disclosure.OIN("00000001000000000002")
	policeOIN       = disclosure.OIN("00000001000000000003")
	probationOIN    = disclosure.OIN("00000001000000000004")

	origin = "sluis.example/test"

	caseA  = disclosure.CaseID("0f9a7d50-2f0f-4a5e-9f0a-000000000001")
	caseB  = disclosure.CaseID("0f9a7d50-2f0f-4a5e-9f0a-000000000002")
	policy = "sha256:00000000000000000000000000000000000000000000000000000000000000aa"

	nuisance = disclosure.Field("POLNUIS.count")
	lastSeen = disclosure.Field("POLNUIS.last")
	safety   = disclosure.Field("SAFE.advice")
)

func municipality() disclosure.Party { return disclosure.Party{OIN: municipalityOIN, Domain: "ME"} }
func police() disclosure.Party       { return disclosure.Party{OIN: policeOIN, Domain: "P"} }
func probation() disclosure.Party    { return disclosure.Party{OIN: probationOIN, Domain: "R"} }

func mayHoldBSN(d disclosure.Domain) bool { return d == "ME" || d == "P" }

func daan() envelope.Identity {
	return envelope.Identity{BSN: "999961007", FamilyName: "Voorbeeld", GivenNames: "Daan", BirthDate: "2007-03-05"}
}

func sanne() envelope.Identity {
	return envelope.Identity{BSN: "999961500", FamilyName: "Kunst", GivenNames: "Sanne", BirthDate: "2004-06-07"}
}

// world is a broker and agents in one process, with real keys, proofs and seals; only the network and the policy are not
// there.
type world struct {
	authority *devca.Authority
	broker    *fakeBroker
	log       *bytes.Buffer                         // of all agents
	signing   map[disclosure.OIN]ed25519.PrivateKey // of manifests
	clock     *clock
}

type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	authority, err := devca.NewInMemory()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{authority: authority, log: new(bytes.Buffer), signing: map[disclosure.OIN]ed25519.PrivateKey{}, clock: &clock{now: time.Now()}}
	w.broker = newFakeBroker(t, w.clock)
	w.broker.roots = authority.Pool()
	return w
}

// organisation makes an agent and publishes its keys.
func (w *world) organisation(t *testing.T, p disclosure.Party, edit ...func(*agent.Config)) *agent.Agent {
	t.Helper()
	certificate, err := w.authority.Certificate(devca.Leaf{OIN: p.OIN, Name: "Organisatie " + string(p.Domain)})
	if err != nil {
		t.Fatal(err)
	}
	envelopeKey, err := envelope.GenerateKey(envelope.SuiteHybrid)
	if err != nil {
		t.Fatal(err)
	}
	_, signingKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tlsKey, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("key of the certificate cannot sign")
	}
	cfg := agent.Config{
		OIN: p.OIN, Domains: []disclosure.Domain{p.Domain},
		TLSKey: tlsKey, Chain: certificate.Certificate, EnvelopeKey: envelopeKey, SigningKey: signingKey,
		Trust: envelope.Trust{Roots: w.authority.Pool()}, BrokerOIN: brokerOIN, LedgerKey: w.broker.ledgerKey,
		Directory: w.broker, Evaluator: w.broker, Prover: w.broker,
		MayHoldBSN: mayHoldBSN, TestBSN: true, State: t.TempDir(), Proof: 50 * time.Millisecond, Now: w.clock.Now,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	w.signing[p.OIN] = signingKey
	for _, e := range edit {
		e(&cfg)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EnsureStatement(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// source makes the answering side of an agent and connects it.
func (w *world) source(t *testing.T, a *agent.Agent, p disclosure.Party, state string, c agent.Connector, rules ...agent.HouseRule) *agent.Source {
	t.Helper()
	seen, err := agent.OpenSeenPermits(state, w.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := seen.Close(); err != nil {
			t.Error(err)
		}
	})
	s := agent.NewSource(a, agent.SourceConfig{
		Connectors: map[disclosure.Domain]agent.Connector{p.Domain: c}, Rules: rules, Seen: seen,
	})
	w.broker.sources[p] = s.Answer
	return s
}

// register is a connector over persons in memory, found by BSN or else by name.
type register struct {
	persons map[string]map[disclosure.Field]string
	extra   map[disclosure.Field]string // given whatever is asked
	reads   int
	err     error
}

func policeRegister() *register {
	return &register{persons: map[string]map[disclosure.Field]string{
		"999961007": {nuisance: "3", lastSeen: "2026-10-01", safety: "met twee personen"},
		"999961500": {nuisance: "0", lastSeen: "2020-01-01"},
		"Voorbeeld": {nuisance: "3"},
	}}
}

func (r *register) Read(
	_ context.Context, person envelope.Identity, fields []disclosure.Field,
) ([]receipt.Record, []disclosure.Withheld, error) {
	r.reads++
	if r.err != nil {
		return nil, nil, r.err
	}
	key := person.BSN
	if key == "" {
		key = person.FamilyName
	}
	known, ok := r.persons[key]
	if !ok {
		return nil, nil, fmt.Errorf("register: %w", disclosure.ReasonPersonNotFound)
	}
	byCategory := map[disclosure.Category]map[string]string{}
	add := func(f disclosure.Field, value string) {
		if byCategory[f.Category()] == nil {
			byCategory[f.Category()] = map[string]string{}
		}
		byCategory[f.Category()][f.Name()] = value
	}
	var withheld []disclosure.Withheld
	for _, f := range fields {
		if value, ok := known[f]; ok {
			add(f, value)
			continue
		}
		withheld = append(withheld, disclosure.Withheld{Field: f, Reason: disclosure.Reason{Code: disclosure.ReasonFieldNotAvailable}})
	}
	for f, value := range r.extra {
		add(f, value)
	}
	var records []receipt.Record
	for category, values := range byCategory {
		records = append(records, receipt.Record{Category: category, Values: values})
	}
	return records, withheld, nil
}

// fakeBroker keeps a real ledger in memory and decides what its test tells it to.
type fakeBroker struct {
	clock     *clock
	signer    note.Signer
	ledgerKey string
	roots     *x509.CertPool
	permitKey ed25519.PrivateKey
	oprf      *pseudonym.Server
	sources   map[disclosure.Party]func(context.Context, disclosure.Question) (disclosure.Reply, error)

	mu            sync.Mutex // guards all below
	hashes        []tlog.Hash
	entries       []disclosure.Receipt
	covered       int64 // size of the latest checkpoint
	statements    map[disclosure.OIN][]byte
	cases         map[disclosure.CaseID]disclosure.Case
	sealed        map[disclosure.CaseID]map[disclosure.Party][]byte
	answered      map[disclosure.RequestID]disclosure.Disclosure
	lastSealed    []byte // identity of the last request outside a case
	lastQuery     disclosure.Query
	keysAt        uint64
	evaluations   int
	consistencies int // proofs asked for
	neverCovers   bool
	deny          disclosure.ReasonCode
	lastQuestion  disclosure.Question
	forgeDecision func(*disclosure.DecisionMade)
	forgePermit   func(*receipt.Permit)
	forgeQuestion func(*disclosure.Question)
	forgeReply    func(*disclosure.Reply)
	forgeOutcome  func(*disclosure.OutcomeRecorded)
	forgeResult   func(*disclosure.Disclosure)
	forgeKeys     func(*disclosure.BrokerKeys)
}

func newFakeBroker(t *testing.T, c *clock) *fakeBroker {
	t.Helper()
	signerKey, ledgerKey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		t.Fatal(err)
	}
	_, permitKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	oprfKey, err := pseudonym.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	oprf, err := pseudonym.NewServer(oprfKey, 1)
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{
		clock: c, signer: signer, ledgerKey: ledgerKey, permitKey: permitKey, oprf: oprf,
		sources:    map[disclosure.Party]func(context.Context, disclosure.Question) (disclosure.Reply, error){},
		statements: map[disclosure.OIN][]byte{},
		cases:      map[disclosure.CaseID]disclosure.Case{},
		sealed:     map[disclosure.CaseID]map[disclosure.Party][]byte{},
		answered:   map[disclosure.RequestID]disclosure.Disclosure{},
	}
	b.publishKeys(t)
	return b
}

func (b *fakeBroker) publishKeys(t *testing.T) {
	t.Helper()
	public, ok := b.permitKey.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("permit key")
	}
	keys := disclosure.BrokerKeys{
		OIN: brokerOIN, Origin: origin, LedgerKey: b.ledgerKey, PermitKey: public,
		PseudonymKey: b.oprf.PublicKey(), PseudonymVersion: 1, PseudonymBudget: 100,
	}
	if b.forgeKeys != nil {
		b.forgeKeys(&keys)
	}
	b.keysAt = b.append(disclosure.Event{Kind: disclosure.KindBrokerKeys, BrokerKeys: &keys}).Index
}

func (b *fakeBroker) append(e disclosure.Event) disclosure.Receipt {
	payload, err := e.Encode()
	if err != nil {
		panic(err)
	}
	salt := make([]byte, 32)
	if _, err := rand.Read(salt); err != nil {
		panic(err)
	}
	at := b.clock.Now().UTC()
	r := disclosure.Receipt{Index: uint64(len(b.entries)), Time: at, Salt: salt, Payload: payload, Leaf: receipt.Leaf(at, salt, payload)}
	stored, err := tlog.StoredHashes(int64(r.Index), r.Leaf, b)
	if err != nil {
		panic(err)
	}
	b.hashes = append(b.hashes, stored...)
	b.entries = append(b.entries, r)
	if !b.neverCovers {
		b.covered = int64(len(b.entries))
	}
	return r
}

// ReadHashes implements tlog.HashReader.
func (b *fakeBroker) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = b.hashes[index]
	}
	return hashes, nil
}

func (b *fakeBroker) checkpoint(size int64) ([]byte, error) {
	root, err := tlog.TreeHash(size, b)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(root[:]))
	return note.Sign(&note.Note{Text: text}, b.signer)
}

func (b *fakeBroker) InclusionProof(_ context.Context, index uint64) ([][]byte, []byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if int64(index) >= b.covered {
		return nil, nil, disclosure.ReasonNotFound
	}
	proof, err := tlog.ProveRecord(b.covered, int64(index), b)
	if err != nil {
		return nil, nil, err
	}
	checkpoint, err := b.checkpoint(b.covered)
	return rawHashes(proof), checkpoint, err
}

func (b *fakeBroker) ConsistencyProof(_ context.Context, older, newer uint64) ([][]byte, []byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.consistencies++
	if newer > 0 {
		proof, err := tlog.ProveTree(int64(newer), int64(older), b)
		return rawHashes(proof), nil, err
	}
	proof, err := tlog.ProveTree(b.covered, int64(older), b)
	if err != nil {
		return nil, nil, err
	}
	checkpoint, err := b.checkpoint(b.covered)
	return rawHashes(proof), checkpoint, err
}

func rawHashes[S ~[]tlog.Hash](hashes S) [][]byte {
	raw := make([][]byte, len(hashes))
	for i, h := range hashes {
		raw[i] = h[:]
	}
	return raw
}

func (b *fakeBroker) BrokerKeys(context.Context) (disclosure.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries[b.keysAt], nil
}

func (b *fakeBroker) Organisation(_ context.Context, oin disclosure.OIN) (disclosure.Organisation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return disclosure.Organisation{Partner: disclosure.Partner{OIN: oin}, Statement: b.statements[oin]}, nil
}

func (b *fakeBroker) PublishStatement(_ context.Context, signed []byte) (*disclosure.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.append(disclosure.Event{
		Kind: disclosure.KindStatementPublished, StatementPublished: &disclosure.StatementPublished{Statement: signed},
	})
	for _, oin := range []disclosure.OIN{municipalityOIN, policeOIN, probationOIN} {
		if bytes.Contains(signed, []byte(`"organisation":"`+string(oin)+`"`)) {
			b.statements[oin] = signed
		}
	}
	return &r, nil
}

func (b *fakeBroker) EvaluatePseudonyms(_ context.Context, blinded [][]byte) (disclosure.Evaluation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.evaluations++
	e, err := b.oprf.Evaluate(blinded)
	return disclosure.Evaluation{Elements: e.Elements, Proof: e.Proof, KeyVersion: 1}, err
}

func (b *fakeBroker) OpenCase(_ context.Context, c disclosure.Case) (disclosure.Case, disclosure.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cases[c.ID] = c
	b.sealed[c.ID] = map[disclosure.Party][]byte{}
	return c, b.append(disclosure.Event{Kind: disclosure.KindCaseOpened, Case: c.ID, CaseOpened: &c}), nil
}

func (b *fakeBroker) GetCase(_ context.Context, id disclosure.CaseID) (disclosure.Case, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cases[id], nil
}

func (b *fakeBroker) AddParticipant(
	_ context.Context, id disclosure.CaseID, p disclosure.Party, sealed []byte,
) (disclosure.Case, disclosure.Receipt, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sealed[id][p] = sealed
	return b.cases[id], b.append(disclosure.Event{
		Kind: disclosure.KindParticipantAdded, Case: id,
		ParticipantAdded: &disclosure.ParticipantAdded{Participant: p, SealedIdentity: sealed},
	}), nil
}

func (b *fakeBroker) Explain(
	context.Context, disclosure.RequestID, disclosure.Query,
) (disclosure.Explanation, disclosure.Receipt, error) {
	return disclosure.Explanation{}, disclosure.Receipt{}, nil
}

// requester is who asks: the tests ask as one organisation at a time.
func (b *fakeBroker) as(p disclosure.Party) *asking { return &asking{fakeBroker: b, requester: p} }

type asking struct {
	*fakeBroker
	requester disclosure.Party
}

// RequestDisclosure mediates as the broker does, with every place where it could lie open to the test.
func (b *asking) RequestDisclosure(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query, sealedIdentity []byte,
) (disclosure.Disclosure, error) {
	b.mu.Lock()
	b.lastSealed, b.lastQuery = sealedIdentity, q
	if d, ok := b.answered[id]; ok {
		b.mu.Unlock()
		return d, nil
	}
	request := disclosure.Request{
		ID: id, Requester: b.requester, Source: q.Source, Person: disclosure.PersonRef(b.requester.OIN + "/n.voorbeeld"),
		Case: q.Case, Subject: q.Subject, Purpose: q.Purpose, Fields: q.Fields, Motive: q.Motive,
	}
	sealer := b.requester.OIN
	if q.Case != "" {
		request.Subject = b.cases[q.Case].Subject
		sealer = b.cases[q.Case].Owner.OIN
		sealedIdentity = b.sealed[q.Case][q.Source]
	}
	made := disclosure.DecisionMade{
		Input: disclosure.DecisionInput{Time: b.clock.Now().UTC(), Request: request},
		Decision: disclosure.Decision{
			Effect: disclosure.Permit, Rows: []disclosure.RowID{"LB-001"}, Released: q.Fields, PolicyDigest: policy,
		},
	}
	if b.deny != "" {
		made.Decision = disclosure.Decision{
			Effect: disclosure.Deny, Reasons: []disclosure.Reason{{Code: b.deny}}, PolicyDigest: policy,
		}
	}
	statement := b.statements[b.requester.OIN]
	decision := made.Decision
	if b.forgeDecision != nil {
		b.forgeDecision(&made)
	}
	written := b.append(disclosure.Event{Kind: disclosure.KindDecisionMade, Case: q.Case, DecisionMade: &made})
	d := disclosure.Disclosure{Request: id, Decision: decision, DecisionReceipt: written}
	if b.deny != "" {
		if b.forgeResult != nil {
			b.forgeResult(&d)
		}
		b.mu.Unlock()
		return d, nil
	}
	permit := receipt.Permit{
		Request: id, Case: q.Case, Subject: request.Subject, Requester: b.requester, Person: request.Person, Source: q.Source,
		Purpose: q.Purpose, Fields: decision.Released, Rows: decision.Rows, DecisionIndex: written.Index, PolicyDigest: policy,
		Sealer: sealer, RequesterStatement: receipt.Digest(statement),
		IssuedAt: written.Time, ExpiresAt: written.Time.Add(disclosure.PermitTerm),
	}
	if b.forgePermit != nil {
		b.forgePermit(&permit)
	}
	signed, err := receipt.SignPermit(permit, b.permitKey)
	if err != nil {
		b.mu.Unlock()
		return disclosure.Disclosure{}, err
	}
	question := disclosure.Question{Permit: signed, SealedIdentity: sealedIdentity, RequesterStatement: statement}
	if b.forgeQuestion != nil {
		b.forgeQuestion(&question)
	}
	b.lastQuestion = question
	answer := b.sources[q.Source]
	b.mu.Unlock()
	reply, err := answer(ctx, question)
	if err != nil {
		return disclosure.Disclosure{}, fmt.Errorf("%w: %w", disclosure.ReasonSourceFailed, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.forgeReply != nil {
		b.forgeReply(&reply)
	}
	d.Permit, d.Manifest, d.SourceStatement = signed, reply.Manifest, b.statements[q.Source.OIN]
	outcome := disclosure.OutcomeRecorded{
		Request: id, Requester: b.requester, Source: q.Source, DecisionIndex: written.Index, Outcome: disclosure.Disclosed,
		PermitDigest: receipt.Digest(signed.Payload), Manifest: reply.Manifest.Payload,
		ManifestSignature: reply.Manifest.Signature,
	}
	d.Answer = reply.Answer
	if len(reply.Answer) == 0 {
		outcome.Outcome, outcome.Reason = disclosure.Refused, refusalIn(reply.Manifest.Payload)
	}
	d.Outcome, d.OutcomeReason = outcome.Outcome, outcome.Reason
	if b.forgeOutcome != nil {
		b.forgeOutcome(&outcome)
	}
	recorded := b.append(disclosure.Event{Kind: disclosure.KindOutcomeRecorded, Case: q.Case, OutcomeRecorded: &outcome})
	d.OutcomeReceipt = &recorded
	if b.forgeResult != nil {
		b.forgeResult(&d)
	}
	b.answered[id] = d
	return d, nil
}

func refusalIn(manifest []byte) disclosure.ReasonCode {
	_, rest, _ := bytes.Cut(manifest, []byte(`"refusal":"`))
	code, _, _ := bytes.Cut(rest, []byte(`"`))
	return disclosure.ReasonCode(code)
}

func sum(b []byte) string { d := sha256.Sum256(b); return string(d[:]) }

func values(records []receipt.Record) map[disclosure.Field]string {
	all := map[disclosure.Field]string{}
	for _, r := range records {
		for name, value := range r.Values {
			all[disclosure.Field(string(r.Category)+"."+name)] = value
		}
	}
	return all
}

func sorted(fields []disclosure.Field) []disclosure.Field {
	fields = slices.Clone(fields)
	slices.Sort(fields)
	return fields
}
