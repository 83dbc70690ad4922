package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/receipt"
	sluisv1 "sluis/proto/sluis/v1"
)

// The bare relay is what a broker cannot be faster than: the same messages over the same two hops and mTLS, a call of a client and a
// message on the stream that an agent opened, and nothing done about them. Its three modes are domains of its agent.
const (
	modeBare   = "BARE"   // bytes pass, nothing is sealed, opened or signed
	modeSealed = "SEALED" // the ends do their cryptography, with the hybrid suite
	modeX25519 = "SEALX"  // the same with X25519
)

func modes() []string { return []string{modeBare, modeSealed, modeX25519} }

// fixture is what the processes of the bare relay work with: the messages of a real disclosure, and the keys of the ends.
type fixture struct {
	Request, Question, Answer, Response []byte // RequestDisclosureRequest, BrokerQuestion, AgentAnswer, RequestDisclosureResponse
	Content                             []byte // of the answer, before it is sealed
	Sealed                              map[string]sealedFixture
	SigningKey                          []byte // Ed25519, of the source
	Manifest                            receipt.Manifest
	PermitDigest                        []byte
	Requester, Source                   string // OINs
	Binding                             envelope.IdentityBinding
}

// sealedFixture is what depends on the suite.
type sealedFixture struct {
	SourceKey, RequesterKey []byte // private, encoded
	Identity                []byte // sealed to the source, and signed
}

const fixtureFile = "fixture"

func (f *fixture) write(dir string) (err error) {
	file, err := os.OpenFile(filepath.Join(dir, fixtureFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return json.NewEncoder(file).Encode(f)
}

func readFixture(dir string) (*fixture, error) {
	file, err := os.Open(filepath.Join(dir, fixtureFile)) //nolint:gosec // our own folder
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	f := &fixture{}
	return f, json.NewDecoder(bufio.NewReader(file)).Decode(f)
}

// The folders of certificates, and whose they are.
const (
	brokerOIN       disclosure.OIN = "00000001000000000001"
	municipalityOIN disclosure.OIN = "00000001000000000002"
	policeOIN       disclosure.OIN = "00000001000000000003"

	brokerDir       = "broker-tls"
	municipalityDir = "municipality-tls"
	policeDir       = "police-tls"
)

func tlsFiles(dir, who string) identity.TLSConfig {
	file := func(name string) string { return filepath.Join(dir, who, name) }
	return identity.TLSConfig{
		CertFile: file("cert.pem"), KeyFile: file("key.pem"), CAFile: file("ca.pem"), ServerName: "localhost", ServerOIN: brokerOIN,
	}
}

func dial(dir, who, address string) (*grpc.ClientConn, error) {
	config, err := identity.ClientTLS(tlsFiles(dir, who))
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// untilParentEnds returns a context that ends with standard input, which the parent holds open.
func untilParentEnds(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}

// proxyMain is the process between the two hops. It prints its address.
func proxyMain(ctx context.Context, dir string) error {
	f, err := readFixture(dir)
	if err != nil {
		return err
	}
	config, err := identity.ServerTLS(tlsFiles(dir, brokerDir))
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &proxy{streams: map[string]*proxyStream{}}
	if err := errors.Join(proto.Unmarshal(f.Question, &p.question), proto.Unmarshal(f.Response, &p.response)); err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.MaxConcurrentStreams(1024))
	sluisv1.RegisterDisclosureServiceServer(server, p)
	sluisv1.RegisterAgentServiceServer(server, p.agents())
	ctx = untilParentEnds(ctx)
	context.AfterFunc(ctx, server.Stop)
	if _, err := fmt.Fprintln(os.Stdout, listener.Addr()); err != nil {
		return err
	}
	return server.Serve(listener)
}

type proxy struct {
	sluisv1.UnimplementedDisclosureServiceServer
	question sluisv1.BrokerQuestion
	response sluisv1.RequestDisclosureResponse

	mu      sync.RWMutex
	streams map[string]*proxyStream // by mode; guarded by mu
}

// proxyStream is the stream of an agent.
type proxyStream struct {
	wire grpc.BidiStreamingServer[sluisv1.ConnectRequest, sluisv1.ConnectResponse]

	sending sync.Mutex // held while sending: gRPC allows one at a time

	mu      sync.Mutex // guards the rest; never held while sending, since an answer may have to be taken in first
	last    uint64
	pending map[uint64]chan *sluisv1.AgentAnswer
}

var errNoStream = errors.New("no agent for this mode")

func (p *proxy) RequestDisclosure(
	ctx context.Context, r *sluisv1.RequestDisclosureRequest,
) (*sluisv1.RequestDisclosureResponse, error) {
	p.mu.RLock()
	s := p.streams[r.GetQuery().GetDomain()]
	p.mu.RUnlock()
	if s == nil {
		return nil, errNoStream
	}
	answer, err := s.ask(ctx, &p.question)
	if err != nil {
		return nil, err
	}
	d := p.response.GetDisclosure()
	return &sluisv1.RequestDisclosureResponse{Disclosure: &sluisv1.Disclosure{
		RequestId: r.GetRequestId(), Decision: d.GetDecision(), Outcome: d.GetOutcome(), Permit: d.GetPermit(),
		Manifest: answer.GetManifest(), SourceStatement: d.GetSourceStatement(), Answer: answer.GetAnswer(),
		DecisionReceipt: d.GetDecisionReceipt(), OutcomeReceipt: d.GetOutcomeReceipt(),
	}}, nil
}

func (s *proxyStream) ask(ctx context.Context, q *sluisv1.BrokerQuestion) (*sluisv1.AgentAnswer, error) {
	answer := make(chan *sluisv1.AgentAnswer, 1)
	s.mu.Lock()
	s.last++
	id := s.last
	s.pending[id] = answer
	s.mu.Unlock()
	s.sending.Lock()
	err := s.wire.Send(&sluisv1.ConnectResponse{Message: &sluisv1.ConnectResponse_Question{Question: &sluisv1.BrokerQuestion{
		QuestionId: id, Permit: q.GetPermit(), SealedIdentity: q.GetSealedIdentity(), RequesterStatement: q.GetRequesterStatement(),
	}}})
	s.sending.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *proxyStream) take(id uint64) chan *sluisv1.AgentAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := s.pending[id]
	delete(s.pending, id)
	return answer
}

func (p *proxy) agents() sluisv1.AgentServiceServer { return proxyAgents{proxy: p} }

// proxyAgents is the other service of the proxy.
type proxyAgents struct {
	sluisv1.UnimplementedAgentServiceServer
	proxy *proxy
}

func (p proxyAgents) Connect(wire grpc.BidiStreamingServer[sluisv1.ConnectRequest, sluisv1.ConnectResponse]) error {
	hello, err := wire.Recv()
	if err != nil {
		return err
	}
	s := &proxyStream{wire: wire, pending: map[uint64]chan *sluisv1.AgentAnswer{}}
	welcome := &sluisv1.ConnectResponse{Message: &sluisv1.ConnectResponse_Welcome{Welcome: &sluisv1.BrokerWelcome{}}}
	if err := wire.Send(welcome); err != nil {
		return err
	}
	p.proxy.mu.Lock()
	for _, mode := range hello.GetHello().GetDomains() {
		p.proxy.streams[mode] = s
	}
	p.proxy.mu.Unlock()
	for {
		m, err := wire.Recv()
		if err != nil {
			return err
		}
		if answer := s.take(m.GetAnswer().GetQuestionId()); answer != nil {
			answer <- m.GetAnswer()
		}
	}
}

// agentMain is the answering end of the bare relay: one stream for each mode. It prints a line when all of them are open.
func agentMain(ctx context.Context, dir, address string) error {
	f, err := readFixture(dir)
	if err != nil {
		return err
	}
	ctx = untilParentEnds(ctx)
	var streams []func() error
	for _, mode := range modes() {
		answer, err := newAnswerer(f, dir, mode)
		if err != nil {
			return err
		}
		conn, err := dial(dir, policeDir, address)
		if err != nil {
			return err
		}
		wire, err := sluisv1.NewAgentServiceClient(conn).Connect(ctx)
		if err != nil {
			return err
		}
		hello := &sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{Hello: &sluisv1.AgentHello{Domains: []string{mode}}}}
		if err := wire.Send(hello); err != nil {
			return err
		}
		if _, err := wire.Recv(); err != nil {
			return err
		}
		streams = append(streams, func() error { return serveBare(wire, answer) })
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready"); err != nil {
		return err
	}
	ended := make(chan error, len(streams))
	for _, serve := range streams {
		go func() { ended <- serve() }()
	}
	return <-ended
}

// bareWorkers is how many questions the bare agent answers at once.
const bareWorkers = 64

func serveBare(wire grpc.BidiStreamingClient[sluisv1.ConnectRequest, sluisv1.ConnectResponse], answer answerer) error {
	var sending sync.Mutex
	questions := make(chan *sluisv1.BrokerQuestion, bareWorkers)
	defer close(questions)
	failed := make(chan error, bareWorkers)
	for range bareWorkers {
		go func() {
			for q := range questions {
				a, err := answer(q)
				if err == nil {
					sending.Lock()
					err = wire.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Answer{Answer: a}})
					sending.Unlock()
				}
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	for {
		m, err := wire.Recv()
		if err != nil {
			return err
		}
		select {
		case questions <- m.GetQuestion():
		case err := <-failed:
			return err
		}
	}
}

// answerer answers one question of the bare relay.
type answerer func(*sluisv1.BrokerQuestion) (*sluisv1.AgentAnswer, error)

func newAnswerer(f *fixture, dir, mode string) (answerer, error) {
	var canned sluisv1.AgentAnswer
	if err := proto.Unmarshal(f.Answer, &canned); err != nil {
		return nil, err
	}
	if mode == modeBare {
		return func(q *sluisv1.BrokerQuestion) (*sluisv1.AgentAnswer, error) {
			return &sluisv1.AgentAnswer{QuestionId: q.GetQuestionId(), Manifest: canned.GetManifest(), Answer: canned.GetAnswer()}, nil
		}, nil
	}
	keys := f.Sealed[mode]
	sourceKey, err := envelope.ParsePrivateKey(keys.SourceKey)
	if err != nil {
		return nil, err
	}
	requesterKey, err := envelope.ParsePrivateKey(keys.RequesterKey)
	if err != nil {
		return nil, err
	}
	roots, err := roots(dir)
	if err != nil {
		return nil, err
	}
	to, trust, signer := requesterKey.PublicKey(), envelope.Trust{Roots: roots}, ed25519.PrivateKey(f.SigningKey)
	info := envelope.AnswerBinding{PermitDigest: f.PermitDigest, Requester: f.Requester, Source: f.Source}.Info()
	return func(q *sluisv1.BrokerQuestion) (*sluisv1.AgentAnswer, error) {
		if _, err := envelope.OpenIdentity(sourceKey, f.Binding, keys.Identity, trust, time.Now()); err != nil {
			return nil, err
		}
		sealed, err := envelope.Seal(to, info, f.Content)
		if err != nil {
			return nil, err
		}
		m := f.Manifest
		m.AnswerDigest, m.AnsweredAt = receipt.Digest(sealed), time.Now().UTC()
		signed, err := receipt.SignManifest(m, signer)
		if err != nil {
			return nil, err
		}
		return &sluisv1.AgentAnswer{
			QuestionId: q.GetQuestionId(), Manifest: &sluisv1.Signed{Payload: signed.Payload, Signature: signed.Signature}, Answer: sealed,
		}, nil
	}, nil
}

// bareRelay is the bare relay as its callers see it.
type bareRelay struct {
	proxy, agent *child
	client       sluisv1.DisclosureServiceClient
	fixture      *fixture
}

// startBare starts the two processes of the bare relay.
func startBare(ctx context.Context, dir string, f *fixture) (_ *bareRelay, err error) {
	if err := f.write(dir); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &bareRelay{fixture: f}
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	if b.proxy, err = start(self, childProxy, dir); err != nil {
		return nil, err
	}
	address, err := b.proxy.line(ctx)
	if err != nil {
		return nil, err
	}
	if b.agent, err = start(self, childAgent, dir, address); err != nil {
		return nil, err
	}
	if _, err := b.agent.line(ctx); err != nil {
		return nil, err
	}
	conn, err := dial(dir, municipalityDir, address)
	if err != nil {
		return nil, err
	}
	b.client = sluisv1.NewDisclosureServiceClient(conn)
	return b, nil
}

func (b *bareRelay) stop() {
	b.agent.stop()
	b.proxy.stop()
}

// asker returns what one caller does over and over in a mode: ask, and where the ends do cryptography, verify the manifest and open the
// answer.
func (b *bareRelay) asker(mode string) (func(context.Context) error, error) {
	var canned sluisv1.RequestDisclosureRequest
	if err := proto.Unmarshal(b.fixture.Request, &canned); err != nil {
		return nil, err
	}
	canned.Query.Domain = mode
	ask := func(ctx context.Context) (*sluisv1.Disclosure, error) {
		response, err := b.client.RequestDisclosure(ctx, &canned)
		return response.GetDisclosure(), err
	}
	if mode == modeBare {
		return func(ctx context.Context) error {
			_, err := ask(ctx)
			return err
		}, nil
	}
	key, err := envelope.ParsePrivateKey(b.fixture.Sealed[mode].RequesterKey)
	if err != nil {
		return nil, err
	}
	f := b.fixture
	info := envelope.AnswerBinding{PermitDigest: f.PermitDigest, Requester: f.Requester, Source: f.Source}.Info()
	public, ok := ed25519.PrivateKey(f.SigningKey).Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("signing key is not Ed25519")
	}
	return func(ctx context.Context) error {
		d, err := ask(ctx)
		if err != nil {
			return err
		}
		m, err := receipt.OpenManifest(d.GetManifest().GetPayload(), d.GetManifest().GetSignature(), public)
		if err != nil {
			return err
		}
		if err := receipt.CheckSealed(d.GetAnswer(), m); err != nil {
			return err
		}
		_, err = envelope.Open(key, info, d.GetAnswer())
		return err
	}, nil
}

func roots(dir string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(filepath.Join(dir, policeDir, "ca.pem")) //nolint:gosec // our own folder
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate of an authority")
	}
	return pool, nil
}
