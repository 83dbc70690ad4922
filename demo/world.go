package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
)

// organisation is one of the partners of the world.
type organisation struct {
	key     string // of its folder
	oin     disclosure.OIN
	name    string
	domains []disclosure.Domain
	source  string // configuration of its source
	fill    func(ctx context.Context, dir string, now time.Time) error
	people  []professional
}

// professional is someone who works there.
type professional struct {
	name    string
	roles   []disclosure.Role
	domains []disclosure.Domain
}

const (
	brokerOIN    disclosure.OIN = "00000001999999990001"
	gemeenteOIN  disclosure.OIN = "00000001999999990002"
	politieOIN   disclosure.OIN = "00000001999999990003"
	zorgOIN      disclosure.OIN = "00000001999999990004"
	probationOIN disclosure.OIN = "00000001999999990005"
	origin                      = "sluis.example/demo"
)

func organisations() []organisation {
	professionals := []disclosure.Role{disclosure.RoleProfessional}
	officer := []disclosure.Role{disclosure.RolePrivacyOfficer}
	return []organisation{
		{
			key: "gemeente", oin: gemeenteOIN, name: "Gemeente Hilversum (demo)", domains: []disclosure.Domain{"ME", "MB", "MS", "MW"},
			source: municipalitySource, fill: makeMunicipality,
			people: []professional{
				{"pga-expert", []disclosure.Role{disclosure.RolePGAExpert}, []disclosure.Domain{"ME"}},
				{"regisseur", []disclosure.Role{disclosure.RoleCaseDirector}, []disclosure.Domain{"ME"}},
				{"openbare-orde", professionals, []disclosure.Domain{"MB"}},
				{"klantmanager", professionals, []disclosure.Domain{"MW"}},
				{"fg", officer, []disclosure.Domain{"ME"}},
			},
		},
		{
			key: "politie", oin: politieOIN, name: "Politie (demo)", domains: []disclosure.Domain{"P"},
			source: policeSource, fill: makePolice,
			people: []professional{{"wijkagent", professionals, []disclosure.Domain{"P"}}, {"fg", officer, []disclosure.Domain{"P"}}},
		},
		{
			key: "zorg", oin: zorgOIN, name: "Zorgaanbieder De Brug (fictief)", domains: []disclosure.Domain{"CG"},
			source: careSource, fill: makeCare,
			people: []professional{{"behandelaar", professionals, []disclosure.Domain{"CG"}}},
		},
		{
			key: "reclassering", oin: probationOIN, name: "Reclassering (demo)", domains: []disclosure.Domain{"R"},
			source: probationSource, fill: makeProbation,
			people: []professional{{"toezichthouder", professionals, []disclosure.Domain{"R"}}},
		},
	}
}

// world is the broker and the partners on this machine, each with a folder of its own.
type world struct {
	bin, dir string
	address  string // of the broker
	vkey     string // of its ledger
	now      time.Time
	broker   *process
	agents   map[string]*process
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}
func (w *world) brokerBin() string { return filepath.Join(w.bin, "broker") }
func (w *world) agentBin() string  { return filepath.Join(w.bin, "agent") }

// build makes certificates, keys, configurations and sources.
func (w *world) build(ctx context.Context) error {
	authority, err := devca.New(w.path("ca"))
	if err != nil {
		return err
	}
	if err := authority.Issue(devca.Leaf{
		OIN: brokerOIN, Name: "Sluis (demo)", DNSNames: []string{"localhost", "127.0.0.1"}, Dir: w.path("broker-tls"),
	}); err != nil {
		return err
	}
	if w.address, err = freePort("127.0.0.1:7400"); err != nil {
		return err
	}
	out, err := must(ctx, w.brokerBin(), "init", "--dir", w.path("broker"), "--oin", string(brokerOIN), "--name", "Sluis (demo)",
		"--origin", origin, "--listen", w.address, "--tls", w.path("broker-tls"))
	if err != nil {
		return err
	}
	found := regexp.MustCompile(`ledger key: +(\S+)`).FindSubmatch(out)
	if found == nil {
		return errors.New("broker init printed no ledger key")
	}
	w.vkey = string(found[1])
	for _, o := range organisations() {
		if err := w.buildPartner(ctx, authority, o); err != nil {
			return fmt.Errorf("%s: %w", o.key, err)
		}
	}
	return nil
}

func (w *world) buildPartner(ctx context.Context, authority *devca.Authority, o organisation) error {
	if err := authority.Issue(devca.Leaf{
		OIN: o.oin, Name: o.name, DNSNames: []string{"localhost", "127.0.0.1"}, Dir: w.path(o.key, "tls"),
	}); err != nil {
		return err
	}
	issuer, err := devca.CreateIssuer(w.path(o.key, "issuer"), o.oin, devca.DefaultIssuerURL(o.oin))
	if err != nil {
		return err
	}
	for _, folder := range []string{"bron", "tokens", "state"} {
		if err := os.MkdirAll(w.path(o.key, folder), 0o700); err != nil {
			return err
		}
	}
	for _, p := range o.people {
		token, err := issuer.Token(devca.TokenClaims{
			Subject: p.name, Roles: p.roles, Domains: p.domains, Audience: origin, TTL: time.Hour,
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(w.path(o.key, "tokens", p.name), []byte(token), 0o600); err != nil {
			return err
		}
	}
	if err := o.fill(ctx, w.path(o.key, "bron"), w.now); err != nil {
		return err
	}
	domains := make([]string, len(o.domains))
	args := []string{
		"partner", "add", "--config", w.path("broker", "broker.yaml"), "--oin", string(o.oin), "--name", o.name,
		"--issuer", issuer.URL(), "--jwks", w.path(o.key, "issuer", devca.JWKSFile),
	}
	for i, d := range o.domains {
		domains[i] = string(d)
		args = append(args, "--domain", string(d))
	}
	if _, err := must(ctx, w.brokerBin(), args...); err != nil {
		return err
	}
	text := fmt.Sprintf(`# Configuration of the agent of %s.
oin: "%s"
name: %q
domains: [%s]
broker:
  address: %s
  oin: "%s"
  ledger_key: %q
tls: {cert: tls/%s, key: tls/%s, ca: tls/%s}
keys: {envelope: keys/envelope.key, signing: keys/signing.key}
state: state
test_bsn: true
sources:%s`, o.name, o.oin, o.name, strings.Join(domains, ", "), w.address, brokerOIN, w.vkey,
		devca.CertFile, devca.KeyFile, devca.CAFile, o.source)
	if err := os.WriteFile(w.config(o.key), []byte(text), 0o600); err != nil {
		return err
	}
	_, err = must(ctx, w.agentBin(), "init", "--config", w.config(o.key))
	return err
}

func (w *world) config(key string) string { return w.path(key, "agent.yaml") }

// startBroker starts the broker on a configuration.
func (w *world) startBroker(ctx context.Context, config string) error {
	var err error
	w.broker, err = start(ctx, "broker", w.path("broker", "broker.log"), "broker serving", w.brokerBin(), "serve", "--config", config)
	return err
}

func (w *world) startAgent(ctx context.Context, key string) error {
	var err error
	w.agents[key], err = start(ctx, key, w.path(key, "agent.log"), "connected to the broker", w.agentBin(), "serve", "--config", w.config(key))
	return err
}

// awaitAgents waits until every agent is connected to a broker that was started again.
func (w *world) restartBroker(ctx context.Context, config string) error {
	sizes := map[string]int64{}
	for key, agent := range w.agents {
		info, err := os.Stat(agent.log)
		if err != nil {
			return err
		}
		sizes[key] = info.Size()
	}
	if err := w.startBroker(ctx, config); err != nil {
		return err
	}
	for key, agent := range w.agents {
		if err := agent.await(ctx, "connected to the broker", sizes[key]); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) start(ctx context.Context) error {
	if err := w.startBroker(ctx, w.path("broker", "broker.yaml")); err != nil {
		return err
	}
	for _, o := range organisations() {
		if err := w.startAgent(ctx, o.key); err != nil {
			return err
		}
	}
	return nil
}

// stop stops everything; the first error tells what did not end well.
func (w *world) stop() error {
	var err error
	for _, agent := range w.agents {
		err = errors.Join(err, agent.stop())
	}
	if w.broker != nil {
		err = errors.Join(err, w.broker.stop())
	}
	return err
}
