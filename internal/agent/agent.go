package agent

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/pseudonym"
)

var (
	// ErrVerification says that something which came from outside did not hold: a signature, a proof, a receipt, or one
	// part of an answer against another. Nothing of it was used.
	ErrVerification = errors.New("verification failed")
	// ErrSplitView says that the ledger is not the one that was seen before: history was changed, or there are two. It
	// comes with [ErrVerification]. Both checkpoints are evidence; keep the state folder.
	ErrSplitView = errors.New("the ledger contradicts a checkpoint that it signed before")
	// ErrBSN says that a citizen service number is malformed, or of the wrong range: see Config.TestBSN.
	ErrBSN = errors.New("citizen service number not accepted")
	// ErrNotProven says that no checkpoint covered an entry in time. The same request may be tried again.
	ErrNotProven = errors.New("no checkpoint covers the entry yet")
)

// Directory is the part of the broker that tells who takes part and with which keys.
type Directory interface {
	BrokerKeys(ctx context.Context) (disclosure.Receipt, error)
	Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error)
	PublishStatement(ctx context.Context, signed []byte) (*disclosure.Receipt, error)
}

// Evaluator is the part of the broker that evaluates the OPRF.
type Evaluator interface {
	EvaluatePseudonyms(ctx context.Context, blinded [][]byte) (disclosure.Evaluation, error)
}

// Prover is the part of the broker that proves what is in its ledger. It fails while no checkpoint covers what is asked.
type Prover interface {
	InclusionProof(ctx context.Context, index uint64) (hashes [][]byte, checkpoint []byte, err error)
	ConsistencyProof(ctx context.Context, oldSize, newSize uint64) (hashes [][]byte, checkpoint []byte, err error)
}

// Config is what an agent is made of. All members are required unless they say otherwise.
type Config struct {
	OIN         disclosure.OIN
	Domains     []disclosure.Domain
	TLSKey      crypto.Signer // of the organisation's certificate: signs statements and identities
	Chain       [][]byte      // that certificate and its intermediates, DER
	EnvelopeKey *envelope.PrivateKey
	SigningKey  crypto.Signer  // Ed25519: signs manifests
	Trust       envelope.Trust // in other organisations

	BrokerOIN disclosure.OIN
	LedgerKey string // verifier key of the broker's ledger, pinned

	Directory Directory
	Evaluator Evaluator
	Prover    Prover

	// MayHoldBSN tells whether the law lets an organisation hold the BSN in that hat, as the catalogue has it.
	MayHoldBSN func(disclosure.Domain) bool
	// TestBSN accepts only citizen service numbers of the range 9999xxxxx, which nobody has; when false, that range is
	// what is refused.
	TestBSN bool
	State   string // folder
	// Proof is how long to wait for a checkpoint that covers an entry; 0 means 10 seconds.
	Proof time.Duration
	Now   func() time.Time
	Log   *slog.Logger
}

const (
	defaultProofWait = 10 * time.Second
	// maxCachedOrganisations bounds how many statements and certificate chains are remembered.
	maxCachedOrganisations = 1000
)

// Agent is what the use cases of one organisation share: who it is, whom it trusts and what it remembers. Safe for
// concurrent use.
type Agent struct {
	cfg        Config
	ledger     note.Verifier
	statements *envelope.StatementCache
	newest     newestStatements
	pseudonyms pseudonymCache

	keysMu sync.Mutex // guards keys; held while they are fetched, so that many callers fetch once
	keys   *brokerKeys

	seenMu sync.Mutex // guards seen and the checkpoint file; held while a checkpoint is compared, so that many do that once
	seen   tlog.Tree  // the largest tree that was verified; N is 0 before the first

	witnessedMu sync.Mutex           // guards witnessed; seenMu, if needed, is taken before
	witnessed   map[string]tlog.Tree // by its text, some checkpoints that were verified and are consistent with seen
}

// brokerKeys is what the entry BROKER_KEYS says.
type brokerKeys struct {
	permit     ed25519.PublicKey
	pseudonyms *pseudonym.Client
	index      uint64
	fetched    time.Time
}

// New makes an agent, and its state folder where there is none. It does not call the broker.
func New(cfg Config) (*Agent, error) {
	ledger, err := note.NewVerifier(cfg.LedgerKey)
	if err != nil {
		return nil, errors.New("agent: the ledger's key is not a verifier key (c2sp.org/signed-note)")
	}
	if cfg.Proof == 0 {
		cfg.Proof = defaultProofWait
	}
	for _, folder := range []string{receiptsFolder, pendingFolder} {
		if err := os.MkdirAll(filepath.Join(cfg.State, folder), 0o700); err != nil {
			return nil, fmt.Errorf("agent: state folder: %w", err)
		}
	}
	cfg.Trust = cfg.Trust.Remembering(maxCachedOrganisations)
	a := &Agent{
		cfg:        cfg,
		ledger:     ledger,
		statements: envelope.NewStatementCache(cfg.Trust, maxCachedOrganisations),
		witnessed:  map[string]tlog.Tree{},
		newest:     newestStatements{byOrganisation: map[disclosure.OIN]newestStatement{}},
		pseudonyms: pseudonymCache{size: maxCachedPseudonyms, known: map[pseudonym.BSN]disclosure.Pseudonym{}},
	}
	if err := a.loadCheckpoint(); err != nil {
		return nil, err
	}
	return a, a.dropPending()
}

// OIN is the organisation that the agent speaks for.
func (a *Agent) OIN() disclosure.OIN { return a.cfg.OIN }

func (a *Agent) wears(hat disclosure.Domain) bool { return slices.Contains(a.cfg.Domains, hat) }

// TrustBroker fetches the broker's keys, proves that they are in the ledger and uses them from then on. The use cases
// call it by themselves; a program may call it at its start, to find out early. Errors wrap [ErrVerification] or are the
// broker's.
func (a *Agent) TrustBroker(ctx context.Context) error {
	a.keysMu.Lock()
	defer a.keysMu.Unlock()
	return a.fetchKeys(ctx)
}

// fetchKeys expects keysMu to be held.
func (a *Agent) fetchKeys(ctx context.Context) error {
	r, err := a.cfg.Directory.BrokerKeys(ctx)
	if err != nil {
		return fmt.Errorf("get the broker's keys: %w", err)
	}
	event, err := openEvent(r)
	if err != nil {
		return fmt.Errorf("broker's keys: %w", err)
	}
	if _, err := a.prove(ctx, r); err != nil {
		return fmt.Errorf("broker's keys: %w", err)
	}
	published := event.BrokerKeys
	if event.Kind != disclosure.KindBrokerKeys || published.OIN != a.cfg.BrokerOIN ||
		published.LedgerKey != a.cfg.LedgerKey || published.Origin != a.ledger.Name() ||
		len(published.PermitKey) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: the entry with the broker's keys is not about this broker", ErrVerification)
	}
	// An older entry still proves true: without this, a broker could go back to keys that it has replaced.
	if a.keys != nil && r.Index < a.keys.index {
		return fmt.Errorf("%w: the broker shows keys older than those it showed before", ErrVerification)
	}
	client, err := pseudonym.NewClient(published.PseudonymKey, published.PseudonymVersion)
	if err != nil {
		return fmt.Errorf("%w: the broker's pseudonym key", ErrVerification)
	}
	a.keys = &brokerKeys{permit: published.PermitKey, pseudonyms: client, index: r.Index, fetched: a.cfg.Now()}
	return nil
}

// brokerKeys gives the broker's keys, fetched at the first call.
func (a *Agent) brokerKeys(ctx context.Context) (*brokerKeys, error) {
	a.keysMu.Lock()
	defer a.keysMu.Unlock()
	if a.keys == nil {
		if err := a.fetchKeys(ctx); err != nil {
			return nil, err
		}
	}
	return a.keys, nil
}

// keysPause is how long at least between two fetches of keys because of a signature that did not hold: forged permits
// must not become a stream of look-ups.
const keysPause = time.Minute

// renewedKeys gives the keys after those that did not fit, if the broker may have replaced them since.
func (a *Agent) renewedKeys(ctx context.Context, old *brokerKeys) (*brokerKeys, bool) {
	a.keysMu.Lock()
	defer a.keysMu.Unlock()
	if a.keys == old {
		if a.cfg.Now().Sub(old.fetched) < keysPause {
			return nil, false
		}
		old.fetched = a.cfg.Now()
		if err := a.fetchKeys(ctx); err != nil {
			a.cfg.Log.WarnContext(ctx, "could not renew the broker's keys", slog.Any("error", err))
			return nil, false
		}
	}
	return a.keys, true
}
