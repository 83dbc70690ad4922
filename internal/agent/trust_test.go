package agent_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"sluis/internal/agent"
	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

// sealer is an organisation's certificate in the hands of somebody who seals what he likes.
type sealer struct {
	key   crypto.Signer
	chain [][]byte
}

func (w *world) sealer(t *testing.T, p disclosure.Party) sealer {
	t.Helper()
	certificate, err := w.authority.Certificate(devca.Leaf{OIN: p.OIN, Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("key cannot sign")
	}
	return sealer{key: key, chain: certificate.Certificate}
}

func (s sealer) seal(
	t *testing.T, b *fakeBroker, to disclosure.Party, person envelope.Identity, binding envelope.IdentityContext,
) []byte {
	t.Helper()
	statement := b.statement(t, to.OIN)
	sealed, err := envelope.SealIdentity(statement.EnvelopeKey, binding, person, s.key, s.chain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// statement reads a published statement, trusting its own certificate.
func (b *fakeBroker) statement(t *testing.T, oin disclosure.OIN) envelope.Statement {
	t.Helper()
	s, err := envelope.VerifyStatement(b.statements[oin], envelope.Trust{Roots: b.roots}, b.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) signingKey(t *testing.T, p disclosure.Party) ed25519.PublicKey {
	t.Helper()
	return w.broker.statement(t, p.OIN).SigningKey
}

func TestTrustBroker(t *testing.T) {
	tests := []struct {
		name  string
		forge func(*disclosure.BrokerKeys)
	}{
		{"another broker", func(k *disclosure.BrokerKeys) { k.OIN = policeOIN }},
		{"another ledger key", func(k *disclosure.BrokerKeys) { k.LedgerKey = "x" }},
		{"another origin", func(k *disclosure.BrokerKeys) { k.Origin = "x" }},
		{"no permit key", func(k *disclosure.BrokerKeys) { k.PermitKey = nil }},
		{"no pseudonym key", func(k *disclosure.BrokerKeys) { k.PseudonymKey = nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.organisation(t, police())
			if err := a.TrustBroker(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.broker.forgeKeys = test.forge
			w.broker.publishKeys(t)
			if err := a.TrustBroker(t.Context()); !errors.Is(err, agent.ErrVerification) {
				t.Errorf("got %v, want ErrVerification", err)
			}
		})
	}
}

func TestTrustBrokerOtherEntry(t *testing.T) {
	w := newWorld(t)
	a := w.organisation(t, police())
	w.broker.keysAt = 1 // the statement of the police
	if err := a.TrustBroker(t.Context()); !errors.Is(err, agent.ErrVerification) {
		t.Errorf("got %v, want ErrVerification", err)
	}
}

// TestOldKeys: a broker cannot go back to keys that it has replaced.
func TestOldKeys(t *testing.T) {
	w := newWorld(t)
	a := w.organisation(t, police())
	old := w.broker.keysAt
	w.broker.publishKeys(t)
	if err := a.TrustBroker(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.broker.keysAt = old
	if err := a.TrustBroker(t.Context()); !errors.Is(err, agent.ErrVerification) {
		t.Errorf("got %v, want ErrVerification", err)
	}
}

// TestPermitKeyRenewed: when the broker has a new permit key, a source finds out by itself.
func TestPermitKeyRenewed(t *testing.T) {
	s := newScene(t)
	if _, err := s.probation.Request(t.Context(), inCase(caseA)); err != nil {
		t.Fatal(err)
	}
	var err error
	if _, s.broker.permitKey, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.broker.publishKeys(t)
	ask := inCase(caseA)
	ask.ID = requestID[:35] + "2"
	if _, err := s.probation.Request(t.Context(), ask); err == nil {
		t.Error("a permit by a key that is not known yet was accepted within the pause")
	}
	s.clock.advance(2 * time.Minute)
	ask.ID = requestID[:35] + "3"
	if _, err := s.probation.Request(t.Context(), ask); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

// TestSplitView: a ledger that is not the one seen before is noticed, also by the next run.
func TestSplitView(t *testing.T) {
	for _, restart := range []bool{false, true} {
		w := newWorld(t)
		var cfg agent.Config
		a := w.organisation(t, police(), func(c *agent.Config) { cfg = *c })
		if err := a.TrustBroker(t.Context()); err != nil {
			t.Fatal(err)
		}
		// The broker starts over with the same keys: entries are gone and others are there.
		w.broker.hashes, w.broker.entries = nil, nil
		for range 5 {
			w.broker.publishKeys(t)
		}
		if restart {
			var err error
			if a, err = agent.New(cfg); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.TrustBroker(t.Context()); !errors.Is(err, agent.ErrSplitView) || !errors.Is(err, agent.ErrVerification) {
			t.Errorf("restart %v: got %v, want ErrSplitView", restart, err)
		}
	}
}

// TestWatch: a growing ledger is fine, and one that starts over ends the watch, whatever its size.
func TestWatch(t *testing.T) {
	for _, size := range []int{1, 2, 3, 8} { // of the new ledger; the old one had 3
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a := w.organisation(t, police())
			for len(w.broker.entries) < 3 {
				if err := a.Watch(t.Context()); err != nil {
					t.Fatal(err)
				}
				w.broker.publishKeys(t)
			}
			if err := a.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.broker.hashes, w.broker.entries = nil, nil
			for range size {
				w.broker.publishKeys(t)
			}
			if err := a.KeepWatch(t.Context()); !errors.Is(err, agent.ErrSplitView) || !errors.Is(err, agent.ErrVerification) {
				t.Errorf("new ledger of %d entries: got %v, want ErrSplitView", size, err)
			}
		})
	}
}

// TestWatchBehind: an older checkpoint of the same ledger, once, is no reason to stop.
func TestWatchBehind(t *testing.T) {
	w := newWorld(t)
	a := w.organisation(t, police())
	w.broker.publishKeys(t)
	if err := a.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.broker.covered--
	if err := a.Watch(t.Context()); err == nil || errors.Is(err, agent.ErrVerification) {
		t.Errorf("got %v, want an error to try again after", err)
	}
}

func TestKeepWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.organisation(t, police())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.KeepWatch(ctx) }()
		time.Sleep(3 * watchPause) // of the bubble's clock
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

const watchPause = time.Minute

func TestForeignCheckpointFile(t *testing.T) {
	w := newWorld(t)
	var cfg agent.Config
	w.organisation(t, police(), func(c *agent.Config) { cfg = *c })
	if err := os.WriteFile(filepath.Join(cfg.State, "checkpoint"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.New(cfg); err == nil {
		t.Error("a checkpoint that nobody signed was believed")
	}
}

// TestPseudonymUnderAnotherKey: a broker that evaluates with another key for one agent is caught.
func TestPseudonymUnderAnotherKey(t *testing.T) {
	s := newScene(t)
	s.broker.oprf = newFakeBroker(t, s.clock).oprf
	if _, err := s.probation.Request(t.Context(), outsideCase(daan())); !errors.Is(err, agent.ErrVerification) {
		t.Errorf("got %v, want ErrVerification", err)
	}
}

// TestPseudonymsAreCached spares the budget of a source that is asked about the same person again.
func TestPseudonymsAreCached(t *testing.T) {
	s := newScene(t)
	for i := range 3 {
		ask := inCase(caseA)
		ask.ID = requestID[:35] + disclosure.RequestID(rune('1'+i))
		if _, err := s.probation.Request(t.Context(), ask); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.broker.evaluations, 2+1; got != want { // two cases opened, one person at the police
		t.Errorf("%d evaluations, want %d", got, want)
	}
}

func TestStatementKeptAndRenewed(t *testing.T) {
	w := newWorld(t)
	a := w.organisation(t, police())
	first := string(w.broker.statements[policeOIN])
	ensure := func(name string, renewed bool) {
		t.Helper()
		before := string(w.broker.statements[policeOIN])
		if err := a.EnsureStatement(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := string(w.broker.statements[policeOIN]) != before; got != renewed {
			t.Errorf("%s: renewed %v, want %v", name, got, renewed)
		}
	}
	ensure("at once", false)
	w.clock.advance(19 * 24 * time.Hour)
	ensure("after 19 days", false)
	w.clock.advance(2 * 24 * time.Hour)
	ensure("after 21 days", true)
	w.clock.advance(60 * 24 * time.Hour)
	ensure("a few days before the certificate ends", true)
	ensure("at once after that", false)
	w.broker.statements[policeOIN] = []byte(first)
	ensure("when an old one is shown", true)
	if life := w.broker.statement(t, policeOIN); life.NotAfter.Sub(life.NotBefore) > 10*24*time.Hour {
		t.Errorf("the statement outlives the certificate: %v", life.NotAfter)
	}
}

func TestKeepStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.organisation(t, police())
		delete(w.broker.statements, policeOIN)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.KeepStatement(ctx) }()
		synctest.Wait()
		w.broker.mu.Lock()
		published := len(w.broker.statements[policeOIN]) > 0
		w.broker.mu.Unlock()
		if !published {
			t.Error("not published at the start")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestOldStatement: the broker cannot make others seal to a key that an organisation has replaced.
func TestOldStatement(t *testing.T) {
	s := newScene(t)
	old := s.broker.statements[policeOIN]
	s.clock.advance(time.Second)
	s.organisation(t, police()) // other keys
	if _, err := s.probation.Request(t.Context(), outsideCase(daan())); err == nil {
		t.Log("answered by the old source, which cannot open it") // the source of the scene has the old keys
	}
	s.broker.statements[policeOIN] = old
	ask := outsideCase(daan())
	ask.ID = requestID[:35] + "2"
	if _, err := s.probation.Request(t.Context(), ask); errors.Is(err, agent.ErrVerification) {
		t.Errorf("within the overlap: %v", err)
	}
	s.clock.advance(5 * time.Minute)
	ask.ID = requestID[:35] + "3"
	if _, err := s.probation.Request(t.Context(), ask); !errors.Is(err, agent.ErrVerification) {
		t.Errorf("got %v, want ErrVerification", err)
	}
}

func TestAddParticipant(t *testing.T) {
	s := newScene(t)
	statements := maps.Clone(s.broker.statements)
	tests := []struct {
		name   string
		to     disclosure.Party
		person envelope.Identity
		keys   []byte // what the directory gives for the police
		want   error
	}{
		{"another person", police(), sanne(), statements[policeOIN], disclosure.ReasonIdentityMismatch},
		{
			"no number", police(),
			envelope.Identity{FamilyName: "V", BirthDate: "2007-03-05"},
			statements[policeOIN],
			disclosure.ReasonIdentityMissing,
		},
		{
			"number only, for who may not hold it", probation(),
			envelope.Identity{BSN: "999961007"},
			statements[policeOIN],
			disclosure.ReasonIdentityMissing,
		},
		{"keys of another organisation", police(), daan(), statements[probationOIN], agent.ErrVerification},
		{"no keys", police(), daan(), nil, disclosure.ReasonKeyStatementInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s.broker.statements[policeOIN] = test.keys
			if _, _, err := s.cases.AddParticipant(t.Context(), caseA, test.to, test.person); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestBSNMode(t *testing.T) {
	for _, test := range []struct {
		testMode bool
		bsn      string
		ok       bool
	}{{true, "999961007", true}, {true, "111222333", false}, {false, "999961007", false}, {false, "111222333", true}} {
		w := newWorld(t)
		cases := agent.NewCaseManager(w.organisation(t, municipality(), func(c *agent.Config) { c.TestBSN = test.testMode }), w.broker)
		person := daan()
		person.BSN = test.bsn
		opened, _, err := cases.OpenCase(t.Context(), agent.NewCase{Domain: "ME", Regime: disclosure.RegimeLPGA, Person: person})
		if test.ok != (err == nil) || !test.ok && !errors.Is(err, agent.ErrBSN) {
			t.Errorf("test mode %v: got %v", test.testMode, err)
		}
		if test.ok && opened.Facts.BirthMonth != "2007-03" {
			t.Errorf("birth month %q", opened.Facts.BirthMonth)
		}
	}
}
