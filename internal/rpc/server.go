package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"sluis/internal/disclosure"
	"sluis/internal/identity"
	sluisv1 "sluis/proto/sluis/v1"
)

const (
	// maxMessage is the largest message that either end takes, except pages: a sealed answer of 1 MiB with its manifest.
	maxMessage = 1<<20 + 256<<10
	maxHeaders = 32 << 10

	handshakeTimeout = 10 * time.Second
	healthInterval   = time.Second

	// Agents sit behind firewalls that forget idle connections; see also clientKeepalive.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	keepaliveMinimum = 20 * time.Second
)

// The defaults of ServerConfig.
const (
	DefaultMaxCall     = 30 * time.Second
	DefaultMaxInFlight = 4096
	DefaultMaxStreams  = 1024
	DefaultStop        = 15 * time.Second
)

// Disclosures are the use cases of DisclosureService.
type Disclosures interface {
	RequestDisclosure(
		ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, sealedIdentity, bodyDigest []byte,
	) (disclosure.Disclosure, error)
	GetDisclosure(ctx context.Context, c disclosure.Caller, id disclosure.RequestID) (disclosure.Disclosure, error)
	Explain(
		ctx context.Context, c disclosure.Caller, id disclosure.RequestID, q disclosure.Query, bodyDigest []byte,
	) (disclosure.Explanation, disclosure.Receipt, error)
}

// Cases are the use cases of CaseService.
type Cases interface {
	OpenCase(ctx context.Context, c disclosure.Caller, opened disclosure.Case) (disclosure.Case, disclosure.Receipt, error)
	GetCase(ctx context.Context, c disclosure.Caller, id disclosure.CaseID) (disclosure.Case, error)
	ListCases(ctx context.Context, c disclosure.Caller, after string, limit int) ([]disclosure.Case, string, error)
	AddParticipant(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party, sealedIdentity []byte,
	) (disclosure.Case, disclosure.Receipt, error)
	RemoveParticipant(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, p disclosure.Party,
	) (disclosure.Case, disclosure.Receipt, error)
	ChangePhase(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, from, to disclosure.Phase,
	) (disclosure.Case, disclosure.Receipt, error)
	CloseCase(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, reason string,
	) (disclosure.Case, disclosure.Receipt, error)
}

// Grants are the use cases of GrantService.
type Grants interface {
	CreateGrant(ctx context.Context, c disclosure.Caller, g disclosure.Grant) (disclosure.Grant, disclosure.Receipt, error)
	GetGrant(ctx context.Context, c disclosure.Caller, id disclosure.GrantID) (disclosure.Grant, error)
	ListGrants(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
	) ([]disclosure.Grant, string, error)
	RevokeGrant(
		ctx context.Context, c disclosure.Caller, id disclosure.GrantID, reason string,
	) (disclosure.Grant, *disclosure.Receipt, error)
}

// Evidence are the use cases of EvidenceService.
type Evidence interface {
	RecordEvidence(ctx context.Context, c disclosure.Caller, e disclosure.Evidence) (disclosure.Evidence, disclosure.Receipt, error)
	ListEvidence(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, after string, limit int,
	) ([]disclosure.Evidence, string, error)
	WithdrawEvidence(
		ctx context.Context, c disclosure.Caller, id disclosure.CaseID, evidence disclosure.EvidenceID, reason string,
	) (disclosure.Evidence, *disclosure.Receipt, error)
}

// Directory are the use cases of DirectoryService.
type Directory interface {
	BrokerKeys(ctx context.Context) (disclosure.Receipt, error)
	Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error)
	Organisations(ctx context.Context, after string, limit int) ([]disclosure.Organisation, string, error)
	PublishStatement(ctx context.Context, c disclosure.Caller, signed []byte) (*disclosure.Receipt, error)
}

// Pseudonyms is the use case of PseudonymService.
type Pseudonyms interface {
	EvaluatePseudonyms(ctx context.Context, c disclosure.Caller, blinded [][]byte) (disclosure.Evaluation, error)
}

// Audit are the use cases of AuditService.
type Audit interface {
	Entry(ctx context.Context, c disclosure.Caller, index uint64, reason string) (disclosure.Receipt, error)
	Search(
		ctx context.Context, c disclosure.Caller, q disclosure.EntryQuery, reason string,
	) (entries []disclosure.Receipt, next uint64, err error)
	Checkpoint(ctx context.Context, minSize uint64) ([]byte, error)
	InclusionProof(ctx context.Context, index uint64) (hashes [][]byte, checkpoint []byte, err error)
	ConsistencyProof(ctx context.Context, from, to uint64) (hashes [][]byte, checkpoint []byte, err error)
}

// Partners is the directory as the edge needs it for every call: it must be fast. It fails with an error that wraps ReasonNotFound for an
// organisation that is not in it. What it returns is only read.
type Partners interface {
	Partner(ctx context.Context, oin disclosure.OIN) (*disclosure.Partner, error)
}

// Broker carries out the calls. It refuses with an error that wraps a disclosure.ReasonCode or disclosure.ErrMalformed; the text of any other
// error goes to the log alone.
type Broker interface {
	Disclosures
	Cases
	Grants
	Evidence
	Directory
	Pseudonyms
	Audit
	Partners
}

// Tokens verifies a person's token, which must be of the organisation's issuer; see identity.Verifier.
type Tokens interface {
	Verify(ctx context.Context, raw string, organisation disclosure.OIN) (identity.Person, error)
}

// Agents serves the streams that agents open; see relay.Relay.
type Agents interface {
	// Connect serves the stream of an agent of the organisation, which has these hats in the directory, until it ends.
	Connect(
		organisation disclosure.OIN, domains []disclosure.Domain,
		stream grpc.BidiStreamingServer[sluisv1.ConnectRequest, sluisv1.ConnectResponse],
	) error
	// Drain lets running questions finish, and ends all streams.
	Drain(ctx context.Context) error
}

// ServerConfig is what a Server is made of. Everything is required unless said otherwise.
type ServerConfig struct {
	// TLS must require and verify client certificates, over TLS 1.3; see identity.ServerTLS.
	TLS    *tls.Config
	Broker Broker
	Tokens Tokens
	Agents Agents
	// Healthy says why the broker cannot serve, if it cannot; nil means always healthy.
	Healthy func() error
	Logger  *slog.Logger     // default discards
	Clock   func() time.Time // default time.Now

	MaxCall     time.Duration // the longest that a call may take, whatever the caller asks; default DefaultMaxCall
	MaxInFlight int           // calls at once, apart from agents' streams; default DefaultMaxInFlight
	MaxStreams  int           // calls at once on one connection; default DefaultMaxStreams
	// Stop is how long Serve waits for calls to end once its context has ended; default DefaultStop.
	Stop time.Duration
	// ReadBuffer is the size in bytes of the read buffer of a connection; default gRPC's 32 KiB. Negative means none, which halves the memory
	// of idle agents at the price of throughput on busy connections.
	ReadBuffer int
}

// Server is the broker's gRPC server. Use NewServer.
type Server struct {
	cfg    ServerConfig
	log    *slog.Logger
	grpc   *grpc.Server
	health *healthServer
	rules  map[string]rule
	strict strictness
	calls  calls
}

// NewServer returns a server. It starts nothing; see Serve.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Broker == nil || cfg.Tokens == nil || cfg.Agents == nil {
		return nil, errors.New("rpc: server without broker, tokens or agents")
	}
	if cfg.TLS == nil || cfg.TLS.ClientAuth != tls.RequireAndVerifyClientCert || cfg.TLS.MinVersion < tls.VersionTLS13 {
		return nil, errors.New("rpc: server must require client certificates over TLS 1.3")
	}
	if cfg.Healthy == nil {
		cfg.Healthy = func() error { return nil }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.MaxCall <= 0 {
		cfg.MaxCall = DefaultMaxCall
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = DefaultMaxInFlight
	}
	if cfg.MaxStreams <= 0 {
		cfg.MaxStreams = DefaultMaxStreams
	}
	if cfg.Stop <= 0 {
		cfg.Stop = DefaultStop
	}
	s := &Server{
		cfg:    cfg,
		log:    cfg.Logger,
		rules:  methodRules(),
		strict: newStrictness(),
		calls:  calls{limit: int64(cfg.MaxInFlight), idle: make(chan struct{}, 1)},
	}
	s.grpc = grpc.NewServer(s.options()...)
	s.health = &healthServer{Server: health.NewServer(), healthy: cfg.Healthy, stopped: make(chan struct{})}
	register(s.grpc, cfg)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	for name := range s.grpc.GetServiceInfo() {
		s.health.services = append(s.health.services, name)
	}
	s.health.services = append(s.health.services, "")
	s.health.refresh()
	return s, nil
}

func (s *Server) options() []grpc.ServerOption {
	options := []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(s.cfg.TLS)),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(uint32(s.cfg.MaxStreams)),
		grpc.ConnectionTimeout(handshakeTimeout),
		// There is no maximum age of a connection: agents keep theirs, and would all come back at once.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
	}
	if s.cfg.ReadBuffer != 0 {
		options = append(options, grpc.ReadBufferSize(max(0, s.cfg.ReadBuffer)))
	}
	return options
}

// Serve serves the listener, which it closes, until ctx ends. Then it takes no new calls, lets running ones finish, ends the streams of
// agents and returns nil; if that takes longer than cfg.Stop, it breaks off what is left and says so. It may be called for several
// listeners with the same context.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(listener) }()
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("rpc: serve: %w", err)
		case <-ticker.C:
			s.health.refresh()
		case <-ctx.Done():
			return s.stop(ctx)
		}
	}
}

func (s *Server) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Stop)
	defer cancel()
	s.health.Shutdown()
	graceful := make(chan struct{})
	go func() {
		s.grpc.GracefulStop() // waits for agents' streams too, which do not end by themselves
		close(graceful)
	}()
	// Running calls may still need the agents, so those go last.
	callsErr := s.calls.wait(ctx)
	agentsErr := s.cfg.Agents.Drain(ctx)
	s.health.stop()
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		<-graceful
		return errors.New("rpc: stop: calls were broken off")
	}
	return errors.Join(callsErr, agentsErr)
}

// calls counts the calls that run.
type calls struct {
	limit   int64
	running atomic.Int64
	waiting atomic.Bool
	idle    chan struct{} // buffered; told when the last call ends while wait waits
}

// begin reports false when there are too many.
func (c *calls) begin() bool {
	if c.running.Add(1) > c.limit {
		c.end()
		return false
	}
	return true
}

func (c *calls) end() {
	if c.running.Add(-1) == 0 && c.waiting.Load() {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// wait returns when no call runs.
func (c *calls) wait(ctx context.Context) error {
	c.waiting.Store(true)
	for c.running.Load() > 0 {
		select {
		case <-c.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// healthServer is grpc.health.v1, overall and for each service. What makes the broker unhealthy, the ledger above all, stops every service.
type healthServer struct {
	*health.Server
	healthy  func() error
	services []string

	once    sync.Once
	stopped chan struct{} // closed by stop
}

func (h *healthServer) refresh() {
	state := healthpb.HealthCheckResponse_SERVING
	if h.healthy() != nil {
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	for _, name := range h.services {
		h.SetServingStatus(name, state)
	}
}

// stop ends the streams of Watch, which do not end by themselves.
func (h *healthServer) stop() { h.once.Do(func() { close(h.stopped) }) }

// Watch tells of changes until the server stops.
func (h *healthServer) Watch(r *healthpb.HealthCheckRequest, wire grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	ctx, cancel := context.WithCancel(wire.Context())
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		defer cancel()
		select {
		case <-h.stopped:
		case <-ended:
		}
	}()
	return h.Server.Watch(r, watching{ServerStreamingServer: wire, ctx: ctx})
}

// watching is a stream with another context.
type watching struct {
	grpc.ServerStreamingServer[healthpb.HealthCheckResponse]
	ctx context.Context //nolint:containedctx // this is how gRPC hands a context to a stream's handler
}

// Context returns the context that ends when the server stops.
func (w watching) Context() context.Context { return w.ctx }

// Check answers by the state of this moment, not that of the last refresh.
func (h *healthServer) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.refresh()
	return h.Server.Check(ctx, r)
}
