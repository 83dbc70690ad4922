package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sluis/internal/broker"
	"sluis/internal/casefile"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
	"sluis/internal/policy"
	"sluis/internal/pseudonym"
	"sluis/policies"
)

// pseudonymVersion is the version of the pseudonym key; it changes when the key is rotated.
const pseudonymVersion = 1

// files are the broker's keys and stores, opened.
type files struct {
	store    *boltstore.Store
	index    *boltstore.Index
	keyring  *keys.Keyring
	signer   note.Signer
	verifier note.Verifier
	vkey     string
	log      *ledger.Log // nil after openFiles
}

func ledgerPath(cfg *config.Broker) string  { return filepath.Join(cfg.Data, "ledger.db") }
func indexPath(cfg *config.Broker) string   { return filepath.Join(cfg.Data, "index.db") }
func keyringPath(cfg *config.Broker) string { return filepath.Join(cfg.Data, "keyring.db") }

// openFiles opens keys and stores; readOnly writes nothing to the ledger and its index.
func openFiles(cfg *config.Broker, readOnly bool) (_ *files, err error) {
	f := &files{}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.signer, f.vkey, err = keys.LoadNoteSigner(cfg.Keys.Ledger); err != nil {
		return nil, fmt.Errorf("ledger key: %w", err)
	}
	if f.signer.Name() != cfg.Origin {
		return nil, fmt.Errorf("%w: origin is not the name in the ledger key", config.ErrInvalid)
	}
	if f.verifier, err = note.NewVerifier(f.vkey); err != nil {
		return nil, fmt.Errorf("ledger key: %w", err)
	}
	kek, err := keys.LoadKEK(cfg.Keys.KEK)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	if f.keyring, err = keys.OpenKeyring(keys.KeyringConfig{Path: keyringPath(cfg), KEK: kek}); err != nil {
		return nil, err
	}
	bolt := boltstore.Config{MinFree: uint64(cfg.MinFree), ReadOnly: readOnly}
	if f.store, err = boltstore.Open(ledgerPath(cfg), bolt); err != nil {
		return nil, err
	}
	if f.index, err = boltstore.OpenIndex(indexPath(cfg), bolt); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *files) close() error {
	var err error
	if f.index != nil {
		err = errors.Join(err, f.index.Close())
	}
	if f.store != nil {
		err = errors.Join(err, f.store.Close())
	}
	if f.keyring != nil {
		err = errors.Join(err, f.keyring.Close())
	}
	return err
}

// openLedger opens and checks the ledger on top of the files.
func (f *files) openLedger(ctx context.Context, cfg *config.Broker, logger *slog.Logger) error {
	log, err := ledger.Open(ctx, ledger.Config{
		Store: f.store, Index: f.index, Sealer: f.keyring, Folder: casefile.Folder{}, Guard: ledger.NewFileGuard(cfg.Guard),
		Signer: f.signer, Verifier: f.verifier, CheckpointInterval: cfg.CheckpointInterval.Std(), Logger: logger,
	})
	f.log = log
	return err
}

// newBroker builds the use cases over opened files. The relay may come later, see relayLink.
func newBroker(ctx context.Context, cfg *config.Broker, f *files, relay broker.Relay, logger *slog.Logger) (*broker.Broker, *policy.Engine, error) {
	permitKey, err := keys.LoadSigningKey(cfg.Keys.Permit)
	if err != nil {
		return nil, nil, fmt.Errorf("permit key: %w", err)
	}
	secret, err := keys.LoadSecret(cfg.Keys.Pseudonym, pseudonymKeyType)
	if err != nil {
		return nil, nil, fmt.Errorf("pseudonym key: %w", err)
	}
	pseudonymKey, err := pseudonym.ParsePrivateKey(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("pseudonym key: %w", err)
	}
	pseudonyms, err := pseudonym.NewServer(pseudonymKey, pseudonymVersion)
	if err != nil {
		return nil, nil, fmt.Errorf("pseudonym key: %w", err)
	}
	if err := checkCertificate(cfg); err != nil {
		return nil, nil, err
	}
	roots, err := loadRoots(cfg.TLS.CA)
	if err != nil {
		return nil, nil, err
	}
	var rules fs.FS = policies.FS
	if cfg.Policies != "" {
		rules = os.DirFS(cfg.Policies)
	}
	engine, err := policy.New(ctx, rules)
	if err != nil {
		return nil, nil, fmt.Errorf("policy: %w", err)
	}
	statements := envelope.NewStatementCache(envelope.Trust{Roots: roots, OrganisationID: envelope.SubjectOIN}, 4096)
	b := broker.New(broker.Config{
		OIN: disclosure.OIN(cfg.OIN), Ledger: f.log, Keyring: f.keyring, Policy: engine, Relay: relay,
		PolicyDigest: engine.Digest(), PolicyRevision: engine.Revision(), PermitKey: permitKey,
		Keys: disclosure.BrokerKeys{
			OIN: disclosure.OIN(cfg.OIN), Origin: cfg.Origin, LedgerKey: f.vkey, PermitKey: permitKey.PublicKey(),
			PseudonymKey: pseudonyms.PublicKey(), PseudonymVersion: pseudonyms.Version(), PseudonymBudget: cfg.PseudonymsPerDay,
		},
		Evaluate: func(blinded [][]byte) ([][]byte, []byte, error) {
			evaluation, err := pseudonyms.Evaluate(blinded)
			return evaluation.Elements, evaluation.Proof, err
		},
		VerifyStatement: func(signed []byte, now time.Time) (broker.Statement, error) {
			s, err := statements.Verify(signed, now)
			return broker.Statement{
				Organisation: disclosure.OIN(s.Organisation), SigningKey: s.SigningKey, NotAfter: s.NotAfter,
			}, err
		},
		SourceTimeout: cfg.SourceTimeout.Std(), Logger: logger,
	})
	return b, engine, nil
}

// checkCertificate refuses an OIN that is not that of the certificate: it would be published, and agents would believe neither.
func checkCertificate(cfg *config.Broker) error {
	certificate, err := tls.LoadX509KeyPair(cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	organisation, err := identity.OrganisationOf(certificate.Leaf)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", cfg.TLS.Cert, err)
	}
	if organisation.OIN != disclosure.OIN(cfg.OIN) {
		return fmt.Errorf("%w: oin is not that of the certificate, %s", config.ErrInvalid, organisation.OIN)
	}
	return nil
}

func loadRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: tls.ca holds no certificate", config.ErrInvalid)
	}
	return roots, nil
}
