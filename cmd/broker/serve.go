package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluis/internal/broker"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/identity"
	"sluis/internal/relay"
	"sluis/internal/rpc"
)

// gcPercent trades memory for time: the live heap is small, and collecting it often costs up to a fifth of the throughput.
const gcPercent = 400

func serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve partners until told to stop",
		Long: "Serves gRPC over mTLS until it is interrupted; then it lets what is under way finish. The ledger is checked against the\n" +
			"guard first, and a ledger that was rolled back or forked is not served.",
		Example: "  broker serve --config broker/broker.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadBroker(path)
			if err != nil {
				return err
			}
			if err := cfg.CheckFiles(); err != nil {
				return err
			}
			debug.SetGCPercent(gcPercent)
			return serve(cmd.Context(), cfg, newLogger(cmd.ErrOrStderr(), cfg.Log))
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func serve(ctx context.Context, cfg *config.Broker, logger *slog.Logger) (err error) {
	f, err := openFiles(cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.openLedger(ctx, cfg, logger); err != nil {
		return err
	}
	// Relay and broker know each other: the relay tells of late answers, the broker asks.
	var b *broker.Broker
	agents := relay.New(relay.Config{
		Late:   func(from disclosure.Party, question disclosure.Question) { b.Late(from, question) },
		Logger: logger,
	})
	b, engine, err := newBroker(ctx, cfg, f, agents, logger)
	if err != nil {
		return err
	}
	tokens, err := identity.NewVerifier(identity.VerifierConfig{Issuers: newIssuers(b).lookup, Audience: cfg.TokenAudience})
	if err != nil {
		return err
	}
	tls, err := identity.ServerTLS(identity.TLSConfig{
		CertFile: cfg.TLS.Cert, KeyFile: cfg.TLS.Key, CAFile: cfg.TLS.CA, Logger: logger,
	})
	if err != nil {
		return err
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: tls, Broker: b, Tokens: tokens, Agents: agents, Healthy: b.Healthy, Logger: logger,
	})
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return err
	}
	return runAll(ctx, logger, listener, server, b, engine, f)
}

// runner is a part of the broker that runs until its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// runAll serves until ctx ends or a part fails: then first no new calls, then no disclosures under way, then no more decisions, and the
// ledger last.
func runAll(
	ctx context.Context, logger *slog.Logger, listener net.Listener, server *rpc.Server, b *broker.Broker, engine runner, f *files,
) error {
	group, ctx := errgroup.WithContext(ctx)
	serve := func(ctx context.Context) error {
		select {
		case <-b.Ready():
		case <-ctx.Done():
			return listener.Close()
		}
		logger.InfoContext(ctx, "broker serving", slog.String("address", listener.Addr().String()))
		return server.Serve(ctx, listener)
	}
	inTurn(ctx, group, serve, b.Run, engine.Run, f.log.Run)
	err := group.Wait()
	logger.InfoContext(context.WithoutCancel(ctx), "broker stopped")
	return err
}

// inTurn runs parts that each rest on the next: the first until ctx ends, and each other until the one before it has ended.
func inTurn(ctx context.Context, group *errgroup.Group, parts ...func(context.Context) error) {
	until := ctx
	for _, run := range parts {
		partCtx := until
		var ended context.CancelFunc
		until, ended = context.WithCancel(context.WithoutCancel(ctx)) //nolint:fatcontext // of ctx, not of the one before: nothing nests
		group.Go(func() error {
			defer ended()
			return run(partCtx)
		})
	}
}

// issuers looks up whose people an issuer signs for. Parsed keys are kept as long as the directory gives the same partner.
type issuers struct {
	broker *broker.Broker
	parsed sync.Map // of *disclosure.Partner to identity.IssuerKeys, by iss
}

type parsedIssuer struct {
	partner *disclosure.Partner
	keys    identity.IssuerKeys
}

func newIssuers(b *broker.Broker) *issuers { return &issuers{broker: b} }

func (i *issuers) lookup(iss string) (identity.IssuerKeys, bool) {
	partner, err := i.broker.Issuer(context.Background(), iss)
	if err != nil {
		return identity.IssuerKeys{}, false
	}
	if known, ok := i.parsed.Load(iss); ok {
		if issuer, ok := known.(parsedIssuer); ok && issuer.partner == partner {
			return issuer.keys, true
		}
	}
	set, err := identity.ParseJWKS(partner.JWKS)
	if err != nil {
		return identity.IssuerKeys{}, false
	}
	keys := identity.IssuerKeys{OIN: partner.OIN, Keys: set}
	i.parsed.Store(iss, parsedIssuer{partner, keys})
	return keys, true
}
