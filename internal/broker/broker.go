// Package broker holds the use cases of the broker: mediating disclosures, keeping cases, grants and evidence, and letting the ledger be read.
//
// The order of a disclosure is fixed: identity, facts, policy, entry of the decision (durable), question to the source, entry of the outcome
// (durable), answer to the requester. Whatever goes wrong on the way, nothing that has not been written leaves the broker, and a permit is
// only ever written if the case, its grants and its evidence are still as the policy saw them.
//
// The broker is blind: no type in this package can hold a citizen service number or the content of an answer. It passes on ciphertext.
//
// A use case refuses with an error that wraps a disclosure.ReasonCode or disclosure.ErrMalformed. Any other error is a fault of the broker,
// whose text is for the log alone.
package broker

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// Policy decides. A denial is a decision; an error means that there is none.
type Policy interface {
	Decide(ctx context.Context, in disclosure.DecisionInput) (disclosure.Decision, error)
	Explain(ctx context.Context, in disclosure.DecisionInput) (disclosure.Explanation, error)
	// CheckGrant refuses a grant that could never carry a lawful disclosure.
	CheckGrant(c disclosure.Case, g disclosure.Grant) error
	// CheckEvidence refuses evidence that its recorder may not record, or that lacks what its kind asks for.
	CheckEvidence(e disclosure.Evidence, roles []disclosure.Role) error
}

// Relay asks a source over the stream that its agent holds open. An error means that nothing usable came back: it wraps ReasonSourceOffline,
// ReasonSourceTimeout or ReasonSourceFailed.
type Relay interface {
	Ask(ctx context.Context, source disclosure.Party, question disclosure.Question) (disclosure.Reply, error)
}

// Keyring makes the keys under which entries are sealed.
type Keyring interface {
	// Create makes a key if there is none of that name, durably.
	Create(id string) error
}

// Statement is what the broker needs of an organisation's verified key statement.
type Statement struct {
	Organisation disclosure.OIN
	SigningKey   ed25519.PublicKey
	NotAfter     time.Time
}

// Config is what a Broker is made of. Everything is required unless said otherwise.
type Config struct {
	OIN     disclosure.OIN // of the processor that runs the broker
	Ledger  *ledger.Log
	Keyring Keyring
	Policy  Policy
	Relay   Relay
	// PolicyDigest and PolicyRevision name what Policy decides by.
	PolicyDigest, PolicyRevision string
	// PermitKey signs permits (Ed25519).
	PermitKey crypto.Signer
	// Keys are published in the ledger when they are not there yet.
	Keys disclosure.BrokerKeys
	// Evaluate evaluates blinded elements with the pseudonym key.
	Evaluate func(blinded [][]byte) (elements [][]byte, proof []byte, err error)
	// VerifyStatement verifies a signed key statement.
	VerifyStatement func(signed []byte, now time.Time) (Statement, error)
	// SourceTimeout is how long a source may take to answer; default 10 s, less than the term of a permit.
	SourceTimeout time.Duration
	// AnswerTerm is how long a sealed answer is kept, in memory only, for a retry; default 10 minutes.
	AnswerTerm time.Duration
	// MaxAnswers bounds the bytes of the answers kept, with their receipts; default 256 MiB.
	MaxAnswers int
	Now        func() time.Time // default time.Now
	Logger     *slog.Logger     // default discards
}

// Broker carries out the use cases. Its methods are safe for concurrent use.
type Broker struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	view    *casefile.View
	answers *answers
	created sync.Map // key ids that are known to exist

	mu      sync.Mutex
	serving bool                  // between the two ends of Run; guarded by mu
	flights map[flightKey]*flight // disclosures under way; guarded by mu
	late    chan lateAnswer
	ready   chan struct{}  // closed by Run when what was left open is closed and the keys are published
	running sync.WaitGroup // the flights; added to under mu, while serving
}

// New returns a Broker. It starts nothing; see Run.
func New(cfg Config) *Broker {
	if cfg.SourceTimeout == 0 {
		cfg.SourceTimeout = 10 * time.Second
	}
	if cfg.AnswerTerm == 0 {
		cfg.AnswerTerm = 10 * time.Minute
	}
	if cfg.MaxAnswers == 0 {
		cfg.MaxAnswers = 256 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Broker{
		cfg: cfg, log: cfg.Logger, now: cfg.Now,
		view:    casefile.NewView(cfg.Ledger),
		answers: newAnswers(cfg.AnswerTerm, cfg.MaxAnswers),
		flights: map[flightKey]*flight{},
		late:    make(chan lateAnswer, 256),
		ready:   make(chan struct{}),
	}
}

// Run publishes the broker's keys and policy in the ledger, closes the disclosures that an earlier process left open, and then serves until
// ctx ends. Before and after that disclosures are refused. It returns when no disclosure is under way any more. The ledger must be running
// all the while.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("broker: start: %w", err)
	}
	b.serve(true)
	close(b.ready)
	landed := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { b.recordLate(context.WithoutCancel(ctx), landed) })
	group.Go(func() { b.answers.sweep(ctx, b.now) })
	<-ctx.Done()
	b.serve(false)
	b.running.Wait()
	close(landed)
	group.Wait()
	return nil
}

func (b *Broker) serve(serving bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serving = serving
}

// Ready is closed when Run has prepared the ledger and the broker can be called.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Healthy says why the broker cannot serve, if it cannot.
func (b *Broker) Healthy() error {
	select {
	case <-b.ready:
		return b.cfg.Ledger.Healthy()
	default:
		return errors.New("broker: starting")
	}
}

func (b *Broker) prepare(ctx context.Context) error {
	if err := b.publishKeys(ctx); err != nil {
		return err
	}
	if err := b.activatePolicy(ctx); err != nil {
		return err
	}
	return b.abandonAll(ctx)
}

// attempts is how often a use case reads again and tries again when the ledger says that what it read has changed.
const attempts = 8

// append writes an event. A nil error means that it is durable.
func (b *Broker) append(ctx context.Context, e disclosure.Event, expect ...ledger.Version) (disclosure.Receipt, error) {
	payload, prepared, err := casefile.Folder{}.Encode(&e)
	if err != nil {
		return disclosure.Receipt{}, fmt.Errorf("broker: encode event: %w", err)
	}
	if len(payload) > ledger.MaxPayload {
		return disclosure.Receipt{}, fmt.Errorf("%w: more than fits in an entry", disclosure.ErrMalformed)
	}
	keyID := b.keyID(e)
	if err := b.createKey(keyID); err != nil {
		return disclosure.Receipt{}, withReason(disclosure.ReasonLedgerUnavailable, refusal(err))
	}
	appended, err := b.cfg.Ledger.Append(ctx, ledger.Entry{KeyID: keyID, Payload: payload, Expect: expect, Prepared: prepared})
	if err != nil {
		return disclosure.Receipt{}, refusal(err)
	}
	return disclosure.Receipt{
		Index: appended.Index, Time: appended.Time, Leaf: appended.Leaf, Salt: appended.Salt, Payload: payload,
	}, nil
}

// keyID names the key under which an event is sealed: its case's, or that of the month for events of no case.
func (b *Broker) keyID(e disclosure.Event) string {
	if e.Case != "" {
		return "case/" + string(e.Case)
	}
	return "month/" + b.now().UTC().Format("2006-01")
}

func (b *Broker) createKey(id string) error {
	if _, ok := b.created.Load(id); ok {
		return nil
	}
	if err := b.cfg.Keyring.Create(id); err != nil {
		return err
	}
	b.created.Store(id, struct{}{})
	return nil
}

// refusal gives the errors of the ledger their reason codes.
func refusal(err error) error {
	var code disclosure.ReasonCode
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &code):
		return err
	case errors.Is(err, ledger.ErrConflict), errors.Is(err, casefile.ErrStale):
		return fmt.Errorf("%w: %w", disclosure.ReasonContention, err)
	case errors.Is(err, ledger.ErrOverloaded):
		return fmt.Errorf("%w: %w", disclosure.ReasonOverloaded, err)
	case errors.Is(err, ledger.ErrPoisoned), errors.Is(err, ledger.ErrFull), errors.Is(err, ledger.ErrStopped):
		return fmt.Errorf("%w: %w", disclosure.ReasonLedgerUnavailable, err)
	case errors.Is(err, ledger.ErrNotFound), errors.Is(err, ledger.ErrErased):
		return fmt.Errorf("%w: %w", disclosure.ReasonNotFound, err)
	}
	return err
}

// withReason gives an error a reason code, unless it has one.
func withReason(code disclosure.ReasonCode, err error) error {
	if _, ok := errors.AsType[disclosure.ReasonCode](err); ok {
		return err
	}
	return fmt.Errorf("%w: %w", code, err)
}

// again reports whether a use case should read and try again after err.
func again(err error) bool { return errors.Is(err, disclosure.ReasonContention) }

// retry runs do until it succeeds, fails for good, or has met too many changes.
func retry[T any](ctx context.Context, do func() (T, error)) (T, error) {
	for i := 1; ; i++ {
		value, err := do()
		if err == nil || !again(err) || i == attempts || ctx.Err() != nil {
			return value, err
		}
	}
}
