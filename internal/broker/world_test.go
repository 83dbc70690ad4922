package broker_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"

	"sluis/internal/broker"
	"sluis/internal/casefile"
	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

const (
	processor    disclosure.OIN = "00000001009999999000" // runs the broker
	municipality disclosure.OIN = "00000001001234567000"
	police       disclosure.OIN = "00000001007654321000"
	care         disclosure.OIN = "00000001005555555000"
	probation    disclosure.OIN = "00000001003333333000"

	origin = "sluis.test/ledger"
)

func process() disclosure.Party   { return disclosure.Party{OIN: municipality, Domain: "ME"} }
func benefits() disclosure.Party  { return disclosure.Party{OIN: municipality, Domain: "MW"} }
func constable() disclosure.Party { return disclosure.Party{OIN: police, Domain: "P"} }
func nurse() disclosure.Party     { return disclosure.Party{OIN: care, Domain: "CG"} }
func officer() disclosure.Party   { return disclosure.Party{OIN: probation, Domain: "R"} }

// person makes a caller: somebody of an organisation in these hats.
func person(name string, role disclosure.Role, hats ...disclosure.Party) disclosure.Caller {
	c := disclosure.Caller{
		Organisation: hats[0].OIN, Person: disclosure.PersonRef(string(hats[0].OIN) + "/" + name), Roles: []disclosure.Role{role},
	}
	for _, hat := range hats {
		c.Domains = append(c.Domains, hat.Domain)
	}
	return c
}

// The people of the tests.
func expert() disclosure.Caller { return person("expert", disclosure.RolePGAExpert, process()) }

func policeman() disclosure.Caller {
	return person("policeman", disclosure.RoleProfessional, constable())
}

func caregiver() disclosure.Caller { return person("caregiver", disclosure.RoleProfessional, nurse()) }

func probator() disclosure.Caller { return person("probator", disclosure.RoleProfessional, officer()) }

func policeFG() disclosure.Caller { return person("fg", disclosure.RolePrivacyOfficer, constable()) }
func careFG() disclosure.Caller   { return person("fg", disclosure.RolePrivacyOfficer, nurse()) }
func everybody() []disclosure.Party {
	return []disclosure.Party{process(), benefits(), constable(), nurse(), officer()}
}

// clock is the time of ledger, broker and sources. It stands still unless moved.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// faulty is a store whose commits can be made to fail.
type faulty struct {
	ledger.Store
	mu     sync.Mutex
	before func(ledger.Batch) error // an error: nothing is committed
	after  func(ledger.Batch) error // an error although it was committed
}

func (f *faulty) breakWith(before, after func(ledger.Batch) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faulty) Commit(ctx context.Context, b ledger.Batch) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(b); err != nil {
			return err
		}
	}
	if err := f.Store.Commit(ctx, b); err != nil || after == nil {
		return err
	}
	return after(b)
}

// organisation is what an organisation of the tests holds.
type organisation struct {
	signing   ed25519.PrivateKey
	envelope  *envelope.PrivateKey
	tls       crypto.Signer
	chain     [][]byte
	statement []byte
}

// world is a broker on a real ledger, with organisations, a scripted policy and scripted sources.
type world struct {
	t        testing.TB
	dir      string
	clock    *clock
	store    *faulty
	index    ledger.Index
	keyring  *keys.Keyring
	signer   note.Signer
	verifier note.Verifier
	permits  ed25519.PrivateKey
	roots    *x509.CertPool
	orgs     map[disclosure.OIN]*organisation
	policy   *rules
	sources  *sources
	budget   int
	erased   bool                 // a key was destroyed without the entry that deletes what it sealed: the ledger is not whole
	config   func(*broker.Config) // of the next start; may be nil

	log    *ledger.Log
	broker *broker.Broker
	stop   func()       // stops the broker, then the ledger
	kill   func() error // stops the ledger under the broker
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// newWorld starts a broker with everybody in its directory and their key statements published. When the test ends, the whole ledger is
// verified and replayed.
func newWorld(t testing.TB, config ...func(*broker.Config)) *world {
	t.Helper()
	w := &world{
		t: t, dir: t.TempDir(), clock: &clock{at: time.Now().UTC().Truncate(time.Millisecond)},
		orgs: map[disclosure.OIN]*organisation{}, budget: 100,
	}
	for _, change := range config {
		w.config = change
	}
	w.policy = &rules{digest: policyDigest("1")}
	w.sources = &sources{w: w}
	store := value[*boltstore.Store](t)(boltstore.Open(filepath.Join(w.dir, "ledger.db"), boltstore.Config{InitialMmap: 1 << 20}))
	w.store = &faulty{Store: store}
	w.index = value[*boltstore.Index](t)(boltstore.OpenIndex(filepath.Join(w.dir, "index.db"), boltstore.Config{InitialMmap: 1 << 20}))
	kek := value[keys.KEK](t)(keys.CreateKEK(filepath.Join(w.dir, "kek.pem")))
	w.keyring = value[*keys.Keyring](t)(keys.OpenKeyring(keys.KeyringConfig{Path: filepath.Join(w.dir, "keyring.db"), KEK: kek}))
	verifierKey := value[string](t)(keys.CreateNoteKey(filepath.Join(w.dir, "note.key"), origin))
	w.signer, _, _ = noteSigner(t, filepath.Join(w.dir, "note.key"))
	w.verifier = value[note.Verifier](t)(note.NewVerifier(verifierKey))
	_, permits, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.permits = permits
	t.Cleanup(func() {
		w.stop()
		w.verify()
		must(t, errors.Join(w.store.Close(), w.index.Close(), w.keyring.Close()))
	})
	w.start()
	w.enrol()
	return w
}

func noteSigner(t testing.TB, path string) (note.Signer, string, error) {
	t.Helper()
	signer, key, err := keys.LoadNoteSigner(path)
	must(t, err)
	return signer, key, err
}

func policyDigest(name string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name))) }

// enrol puts everybody in the directory and publishes their key statements.
func (w *world) enrol() {
	w.t.Helper()
	authority := value[*devca.Authority](w.t)(devca.NewInMemory())
	w.roots = authority.Pool()
	domains := map[disclosure.OIN][]disclosure.Domain{}
	for _, p := range everybody() {
		domains[p.OIN] = append(domains[p.OIN], p.Domain)
	}
	for oin, hats := range domains {
		_, err := w.broker.AddPartner(w.t.Context(), disclosure.Partner{OIN: oin, Name: "Organisation " + string(oin), Domains: hats})
		must(w.t, err)
		cert, err := authority.Certificate(devca.Leaf{OIN: oin, Name: "Organisation"})
		must(w.t, err)
		_, signing, err := ed25519.GenerateKey(rand.Reader)
		must(w.t, err)
		key, ok := cert.PrivateKey.(crypto.Signer)
		if !ok {
			w.t.Fatal("certificate without a signer")
		}
		o := &organisation{
			signing: signing, tls: key, chain: cert.Certificate,
			envelope: value[*envelope.PrivateKey](w.t)(envelope.GenerateKey(envelope.SuiteX25519)),
		}
		w.orgs[oin] = o
		o.statement = w.state(oin, 60*24*time.Hour)
		receipt, err := w.broker.PublishStatement(w.t.Context(), disclosure.Caller{Organisation: oin}, o.statement)
		if err != nil || receipt == nil {
			w.t.Fatalf("publish statement of %s: %v, %v", oin, receipt, err)
		}
	}
}

// state signs a key statement of an organisation that is valid for that long.
func (w *world) state(oin disclosure.OIN, term time.Duration) []byte {
	w.t.Helper()
	o := w.orgs[oin]
	public, ok := o.signing.Public().(ed25519.PublicKey)
	if !ok {
		w.t.Fatal("not an Ed25519 key")
	}
	signed, err := envelope.SignStatement(envelope.Statement{
		Organisation: string(oin), EnvelopeKey: o.envelope.PublicKey(), SigningKey: public,
		NotBefore: w.clock.Now(), NotAfter: w.clock.Now().Add(term),
	}, o.tls, o.chain)
	must(w.t, err)
	return signed
}

// start opens the ledger and runs ledger and broker.
func (w *world) start() {
	w.t.Helper()
	l, err := ledger.Open(w.t.Context(), w.ledgerConfig())
	must(w.t, err)
	cfg := broker.Config{
		OIN: processor, Ledger: l, Keyring: w.keyring, Policy: w.policy, Relay: w.sources,
		PolicyDigest: w.policy.digest, PolicyRevision: "test", PermitKey: w.permits,
		Keys: disclosure.BrokerKeys{
			OIN: processor, Origin: origin, LedgerKey: "verifier", PermitKey: []byte("permit"), PseudonymKey: []byte("pseudonym"),
			PseudonymVersion: 1, PseudonymBudget: w.budget,
		},
		Evaluate: evaluate,
		VerifyStatement: func(signed []byte, now time.Time) (broker.Statement, error) {
			s, err := envelope.VerifyStatement(signed, envelope.Trust{Roots: w.roots}, now)
			return broker.Statement{Organisation: disclosure.OIN(s.Organisation), SigningKey: s.SigningKey, NotAfter: s.NotAfter}, err
		},
		Now: w.clock.Now,
	}
	if w.config != nil {
		w.config(&cfg)
	}
	b := broker.New(cfg)
	logCtx, stopLog := context.WithCancel(context.Background())
	brokerCtx, stopBroker := context.WithCancel(context.Background())
	logEnd, brokerEnd := make(chan error, 1), make(chan error, 1)
	go func() { logEnd <- l.Run(logCtx) }()
	go func() { brokerEnd <- b.Run(brokerCtx) }()
	var once sync.Once
	var logErr error
	w.kill = func() error {
		once.Do(func() {
			stopLog()
			logErr = <-logEnd
		})
		return logErr
	}
	w.stop = sync.OnceFunc(func() {
		stopBroker()
		if err := <-brokerEnd; err != nil {
			w.t.Error("broker:", err)
		}
		if err := w.kill(); err != nil && !errors.Is(err, ledger.ErrPoisoned) {
			w.t.Error("ledger:", err)
		}
	})
	select {
	case <-b.Ready():
	case err := <-brokerEnd:
		brokerEnd <- err
		w.t.Fatal("broker did not start:", err)
	}
	w.log, w.broker = l, b
}

// restart stops ledger and broker and starts others on the same store.
func (w *world) restart() {
	w.t.Helper()
	w.stop()
	w.start()
}

func (w *world) ledgerConfig() ledger.Config {
	return ledger.Config{
		Store: w.store, Index: w.index, Sealer: w.keyring, Folder: casefile.Folder{},
		Guard: ledger.NewFileGuard(filepath.Join(w.dir, "guard")), Signer: w.signer, Verifier: w.verifier, Now: w.clock.Now,
	}
}

// evaluate stands in for the OPRF, which has tests of its own.
func evaluate(blinded [][]byte) (elements [][]byte, proof []byte, err error) {
	if len(blinded) == 0 {
		return nil, nil, errors.New("no elements")
	}
	for _, element := range blinded {
		elements = append(elements, append([]byte("evaluated "), element...))
	}
	return elements, []byte("proof"), nil
}

// verify verifies the whole ledger and replays it.
func (w *world) verify() {
	w.t.Helper()
	w.store.breakWith(nil, nil)
	if w.erased {
		return
	}
	_, err := ledger.Verify(context.Background(), ledger.VerifyConfig{
		Store: w.store, Index: w.index, Verifier: w.verifier, Sealer: w.keyring, Folder: casefile.Folder{},
		Guard: ledger.NewFileGuard(filepath.Join(w.dir, "guard")),
	})
	if err != nil {
		w.t.Error("verify:", err)
	}
	replayAll(w)
}

// onDisk opens an entry by reading what is committed in the store, past ledger and broker.
func (w *world) onDisk(index uint64) (disclosure.Event, time.Time, error) {
	raw, err := w.store.Record(context.Background(), index)
	if err != nil {
		return disclosure.Event{}, time.Time{}, err
	}
	leaf := raw[:ledger.LeafSize]
	at, commitment, err := ledger.ParseLeaf(leaf)
	if err != nil {
		return disclosure.Event{}, time.Time{}, err
	}
	const checksum = 4
	n := int(raw[ledger.LeafSize])
	keyID, sealed := raw[ledger.LeafSize+1:ledger.LeafSize+1+n], raw[ledger.LeafSize+1+n:len(raw)-checksum]
	plain, err := w.keyring.Open(string(keyID), sealed, commitment[:])
	if err != nil {
		return disclosure.Event{}, time.Time{}, err
	}
	e, err := disclosure.DecodeEvent(plain[ledger.SaltSize:])
	return e, at, err
}

// events reads the whole ledger from disk. Entries whose key was destroyed have no kind.
func (w *world) events() (events []disclosure.Event, times []time.Time) {
	w.t.Helper()
	head, err := w.store.Head(context.Background())
	must(w.t, err)
	for i := range head.Size {
		e, at, err := w.onDisk(i)
		if err != nil && !errors.Is(err, ledger.ErrErased) {
			w.t.Fatalf("entry %d: %v", i, err)
		}
		events, times = append(events, e), append(times, at)
	}
	return events, times
}

// count counts the entries that match.
func (w *world) count(match func(disclosure.Event) bool) int {
	w.t.Helper()
	n := 0
	events, _ := w.events()
	for _, e := range events {
		if match(e) {
			n++
		}
	}
	return n
}

func (w *world) countKind(kind disclosure.Kind) int {
	w.t.Helper()
	return w.count(func(e disclosure.Event) bool { return e.Kind == kind })
}

func newID[T ~string]() T { return T(uuid.NewString()) }

const subject disclosure.Pseudonym = "ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func newCase() disclosure.Case {
	return disclosure.Case{
		ID: newID[disclosure.CaseID](), Reference: "2026-001", Owner: process(), Regime: disclosure.RegimeLPGA, Subject: subject,
		Facts: disclosure.SubjectFacts{BirthMonth: "1990-05", Resident: true, MultiProblem: true},
	}
}

// identity is a sealed identity of the tests.
func identity(id disclosure.CaseID, p disclosure.Party) []byte {
	return []byte("identity sealed to " + string(p.OIN) + " " + string(p.Domain) + " in " + string(id))
}

// openCase opens a case with these participants beside the owner.
func (w *world) openCase(participants ...disclosure.Party) disclosure.CaseID {
	w.t.Helper()
	c := newCase()
	_, _, err := w.broker.OpenCase(w.t.Context(), expert(), c)
	must(w.t, err)
	for _, p := range participants {
		_, _, err := w.broker.AddParticipant(w.t.Context(), expert(), c.ID, p, identity(c.ID, p))
		must(w.t, err)
	}
	return c.ID
}

func motive() disclosure.Motivation {
	return disclosure.Motivation{Aim: "to help", Necessity: "otherwise it cannot be done"}
}

// newGrant makes a grant of ten days from source to recipient.
func (w *world) newGrant(id disclosure.CaseID, source, recipient disclosure.Party, fields ...disclosure.Field) disclosure.Grant {
	return disclosure.Grant{
		ID: newID[disclosure.GrantID](), Case: id, Source: source, Recipient: recipient, Purpose: "CASE_TALK", Fields: fields,
		FirstPhase: "F1", LastPhase: "F6", NotBefore: w.clock.Now(), ExpiresAt: w.clock.Now().Add(10 * 24 * time.Hour), Motive: motive(),
	}
}

// grant grants the policeman to ask the caregiver for these fields.
func (w *world) grant(id disclosure.CaseID, fields ...disclosure.Field) disclosure.Grant {
	w.t.Helper()
	g, _, err := w.broker.CreateGrant(w.t.Context(), expert(), w.newGrant(id, nurse(), constable(), fields...))
	must(w.t, err)
	return g
}

// consent makes evidence of consent in a case.
func (w *world) consent(id disclosure.CaseID) disclosure.Evidence {
	return disclosure.Evidence{
		ID: newID[disclosure.EvidenceID](), Kind: "CONS", Case: id, RecordedFor: nurse(),
		Details:   map[string]string{"giver": "the data subject"},
		ValidFrom: w.clock.Now(), ValidUntil: w.clock.Now().Add(5 * 24 * time.Hour),
	}
}

// talk is what the policeman asks of the caregiver in a case.
func talk(id disclosure.CaseID, fields ...disclosure.Field) disclosure.Query {
	m := motive()
	return disclosure.Query{Domain: "P", Case: id, Source: nurse(), Purpose: "CASE_TALK", Fields: fields, Motive: &m}
}

// danger is what the policeman asks of the caregiver in acute danger, outside a case.
func danger() disclosure.Query {
	return disclosure.Query{Domain: "P", Subject: subject, Source: nurse(), Purpose: "DANGER", Fields: []disclosure.Field{"CONT.phone"}}
}

func bodyDigest(q disclosure.Query) []byte {
	encoded, err := json.Marshal(q)
	if err != nil {
		panic(err)
	}
	digest := sha256.Sum256(encoded)
	return digest[:]
}

func sealedFor(q disclosure.Query) []byte {
	if q.Case != "" {
		return nil
	}
	return []byte("identity sealed to the source")
}

// ask requests a disclosure. It has no need of so much time, but then a test that waits in vain fails instead of hanging.
func (w *world) ask(c disclosure.Caller, id disclosure.RequestID, q disclosure.Query) (disclosure.Disclosure, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	return w.askContext(ctx, c, id, q)
}

func (w *world) askContext(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query,
) (disclosure.Disclosure, error) {
	return w.broker.RequestDisclosure(ctx, c, id, q, sealedFor(q), bodyDigest(q))
}

// wantReason fails the test unless err wraps that reason.
func wantReason(t testing.TB, what string, err error, want disclosure.ReasonCode) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %s", what, err, want)
	}
}

// soak is how long a test goes on that can go on for as long as one likes: SLUIS_SOAK, or a little.
func soak(t testing.TB, least time.Duration) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(os.Getenv("SLUIS_SOAK"))
	if err != nil {
		return least
	}
	return d
}
