package rpc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/identity"
	"sluis/internal/relay"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

const (
	city     = disclosure.OIN("00000001000000000001")
	police   = disclosure.OIN("00000001000000000002")
	stranger = disclosure.OIN("00000001000000000009") // has a certificate, is not in the directory
	broker   = disclosure.OIN("00000001000000000100")

	audience = "sluis"
	patience = 10 * time.Second // far longer than anything here takes
)

func everyRole() []disclosure.Role {
	return []disclosure.Role{
		disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional, disclosure.RolePrivacyOfficer,
		disclosure.RoleOperator,
	}
}

// world is a server over mutual TLS on the loopback, with a broker that only notes what it is called with.
type world struct {
	t        testing.TB
	broker   *fakeBroker
	relay    *relay.Relay
	late     chan disclosure.Party
	address  string
	ca       *devca.Authority
	issuers  map[disclosure.OIN]*devca.Issuer
	log      *lockedBuffer
	stop     context.CancelFunc
	stopped  chan error // what Serve returned
	healthMu sync.Mutex
	sick     error // guarded by healthMu
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func newWorld(t testing.TB, change ...func(*rpc.ServerConfig)) *world {
	t.Helper()
	ca, err := devca.NewInMemory()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, ca: ca, broker: newFakeBroker(), late: make(chan disclosure.Party, 100), log: &lockedBuffer{},
		issuers: make(map[disclosure.OIN]*devca.Issuer), stopped: make(chan error, 1),
	}
	w.relay = relay.New(relay.Config{Late: func(source disclosure.Party, _ disclosure.Question) { w.late <- source }})
	cfg := rpc.ServerConfig{
		TLS:    w.serverTLS(),
		Broker: w.broker,
		Tokens: w.verifier(),
		Agents: w.relay,
		Healthy: func() error {
			w.healthMu.Lock()
			defer w.healthMu.Unlock()
			return w.sick
		},
		Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	server, err := rpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	ended := make(chan struct{})
	go func() {
		w.stopped <- server.Serve(ctx, listener)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, "end of the server", ended)
	})
	return w
}

func (w *world) certificate(oin disclosure.OIN) tls.Certificate {
	w.t.Helper()
	certificate, err := w.ca.Certificate(devca.Leaf{OIN: oin, Name: "Organisation " + string(oin)})
	if err != nil {
		w.t.Fatal(err)
	}
	return certificate
}

func (w *world) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: w.ca.Pool(),
		Certificates: []tls.Certificate{w.certificate(broker)},
	}
}

func (w *world) clientTLS(oin disclosure.OIN) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: w.ca.Pool(), ServerName: "localhost",
		Certificates: []tls.Certificate{w.certificate(oin)},
	}
}

// verifier knows the issuers of all organisations.
func (w *world) verifier() *identity.Verifier {
	w.t.Helper()
	byURL := make(map[string]identity.IssuerKeys)
	for _, oin := range []disclosure.OIN{city, police, stranger} {
		issuer, err := devca.NewIssuer(oin, "")
		if err != nil {
			w.t.Fatal(err)
		}
		encoded, err := issuer.JWKS()
		if err != nil {
			w.t.Fatal(err)
		}
		keys, err := identity.ParseJWKS(encoded)
		if err != nil {
			w.t.Fatal(err)
		}
		w.issuers[oin] = issuer
		byURL[issuer.URL()] = identity.IssuerKeys{OIN: oin, Keys: keys}
	}
	verifier, err := identity.NewVerifier(identity.VerifierConfig{
		Issuers: func(iss string) (identity.IssuerKeys, bool) {
			keys, ok := byURL[iss]
			return keys, ok
		},
		Audience: audience,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return verifier
}

func (w *world) token(oin disclosure.OIN, roles ...disclosure.Role) string {
	w.t.Helper()
	token, err := w.issuers[oin].Token(devca.TokenClaims{
		Subject: "p-1", Roles: roles, Domains: []disclosure.Domain{"ME"}, Audience: audience,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// conn is a bare connection of an organisation.
func (w *world) conn(oin disclosure.OIN) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewTLS(w.clientTLS(oin))))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// as puts a token of the organisation's own issuer in the metadata of calls.
func (w *world) as(oin disclosure.OIN, roles ...disclosure.Role) context.Context {
	return bearing(w.deadline(), w.token(oin, roles...))
}

func bearing(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// client is a client of an organisation whose people have every role.
func (w *world) client(oin disclosure.OIN, change ...func(*rpc.ClientConfig)) *rpc.Client {
	w.t.Helper()
	token := w.token(oin, everyRole()...)
	cfg := rpc.ClientConfig{
		Target: w.address, TLS: w.clientTLS(oin),
		Token:       func(context.Context) (string, error) { return token, nil },
		BackoffBase: time.Millisecond, BackoffMax: 20 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	client, err := rpc.Dial(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

// until asks again and again, over the network, until what is asked is so.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); {
		if time.Since(start) > patience {
			t.Fatalf("%s: never", what)
		}
	}
}

// call is what the fake broker was called with.
type call struct {
	Method string
	Caller disclosure.Caller
	Args   []any
}

// fakeBroker is a Broker that notes calls and gives sound answers.
type fakeBroker struct {
	mu       sync.Mutex // guards the rest
	calls    []call
	err      error
	panicky  any
	held     chan struct{} // calls wait for it to be closed
	entered  chan struct{} // told of each call
	partners map[disclosure.OIN]disclosure.Partner
	ctxs     []context.Context
}

func newFakeBroker() *fakeBroker {
	return &fakeBroker{
		entered: make(chan struct{}, 10_000),
		partners: map[disclosure.OIN]disclosure.Partner{
			city:   {OIN: city, Name: "City", Domains: []disclosure.Domain{"ME", "MW"}},
			police: {OIN: police, Name: "Police", Domains: []disclosure.Domain{"P"}},
		},
	}
}

func (b *fakeBroker) note(ctx context.Context, method string, c disclosure.Caller, args ...any) error {
	b.mu.Lock()
	b.calls = append(b.calls, call{method, c, args})
	b.ctxs = append(b.ctxs, ctx)
	err, panicky, held := b.err, b.panicky, b.held
	b.mu.Unlock()
	b.entered <- struct{}{}
	if panicky != nil {
		panic(panicky)
	}
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (b *fakeBroker) set(change func(*fakeBroker)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// taken returns the calls so far, and forgets them.
func (b *fakeBroker) taken() []call {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	return calls
}

func (b *fakeBroker) Partner(_ context.Context, oin disclosure.OIN) (*disclosure.Partner, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	partner, ok := b.partners[oin]
	if !ok {
		return nil, errors.Join(errors.New("fake"), disclosure.ReasonNotFound)
	}
	return &partner, nil
}

func (b *fakeBroker) RequestDisclosure(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, sealed, digest []byte,
) (disclosure.Disclosure, error) {
	d := fullDisclosure()
	d.Request = id
	return d, b.note(ctx, "RequestDisclosure", c, id, q, sealed, digest)
}

func (b *fakeBroker) GetDisclosure(ctx context.Context, c disclosure.Caller, id disclosure.RequestID) (disclosure.Disclosure, error) {
	d := fullDisclosure()
	d.Request = id
	return d, b.note(ctx, "GetDisclosure", c, id)
}

func (b *fakeBroker) Explain(
	ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, digest []byte,
) (disclosure.Explanation, disclosure.Receipt, error) {
	return fullExplanation(), fullReceipt(3), b.note(ctx, "Explain", c, id, q, digest)
}

func (b *fakeBroker) OpenCase(
	ctx context.Context, c disclosure.Caller, opened disclosure.Case,
) (disclosure.Case, disclosure.Receipt, error) {
	return fullCase(), fullReceipt(4), b.note(ctx, "OpenCase", c, opened)
}

func (b *fakeBroker) GetCase(ctx context.Context, c disclosure.Caller, id disclosure.CaseID) (disclosure.Case, error) {
	return fullCase(), b.note(ctx, "GetCase", c, id)
}

func (b *fakeBroker) ListCases(ctx context.Context, c disclosure.Caller, after string, limit int) ([]disclosure.Case, string, error) {
	return []disclosure.Case{fullCase()}, "cursor", b.note(ctx, "ListCases", c, after, limit)
}

func (b *fakeBroker) AddParticipant(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party, sealed []byte,
) (disclosure.Case, disclosure.Receipt, error) {
	return fullCase(), fullReceipt(5), b.note(ctx, "AddParticipant", c, id, p, sealed)
}

func (b *fakeBroker) RemoveParticipant(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party,
) (disclosure.Case, disclosure.Receipt, error) {
	return fullCase(), fullReceipt(6), b.note(ctx, "RemoveParticipant", c, id, p)
}

func (b *fakeBroker) ChangePhase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, from, to disclosure.Phase,
) (disclosure.Case, disclosure.Receipt, error) {
	return fullCase(), fullReceipt(7), b.note(ctx, "ChangePhase", c, id, from, to)
}

func (b *fakeBroker) CloseCase(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, reason string,
) (disclosure.Case, disclosure.Receipt, error) {
	return fullCase(), fullReceipt(8), b.note(ctx, "CloseCase", c, id, reason)
}

func (b *fakeBroker) CreateGrant(
	ctx context.Context, c disclosure.Caller, g disclosure.Grant,
) (disclosure.Grant, disclosure.Receipt, error) {
	return fullGrant(), fullReceipt(9), b.note(ctx, "CreateGrant", c, g)
}

func (b *fakeBroker) GetGrant(ctx context.Context, c disclosure.Caller, id disclosure.GrantID) (disclosure.Grant, error) {
	return fullGrant(), b.note(ctx, "GetGrant", c, id)
}

func (b *fakeBroker) ListGrants(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
) ([]disclosure.Grant, string, error) {
	return []disclosure.Grant{fullGrant()}, "", b.note(ctx, "ListGrants", c, id, after, limit)
}

func (b *fakeBroker) RevokeGrant(
	ctx context.Context, c disclosure.Caller, id disclosure.GrantID, reason string,
) (disclosure.Grant, *disclosure.Receipt, error) {
	return fullGrant(), nil, b.note(ctx, "RevokeGrant", c, id, reason)
}

func (b *fakeBroker) RecordEvidence(
	ctx context.Context, c disclosure.Caller, e disclosure.Evidence,
) (disclosure.Evidence, disclosure.Receipt, error) {
	return fullEvidence(), fullReceipt(10), b.note(ctx, "RecordEvidence", c, e)
}

func (b *fakeBroker) ListEvidence(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
) ([]disclosure.Evidence, string, error) {
	return []disclosure.Evidence{fullEvidence()}, "more", b.note(ctx, "ListEvidence", c, id, after, limit)
}

func (b *fakeBroker) WithdrawEvidence(
	ctx context.Context, c disclosure.Caller, id disclosure.CaseID, evidence disclosure.EvidenceID, reason string,
) (disclosure.Evidence, *disclosure.Receipt, error) {
	r := fullReceipt(11)
	return fullEvidence(), &r, b.note(ctx, "WithdrawEvidence", c, id, evidence, reason)
}

func (b *fakeBroker) BrokerKeys(ctx context.Context) (disclosure.Receipt, error) {
	return fullReceipt(0), b.note(ctx, "BrokerKeys", disclosure.Caller{})
}

func (b *fakeBroker) Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error) {
	return fullOrganisation(), b.note(ctx, "Organisation", disclosure.Caller{}, oin)
}

func (b *fakeBroker) Organisations(ctx context.Context, after string, limit int) ([]disclosure.Organisation, string, error) {
	return []disclosure.Organisation{fullOrganisation()}, "", b.note(ctx, "Organisations", disclosure.Caller{}, after, limit)
}

func (b *fakeBroker) PublishStatement(ctx context.Context, c disclosure.Caller, signed []byte) (*disclosure.Receipt, error) {
	return nil, b.note(ctx, "PublishStatement", c, signed)
}

func (b *fakeBroker) EvaluatePseudonyms(ctx context.Context, c disclosure.Caller, blinded [][]byte) (disclosure.Evaluation, error) {
	return disclosure.Evaluation{
		Elements: blinded, Proof: make([]byte, 64), KeyVersion: 1, RemainingBudget: 42,
	}, b.note(ctx, "EvaluatePseudonyms", c, blinded)
}

func (b *fakeBroker) Entry(ctx context.Context, c disclosure.Caller, index uint64, reason string) (disclosure.Receipt, error) {
	return fullReceipt(index), b.note(ctx, "Entry", c, index, reason)
}

func (b *fakeBroker) Search(
	ctx context.Context, c disclosure.Caller, q disclosure.EntryQuery, reason string,
) ([]disclosure.Receipt, uint64, error) {
	return []disclosure.Receipt{fullReceipt(9), fullReceipt(8)}, 8, b.note(ctx, "Search", c, q, reason)
}

func (b *fakeBroker) Checkpoint(ctx context.Context, minSize uint64) ([]byte, error) {
	return []byte("checkpoint"), b.note(ctx, "Checkpoint", disclosure.Caller{}, minSize)
}

func (b *fakeBroker) InclusionProof(ctx context.Context, index uint64) (hashes [][]byte, checkpoint []byte, err error) {
	return [][]byte{make([]byte, 32)}, []byte("checkpoint"), b.note(ctx, "InclusionProof", disclosure.Caller{}, index)
}

func (b *fakeBroker) ConsistencyProof(ctx context.Context, from, to uint64) (hashes [][]byte, checkpoint []byte, err error) {
	return [][]byte{make([]byte, 32)}, nil, b.note(ctx, "ConsistencyProof", disclosure.Caller{}, from, to)
}

// Values with every member set that the wire carries.

const (
	caseID     = disclosure.CaseID("11111111-1111-4111-8111-111111111111")
	grantID    = disclosure.GrantID("22222222-2222-4222-8222-222222222222")
	evidenceID = disclosure.EvidenceID("33333333-3333-4333-8333-333333333333")
	requestID  = disclosure.RequestID("44444444-4444-4444-8444-444444444444")
	subject    = disclosure.Pseudonym("ps1-abcdefghijklmnopqrstuvwxyz234567")
)

func at(hour int) time.Time { return time.Date(2026, 11, 21, hour, 0, 0, 123456789, time.UTC) }

func atp(hour int) *time.Time {
	t := at(hour)
	return &t
}

func cityHat() disclosure.Party   { return disclosure.Party{OIN: city, Domain: "ME"} }
func policeHat() disclosure.Party { return disclosure.Party{OIN: police, Domain: "P"} }

func fullReceipt(index uint64) disclosure.Receipt {
	return disclosure.Receipt{
		Index: index, Time: at(9), Leaf: bytes.Repeat([]byte{1}, 41), Salt: bytes.Repeat([]byte{2}, 32), Payload: []byte(`{"v":1}`),
	}
}

func fullMotivation() disclosure.Motivation {
	return disclosure.Motivation{Aim: "aim", Necessity: "necessity", Subsidiarity: "subsidiarity", Proportionality: "proportionality"}
}

func fullQuery() disclosure.Query {
	motive := fullMotivation()
	return disclosure.Query{
		Domain: "ME", Case: caseID, Source: policeHat(), Purpose: "CASUSOVERLEG",
		Fields: []disclosure.Field{"POLNUIS.count", "CONT.*"}, Motive: &motive,
	}
}

func fullDecision() disclosure.Decision {
	return disclosure.Decision{
		Effect: disclosure.Permit, Rows: []disclosure.RowID{"LB-011"}, Articles: []string{"Wpg art. 20"},
		Released: []disclosure.Field{"POLNUIS.count"},
		Withheld: []disclosure.Withheld{{
			Field:  "CONT.phone",
			Reason: disclosure.Reason{Code: disclosure.ReasonNoArt9, Article: "AVG 9(2)(g)", Row: "LB-012", Condition: "CONS"},
		}},
		Obligations:  []disclosure.Obligation{{Type: "NO_ONWARD_SHARING", Detail: "none", Article: "Wpg 20"}},
		Retention:    "CASE_END",
		PolicyDigest: "sha256:" + "0123456789abcdef",
	}
}

func fullDisclosure() disclosure.Disclosure {
	outcome := fullReceipt(2)
	return disclosure.Disclosure{
		Request: requestID, Decision: fullDecision(), Outcome: disclosure.Disclosed,
		Permit:          disclosure.Signed{Payload: []byte("permit"), Signature: make([]byte, 64)},
		Manifest:        disclosure.Signed{Payload: []byte("manifest"), Signature: make([]byte, 64)},
		SourceStatement: []byte("statement"), Answer: []byte("answer"),
		DecisionReceipt: fullReceipt(1), OutcomeReceipt: &outcome,
	}
}

func fullExplanation() disclosure.Explanation {
	return disclosure.Explanation{
		Decision: disclosure.Decision{
			Effect: disclosure.Deny, PolicyDigest: "sha256:00",
			Reasons: []disclosure.Reason{{Code: disclosure.ReasonNoGrant, Article: "Wpg 20", Row: "LB-011"}},
		},
		Rows: []disclosure.RowExplanation{{
			Row: "LB-011", Articles: []string{"Wpg art. 20"}, Categories: []disclosure.Category{"POLNUIS"},
			Conditions: []disclosure.ConditionExplanation{{
				Condition: "W20", Proven: true, EN: "a decision", NL: "een besluit", Suppliers: []disclosure.Domain{"P"},
			}},
			Confidence: "V",
		}},
	}
}

func fullCase() disclosure.Case {
	return disclosure.Case{
		ID: caseID, Reference: "PGA-2026-0042", Owner: cityHat(), Regime: disclosure.RegimeLPGA, Phase: "F2", Subject: subject,
		Facts:        disclosure.SubjectFacts{BirthMonth: "1980-02", Resident: true, MultiProblem: true},
		Participants: []disclosure.Participant{{Party: policeHat(), JoinedAt: at(8)}},
		OpenedAt:     at(7), ClosedAt: atp(10),
	}
}

func fullGrant() disclosure.Grant {
	return disclosure.Grant{
		ID: grantID, Case: caseID, Source: policeHat(), Recipient: cityHat(), Purpose: "CASUSOVERLEG",
		Fields: []disclosure.Field{"POLNUIS.count"}, FirstPhase: "F1", LastPhase: "F3", NotBefore: at(7), ExpiresAt: at(11),
		Motive: fullMotivation(), RevokedAt: atp(10),
	}
}

func fullEvidence() disclosure.Evidence {
	return disclosure.Evidence{
		Subject: subject,
		ID:      evidenceID, Kind: "W20", Case: caseID, Sources: []disclosure.Party{policeHat()}, Recipients: []disclosure.Party{cityHat()},
		Purposes: []disclosure.Purpose{"CASUSOVERLEG"}, Categories: []disclosure.Category{"POLNUIS"},
		Details: map[string]string{"reference": "B-17"}, ValidFrom: at(7), ValidUntil: at(11),
		RecordedFor: disclosure.Party{Domain: "ME"}, WithdrawnAt: atp(10),
	}
}

func fullOrganisation() disclosure.Organisation {
	return disclosure.Organisation{
		Partner:   disclosure.Partner{OIN: police, Name: "Politie", Domains: []disclosure.Domain{"P"}},
		Statement: []byte("statement"),
	}
}

// unary calls a method by its name.
func unary(ctx context.Context, conn *grpc.ClientConn, method string, request any) error {
	return conn.Invoke(ctx, method, request, newResponse(method))
}

// connect opens a stream of an agent and returns how its first message came.
func connect(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := sluisv1.NewAgentServiceClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	hello := &sluisv1.AgentHello{Domains: []string{"ME"}}
	_ = stream.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{Hello: hello}})
	_, err = stream.Recv()
	return err
}

// as is a type assertion that a test may rely on.
func as[T any](v any) T {
	converted, ok := v.(T)
	if !ok {
		panic(fmt.Sprintf("%T is not what the test says", v))
	}
	return converted
}

func contains[T comparable](list []T, v T) bool { return slices.Contains(list, v) }
