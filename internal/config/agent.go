package config

import (
	"fmt"
	"net"
	"slices"
)

// Agent is the configuration of an organisation's agent.
type Agent struct {
	// The organisation's OIN, as in its certificate. Required.
	OIN string `yaml:"oin"`
	// The organisation's name. Required.
	Name string `yaml:"name"`
	// The hats of the organisation that this agent speaks for, codes of the catalogue such as ME or P; 1 to 20. Required.
	Domains []string `yaml:"domains"`
	// The broker. Required.
	Broker BrokerAddress `yaml:"broker"`
	// The organisation's certificate. Required.
	TLS TLS `yaml:"tls"`
	// The organisation's other keys; "agent init" makes them. Required.
	Keys AgentKeys `yaml:"keys"`
	// The signed-in person, for the commands that people give.
	Token Token `yaml:"token,omitempty"`
	// Folder for what the agent must remember: permits it has answered, receipts, the last checkpoint. Required.
	State string `yaml:"state"`
	// Where the data are that others may ask for: at most one source for each hat. Empty: the agent only asks.
	Sources []Source `yaml:"sources,omitempty"`
	// The organisation's own rules about what it releases, beside the law. The first rule that fits decides, per
	// category; where none fits, what the permit allows is released.
	HouseRules []HouseRule `yaml:"house_rules,omitempty"`
	// Folder of the policy, which must be the broker's: it says which hats may hold a citizen service number and which
	// fields there are. Empty: the one built in.
	Policies string `yaml:"policies,omitempty"`
	// Accept only citizen service numbers of the range 9999xxxxx, which nobody has: for demonstrations and tests. When
	// false, that range is what is refused. Default false.
	TestBSN bool `yaml:"test_bsn,omitempty"`
	// How to log.
	Log Log `yaml:"log"`
}

// BrokerAddress says where the broker is and how to know it.
type BrokerAddress struct {
	// Address of its gRPC, host:port. Required.
	Address string `yaml:"address"`
	// Name in its certificate. Default: the host of the address.
	ServerName string `yaml:"server_name"`
	// Its OIN, which its certificate must state. Required.
	OIN string `yaml:"oin"`
	// Verifier key of its ledger, name+hash+base64 (c2sp.org/signed-note). Everything else that the agent believes of
	// the broker follows from this key, so get it from a person and not from the broker. Required.
	LedgerKey string `yaml:"ledger_key"`
}

// AgentKeys names the files of an agent's keys, each readable by the agent's user only.
type AgentKeys struct {
	// HPKE key that identities and answers are sealed to.
	Envelope string `yaml:"envelope"`
	// Ed25519 key that manifests are signed with.
	Signing string `yaml:"signing"`
}

// Token says where the ID token (OpenID Connect) of the signed-in person is.
type Token struct {
	// File that holds the token and nothing else. The flag --token-file takes precedence.
	File string `yaml:"file,omitempty"`
}

// HouseRule is one rule of the organisation about what it releases. An empty list fits everything.
type HouseRule struct {
	// Purposes that it is about.
	Purposes []string `yaml:"purposes,omitempty"`
	// Hats of the requester that it is about.
	RequesterDomains []string `yaml:"requester_domains,omitempty"`
	// Categories that it is about.
	Categories []string `yaml:"categories,omitempty"`
	// "automatic": release what the permit allows; "never": withhold it. Required.
	Action string `yaml:"action"`
}

const maxDomains = 20

// LoadAgent reads an agent's configuration from a file. Its errors about the content wrap [ErrInvalid]; each part of
// them is a [Fault].
func LoadAgent(path string) (*Agent, error) {
	a := new(Agent)
	if err := load(path, a); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Agent) setDefaults() {
	host, _, _ := net.SplitHostPort(a.Broker.Address)
	setDefault(&a.Broker.ServerName, host)
	a.Log.setDefaults()
	for i := range a.Sources {
		a.Sources[i].setDefaults()
	}
}

func (a *Agent) resolve(folder string) {
	resolvePaths(folder, &a.TLS.Cert, &a.TLS.Key, &a.TLS.CA, &a.Keys.Envelope, &a.Keys.Signing, &a.Token.File,
		&a.State, &a.Policies)
	for i := range a.Sources {
		a.Sources[i].resolve(folder)
	}
}

// Validate checks the values, without looking at any file. It gives all faults, joined, or nil.
func (a *Agent) Validate() error { return joined(a.faults()) }

func (a *Agent) faults() faults {
	var f faults
	f.oin("oin", a.OIN)
	f.required("name", a.Name)
	f.check(len(a.Domains) >= 1 && len(a.Domains) <= maxDomains, "domains", "must list 1 to 20 domains")
	f.codes("domains", a.Domains)
	f.address("broker.address", a.Broker.Address)
	f.oin("broker.oin", a.Broker.OIN)
	f.ledgerKey("broker.ledger_key", a.Broker.LedgerKey)
	f.tls(a.TLS)
	f.required("keys.envelope", a.Keys.Envelope)
	f.required("keys.signing", a.Keys.Signing)
	f.required("state", a.State)
	for i, s := range a.Sources {
		key := fmt.Sprintf("sources[%d]", i)
		f.check(slices.Contains(a.Domains, s.Domain), key+".domain", "must be one of the domains of this agent")
		f.check(slices.IndexFunc(a.Sources, func(o Source) bool { return o.Domain == s.Domain }) == i, key+".domain",
			"has a source already")
		s.validate(&f, key)
	}
	for i, rule := range a.HouseRules {
		key := fmt.Sprintf("house_rules[%d]", i)
		f.codes(key+".purposes", rule.Purposes)
		f.codes(key+".requester_domains", rule.RequesterDomains)
		f.codes(key+".categories", rule.Categories)
		f.oneOf(key+".action", rule.Action, "automatic", "never")
	}
	f.log(a.Log)
	return f
}

// CheckFiles checks that the files named exist, and that those of keys are for their owner alone. The state folder need
// not exist yet.
func (a *Agent) CheckFiles() error {
	public := map[string]string{"tls.cert": a.TLS.Cert, "tls.ca": a.TLS.CA}
	if a.Policies != "" {
		public["policies"] = a.Policies
	}
	secret := map[string]string{
		"tls.key": a.TLS.Key, "keys.envelope": a.Keys.Envelope, "keys.signing": a.Keys.Signing,
	}
	if a.Token.File != "" {
		secret["token.file"] = a.Token.File
	}
	for i, s := range a.Sources {
		public[fmt.Sprintf("sources[%d].path", i)] = s.Path
	}
	return checkFiles(public, secret)
}

// Redacted gives the effective configuration in YAML, to show. It holds paths of secrets, no secrets.
func (a *Agent) Redacted() string { return redacted(a) }
