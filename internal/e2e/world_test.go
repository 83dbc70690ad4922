//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sluis/internal/agent"
	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/rpc"
)

const (
	brokerOIN       disclosure.OIN = "00000001234567000001"
	municipalityOIN disclosure.OIN = "00000001234567000002"
	policeOIN       disclosure.OIN = "00000001234567000003"
	probationOIN    disclosure.OIN = "00000001234567000004"
	careOIN         disclosure.OIN = "00000001234567000005"

	origin = "sluis.example/e2e"
)

// The parties of the tests.
func municipality() disclosure.Party { return disclosure.Party{OIN: municipalityOIN, Domain: "ME"} }
func police() disclosure.Party       { return disclosure.Party{OIN: policeOIN, Domain: "P"} }
func probation() disclosure.Party    { return disclosure.Party{OIN: probationOIN, Domain: "R"} }
func care() disclosure.Party         { return disclosure.Party{OIN: careOIN, Domain: "CG"} }

// mayHoldBSN is what domains.yaml of the catalogue says about the hats of the tests.
func mayHoldBSN(hat disclosure.Domain) bool { return hat == "ME" || hat == "MB" || hat == "P" }

// organisation is a partner: what it is and what it holds, without anything that runs.
type organisation struct {
	oin      disclosure.OIN
	name     string
	domains  []disclosure.Domain
	tls      string // folder
	issuer   *devca.Issuer
	envelope *envelope.PrivateKey
	signing  ed25519.PrivateKey
}

// template is what every world begins with.
type template struct {
	dir       string // with the folders broker and broker-tls
	sources   string
	vkey      string
	authority *devca.Authority
	partners  map[disclosure.OIN]*organisation
}

func makeTemplate(suiteDir string) (*template, error) {
	t := &template{
		dir: filepath.Join(suiteDir, "template"), sources: filepath.Join(suiteDir, "sources"),
		partners: map[disclosure.OIN]*organisation{},
	}
	if err := os.MkdirAll(t.sources, 0o700); err != nil {
		return nil, err
	}
	if err := makeSources(t.sources); err != nil {
		return nil, err
	}
	var err error
	if t.authority, err = devca.NewInMemory(); err != nil {
		return nil, err
	}
	if err := t.authority.Issue(devca.Leaf{OIN: brokerOIN, Name: "Sluis", Dir: filepath.Join(t.dir, "broker-tls")}); err != nil {
		return nil, err
	}
	broker := filepath.Join(t.dir, "broker")
	out, err := mustCommand(context.Background(), "init", "--dir", broker, "--oin", string(brokerOIN), "--name", "Sluis",
		"--origin", origin, "--tls", filepath.Join(t.dir, "broker-tls"))
	if err != nil {
		return nil, err
	}
	found := regexp.MustCompile(`ledger key: +(\S+)`).FindStringSubmatch(out)
	if found == nil {
		return nil, errors.New("broker init printed no ledger key")
	}
	t.vkey = found[1]
	for _, o := range []organisation{
		{oin: municipalityOIN, name: "Gemeente", domains: []disclosure.Domain{"ME", "MB"}},
		{oin: policeOIN, name: "Politie", domains: []disclosure.Domain{"P"}},
		{oin: probationOIN, name: "Reclassering", domains: []disclosure.Domain{"R"}},
		{oin: careOIN, name: "Zorgaanbieder", domains: []disclosure.Domain{"CG"}},
	} {
		if err := t.addPartner(suiteDir, filepath.Join(broker, "broker.yaml"), o); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *template) addPartner(suiteDir, config string, o organisation) error {
	o.tls = filepath.Join(suiteDir, "tls-"+string(o.oin))
	if err := t.authority.Issue(devca.Leaf{OIN: o.oin, Name: o.name, Dir: o.tls}); err != nil {
		return err
	}
	issuerDir := filepath.Join(suiteDir, "issuer-"+string(o.oin))
	var err error
	if o.issuer, err = devca.CreateIssuer(issuerDir, o.oin, ""); err != nil {
		return err
	}
	if o.envelope, err = envelope.GenerateKey(envelope.SuiteHybrid); err != nil {
		return err
	}
	if _, o.signing, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return err
	}
	args := []string{
		"partner", "add", "--config", config, "--oin", string(o.oin), "--name", o.name,
		"--issuer", o.issuer.URL(), "--jwks", filepath.Join(issuerDir, devca.JWKSFile),
	}
	for _, d := range o.domains {
		args = append(args, "--domain", string(d))
	}
	if _, err := mustCommand(context.Background(), args...); err != nil {
		return err
	}
	t.partners[o.oin] = &o
	return nil
}

// world is a broker of a test's own, and the agents that call it.
type world struct {
	*template
	t       *testing.T
	dir     string // with the folders broker and broker-tls, and the broker's log
	address string
	binary  string
	env     []string // of the broker, beside the test's own

	mu      sync.Mutex // guards process: crashes come from many goroutines
	process *process

	agents  map[disclosure.OIN]*agent.Agent
	clients map[person]*rpc.Client
}

// newWorld makes a world whose broker does not run yet.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		template: suite.template, t: t, dir: t.TempDir(), address: freeAddress(t), binary: suite.broker,
		agents: map[disclosure.OIN]*agent.Agent{}, clients: map[person]*rpc.Client{},
	}
	copyFolder(t, filepath.Join(w.template.dir, "broker"), w.broker())
	copyFolder(t, filepath.Join(w.template.dir, "broker-tls"), filepath.Join(w.dir, "broker-tls"))
	w.configure("listen", w.address)
	w.configure("source_timeout", "5s")
	w.configure("checkpoint_interval", "100ms")
	t.Cleanup(func() {
		p := w.running()
		if t.Failed() && p != nil {
			t.Logf("the broker's log:\n%s", tail(p.said()))
		}
		if p != nil && !p.ended() {
			p.kill()
			<-p.done
		}
		log, err := os.ReadFile(w.log())
		if err == nil && bytes.Contains(log, []byte("DATA RACE")) {
			t.Errorf("a data race in the broker:\n%s", tail(string(log[bytes.Index(log, []byte("DATA RACE")):])))
		}
	})
	return w
}

// fork makes a world with a copy of this one's broker, which must not be running, and agents that have seen nothing yet.
func (w *world) fork(t *testing.T) *world {
	t.Helper()
	other := newWorld(t)
	if err := os.RemoveAll(other.broker()); err != nil {
		t.Fatal(err)
	}
	copyFolder(t, w.broker(), other.broker())
	other.configure("listen", other.address)
	return other
}

// broker is the folder of the broker.
func (w *world) broker(parts ...string) string {
	return filepath.Join(append([]string{w.dir, "broker"}, parts...)...)
}

func (w *world) config() string { return w.broker("broker.yaml") }
func (w *world) log() string    { return filepath.Join(w.dir, "broker.log") }

// configure sets one member of the broker's configuration; an empty value removes it.
func (w *world) configure(key, value string) {
	w.t.Helper()
	content, err := os.ReadFile(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, key+":") {
			lines = append(lines, line)
		}
	}
	if value != "" {
		lines = append(lines, key+": "+value+"\n")
	}
	if err := os.WriteFile(w.config(), []byte(strings.Join(lines, "")), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) running() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.process
}

// start starts the broker, or starts it again, and waits until it serves.
func (w *world) start() *process {
	w.t.Helper()
	p := w.launch()
	if err := p.awaitReady(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// launch starts the broker without waiting.
func (w *world) launch() *process {
	w.t.Helper()
	p, err := launch(w.binary, w.config(), w.log(), w.env...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process = p
	return p
}

// stop stops the broker, which has to end well.
func (w *world) stop() {
	w.t.Helper()
	if status := w.running().stop(w.t); status != 0 {
		w.t.Fatalf("broker stopped with status %d, want 0:\n%s", status, tail(w.running().said()))
	}
}

// refusesToStart checks that the broker does not serve, ends with a status, and says why.
func (w *world) refusesToStart(status int, why ...string) {
	w.t.Helper()
	p := w.launch()
	if err := p.awaitReady(w.t.Context()); err == nil {
		w.t.Errorf("the broker serves, want it to refuse: %q", why)
		p.stop(w.t)
		return
	}
	if !p.ended() {
		p.kill()
		<-p.done
	}
	said := p.said()
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		w.t.Errorf("broker ended with status %d, want %d:\n%s", got, status, tail(said))
	}
	for _, text := range why {
		if !strings.Contains(said, text) {
			w.t.Errorf("the broker does not say %q, but:\n%s", text, tail(said))
		}
	}
	if strings.Contains(said, "panic") || strings.Contains(said, "goroutine ") {
		w.t.Errorf("the broker broke down instead of refusing:\n%s", tail(said))
	}
}

// verify runs "broker verify" on a broker's folder.
func verify(t *testing.T, config string) ended {
	t.Helper()
	e, err := command(t.Context(), "verify", "--config", config, "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// mustVerify stops at a ledger that does not verify.
func (w *world) mustVerify() {
	w.t.Helper()
	if e := verify(w.t, w.config()); e.status != 0 {
		w.t.Fatalf("broker verify ended with status %d, want 0: %s", e.status, e.err)
	}
}

// person is someone who works at an organisation.
type person struct {
	oin  disclosure.OIN
	name string
	role disclosure.Role
	hat  disclosure.Domain
}

// The people of the tests.
func expert() person { return person{municipalityOIN, "expert", disclosure.RolePGAExpert, "ME"} }

func director() person { return person{municipalityOIN, "director", disclosure.RoleCaseDirector, "ME"} }

func orderOfficer() person {
	return person{municipalityOIN, "order", disclosure.RoleProfessional, "MB"}
}

func policeman() person { return person{policeOIN, "policeman", disclosure.RoleProfessional, "P"} }

func supervisor() person { return person{probationOIN, "supervisor", disclosure.RoleProfessional, "R"} }

func therapist() person { return person{careOIN, "therapist", disclosure.RoleProfessional, "CG"} }

func officer(oin disclosure.OIN, hat disclosure.Domain) person {
	return person{oin, "officer", disclosure.RolePrivacyOfficer, hat}
}

// token signs a token for a person.
func (t *template) token(p person, ttl time.Duration) (string, error) {
	return t.partners[p.oin].issuer.Token(devca.TokenClaims{
		Subject: p.name, Roles: []disclosure.Role{p.role}, Domains: []disclosure.Domain{p.hat}, Audience: origin, TTL: ttl,
	})
}

// clientTLS is how an organisation with its certificate in a folder connects.
func clientTLS(folder string) (*tls.Config, error) {
	return identity.ClientTLS(identity.TLSConfig{
		CertFile: filepath.Join(folder, devca.CertFile), KeyFile: filepath.Join(folder, devca.KeyFile),
		CAFile: filepath.Join(folder, devca.CAFile), ServerName: "localhost", ServerOIN: brokerOIN,
	})
}

// The agents of the tests come back at once: brokers are away for moments only.
const (
	backoffBase = 10 * time.Millisecond
	backoffMax  = 100 * time.Millisecond
)

// dial connects an organisation, for a person if that has a name.
func (w *world) dial(p person, log *slog.Logger) *rpc.Client {
	w.t.Helper()
	config, err := clientTLS(w.partners[p.oin].tls)
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := rpc.ClientConfig{Target: w.address, TLS: config, Logger: log, BackoffBase: backoffBase, BackoffMax: backoffMax}
	if p.name != "" {
		cfg.Token = w.tokens(p)
	}
	client, err := rpc.Dial(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	return client
}

// tokens gives one token again and again, and another one in time.
func (w *world) tokens(p person) func(context.Context) (string, error) {
	const term, ahead = 15 * time.Minute, 10 * time.Minute
	var mu sync.Mutex // guards token and until
	var token string
	var until time.Time
	return func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.After(until) {
			var err error
			if token, err = w.token(p, term); err != nil {
				return "", err
			}
			until = now.Add(term - ahead)
		}
		return token, nil
	}
}

// client is the connection of a person. Tests share it.
func (w *world) client(p person) *rpc.Client {
	w.t.Helper()
	if c, ok := w.clients[p]; ok {
		return c
	}
	w.clients[p] = w.dial(p, nil)
	return w.clients[p]
}

func organisationID(cert *x509.Certificate) (string, error) {
	o, err := identity.OrganisationOf(cert)
	return string(o.OIN), err
}

// agent is the agent of an organisation, with its key statement published.
func (w *world) agent(oin disclosure.OIN) *agent.Agent {
	w.t.Helper()
	if a, ok := w.agents[oin]; ok {
		return a
	}
	o, client := w.partners[oin], w.client(person{oin: oin})
	key, chain := w.tlsKey(oin)
	a, err := agent.New(agent.Config{
		OIN: oin, Domains: o.domains, TLSKey: key, Chain: chain, EnvelopeKey: o.envelope, SigningKey: o.signing,
		Trust:     envelope.Trust{Roots: w.authority.Pool(), OrganisationID: organisationID},
		BrokerOIN: brokerOIN, LedgerKey: w.vkey, Directory: client, Evaluator: client, Prover: client,
		MayHoldBSN: mayHoldBSN, TestBSN: true, State: w.state(oin), Proof: patience, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := a.EnsureStatement(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.agents[oin] = a
	return a
}

// tlsKey is the key of an organisation's certificate, and that certificate.
func (w *world) tlsKey(oin disclosure.OIN) (key crypto.Signer, chain [][]byte) {
	w.t.Helper()
	folder := w.partners[oin].tls
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, devca.CertFile), filepath.Join(folder, devca.KeyFile))
	if err != nil {
		w.t.Fatal(err)
	}
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		w.t.Fatal("key of the certificate cannot sign")
	}
	return key, certificate.Certificate
}

// state is the state folder of an organisation's agent.
func (w *world) state(oin disclosure.OIN) string { return filepath.Join(w.dir, "state-"+string(oin)) }

// requester lets a person ask.
func (w *world) requester(p person) *agent.Requester {
	w.t.Helper()
	return agent.NewRequester(w.agent(p.oin), w.client(p))
}

// exitNotVerified is the status with which the broker says that something is not as it was written.
const exitNotVerified = 5

// must fails the test on an error.
func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// reasonOf is the reason code of an error, empty where it has none.
func reasonOf(err error) disclosure.ReasonCode {
	var code disclosure.ReasonCode
	errors.As(err, &code)
	return code
}

// wantReason checks why a call failed.
func wantReason(t *testing.T, what string, err error, want disclosure.ReasonCode) {
	t.Helper()
	if got := reasonOf(err); err == nil || got != want {
		t.Errorf("%s: error %v, want %s", what, err, want)
	}
}
