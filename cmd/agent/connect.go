package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"sluis/internal/agent"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/keys"
	"sluis/internal/rpc"
	"sluis/policies"
)

// envelopeKeyType is the PEM type of the envelope key.
const envelopeKeyType = "SLUIS ENVELOPE KEY"

// session is a configured agent with a connection to the broker.
type session struct {
	*rpc.Client
	cfg       *config.Agent
	agent     *agent.Agent
	catalogue catalogue
	log       *slog.Logger
}

// connect loads the configuration and the keys. It does not call the broker yet.
func (a *app) connect() (*session, error) {
	cfg, err := config.LoadAgent(a.configPath)
	if err != nil {
		return nil, err
	}
	s := &session{cfg: cfg, log: a.logger(cfg.Log)}
	if s.catalogue, err = loadCatalogue(cfg.Policies); err != nil {
		return nil, err
	}
	files := identity.TLSConfig{
		CertFile: cfg.TLS.Cert, KeyFile: cfg.TLS.Key, CAFile: cfg.TLS.CA,
		ServerName: cfg.Broker.ServerName, ServerOIN: disclosure.OIN(cfg.Broker.OIN),
	}
	connection, err := identity.ClientTLS(files)
	if err != nil {
		return nil, err
	}
	certificate, key, err := ownCertificate(cfg)
	if err != nil {
		return nil, err
	}
	envelopeKey, signingKey, err := ownKeys(cfg)
	if err != nil {
		return nil, err
	}
	s.Client, err = rpc.Dial(rpc.ClientConfig{
		Target: cfg.Broker.Address, TLS: connection, Logger: s.log, Timeout: a.timeout, Token: a.token(cfg),
	})
	if err != nil {
		return nil, err
	}
	s.agent, err = agent.New(agent.Config{
		OIN: disclosure.OIN(cfg.OIN), Domains: domains(cfg), TLSKey: key, Chain: certificate.Certificate,
		EnvelopeKey: envelopeKey, SigningKey: signingKey,
		Trust:     envelope.Trust{Roots: connection.RootCAs, OrganisationID: organisationID},
		BrokerOIN: disclosure.OIN(cfg.Broker.OIN), LedgerKey: cfg.Broker.LedgerKey,
		Directory: s.Client, Evaluator: s.Client, Prover: s.Client,
		MayHoldBSN: s.catalogue.mayHoldBSN, TestBSN: cfg.TestBSN, State: cfg.State, Now: time.Now, Log: s.log,
	})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// with runs a command against the broker, within the time that it may take.
func (a *app) with(ctx context.Context, do func(context.Context, *session) error) error {
	s, err := a.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return errors.Join(do(ctx, s), s.Close())
}

func domains(cfg *config.Agent) []disclosure.Domain {
	list := make([]disclosure.Domain, len(cfg.Domains))
	for i, d := range cfg.Domains {
		list[i] = disclosure.Domain(d)
	}
	return list
}

// organisationID reads the organisation of a certificate as the edge does, so that both mean the same one.
func organisationID(cert *x509.Certificate) (string, error) {
	organisation, err := identity.OrganisationOf(cert)
	return string(organisation.OIN), err
}

// ownCertificate loads the organisation's certificate and key, and checks that they are the organisation's.
func ownCertificate(cfg *config.Agent) (tls.Certificate, crypto.Signer, error) {
	certificate, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("own certificate: %w", err)
	}
	organisation, err := identity.OrganisationOf(certificate.Leaf)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("own certificate %s: %w", cfg.TLS.Cert, err)
	}
	if string(organisation.OIN) != cfg.OIN {
		return tls.Certificate{}, nil, fmt.Errorf("own certificate %s is of organisation %s, and the configuration says %s",
			cfg.TLS.Cert, organisation.OIN, cfg.OIN)
	}
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return tls.Certificate{}, nil, fmt.Errorf("own key %s cannot sign", cfg.TLS.Key)
	}
	return certificate, key, nil
}

// ownKeys loads the keys that init made.
func ownKeys(cfg *config.Agent) (*envelope.PrivateKey, crypto.Signer, error) {
	hint := func(err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w; agent init makes the keys", err)
		}
		return err
	}
	secret, err := keys.LoadSecret(cfg.Keys.Envelope, envelopeKeyType)
	if err != nil {
		return nil, nil, hint(err)
	}
	defer clear(secret)
	envelopeKey, err := envelope.ParsePrivateKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: %w", cfg.Keys.Envelope, err)
	}
	signingKey, err := keys.LoadSigningKey(cfg.Keys.Signing)
	if err != nil {
		return nil, nil, hint(err)
	}
	return envelopeKey, signingKey, nil
}

const maxToken = 8 << 10

// token gives a function that reads the token at each call, so that a fresh one is picked up.
func (a *app) token(cfg *config.Agent) func(context.Context) (string, error) {
	path := cfg.Token.File
	if a.tokenFile != "" {
		path = a.tokenFile
	}
	return func(context.Context) (string, error) {
		if path == "" {
			return "", usage("this needs a signed-in person: give the file with the ID token with --token-file, or set token.file")
		}
		file, err := os.Open(path)
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(io.LimitReader(file, maxToken+1))
		if err := errors.Join(err, file.Close()); err != nil {
			return "", err
		}
		token := bytes.TrimSpace(content)
		if len(token) == 0 || len(token) > maxToken || bytes.ContainsAny(token, " \t\r\n") {
			return "", fmt.Errorf("%s does not hold one token", path)
		}
		return string(token), nil
	}
}

// catalogue is the part of the policy that an agent needs.
type catalogue struct {
	domains    []catalogueDomain
	categories []catalogueCategory
}

type catalogueDomain struct {
	Code disclosure.Domain `yaml:"code"`
	BSN  string            `yaml:"bsn"` // the article; empty: may not hold one
}

type catalogueCategory struct {
	Code   disclosure.Category `yaml:"code"`
	Fields []catalogueField    `yaml:"fields"`
}

type catalogueField struct {
	Name string `yaml:"name"`
}

// loadCatalogue reads the catalogue in the folder, or the one that is built in.
func loadCatalogue(folder string) (catalogue, error) {
	var files fs.FS = policies.FS
	if folder != "" {
		files = os.DirFS(folder)
	}
	var c catalogue
	for name, into := range map[string]any{"domains.yaml": &c.domains, "categories.yaml": &c.categories} {
		content, err := fs.ReadFile(files, "catalogue/"+name)
		if err != nil {
			return catalogue{}, fmt.Errorf("catalogue: %w", err)
		}
		if err := yaml.Unmarshal(content, into); err != nil {
			return catalogue{}, fmt.Errorf("catalogue: %s: %w", name, err)
		}
	}
	return c, nil
}

// mayHoldBSN tells whether the law lets an organisation hold a citizen service number in that hat.
func (c catalogue) mayHoldBSN(hat disclosure.Domain) bool {
	return slices.ContainsFunc(c.domains, func(d catalogueDomain) bool { return d.Code == hat && d.BSN != "" })
}

func (c catalogue) hasDomain(hat disclosure.Domain) bool {
	return slices.ContainsFunc(c.domains, func(d catalogueDomain) bool { return d.Code == hat })
}

// knows tells whether there is such a field.
func (c catalogue) knows(field disclosure.Field) bool {
	return slices.ContainsFunc(c.categories, func(category catalogueCategory) bool {
		return category.Code == field.Category() &&
			slices.ContainsFunc(category.Fields, func(f catalogueField) bool { return f.Name == field.Name() })
	})
}
