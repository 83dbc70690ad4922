package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/keys"
	"sluis/internal/source"
)

func (a *app) initCommand() *cobra.Command {
	var dir, suite string
	var n newConfig
	c := &cobra.Command{
		Use:   "init",
		Short: "Make the keys of a new agent, and with --dir its configuration",
		Long: "Makes the envelope key (HPKE) and the signing key (Ed25519), each in a file that only its owner can read. With --dir it makes a folder\n" +
			"with a configuration first; without, it makes the keys that the configuration names. Nothing that exists is overwritten.",
		Example: "  agent init --dir police --oin 00000001000000000003 --name 'Politie (demo)' --domain P \\\n" +
			"    --broker broker.example:7400 --broker-oin 00000001000000000001 --ledger-key 'sluis.example/2026+...' --tls certs/police\n" +
			"  agent init -c police/agent.yaml",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			kind, err := envelope.ParseSuite(suite)
			if err != nil {
				return usage("--suite must be %s or %s", envelope.SuiteHybrid, envelope.SuiteX25519)
			}
			path := a.configPath
			if dir != "" {
				if c.Flags().Changed("config") {
					return usage("give --dir, to make a configuration, or --config, to use one")
				}
				path = filepath.Join(dir, "agent.yaml")
				if err := n.write(dir, path); err != nil {
					return err
				}
			}
			cfg, err := config.LoadAgent(path)
			if err != nil {
				return err
			}
			envelopeID, signingID, err := makeKeys(cfg, kind)
			if err != nil {
				return err
			}
			return a.print(map[string]string{"config": path, "envelope_key": envelopeID, "signing_key": signingID}, func(t *table) {
				t.row(label{"Configuration", "Configuratie"}, path)
				t.row(label{"Envelope key", "Envelopsleutel"}, envelopeID)
				t.row(label{"Signing key", "Ondertekensleutel"}, signingID)
			})
		},
	}
	flags := c.Flags()
	flags.StringVar(&dir, "dir", "", "folder to make with a configuration")
	flags.StringVar(&suite, "suite", envelope.SuiteHybrid.String(), "kind of envelope key: "+envelope.SuiteHybrid.String()+" or "+envelope.SuiteX25519.String())
	flags.StringVar(&n.oin, "oin", "", "with --dir: OIN of the organisation")
	flags.StringVar(&n.name, "name", "", "with --dir: name of the organisation")
	flags.StringSliceVar(&n.domains, "domain", nil, "with --dir: hat of the organisation; may be repeated")
	flags.StringVar(&n.broker, "broker", "", "with --dir: address of the broker, host:port")
	flags.StringVar(&n.brokerOIN, "broker-oin", "", "with --dir: OIN of the broker")
	flags.StringVar(&n.ledgerKey, "ledger-key", "", "with --dir: verifier key of the broker's ledger")
	flags.StringVar(&n.tls, "tls", "", "with --dir: folder with the organisation's cert.pem, key.pem and ca.pem")
	flags.BoolVar(&n.testBSN, "test-bsn", false, "with --dir: accept only citizen service numbers 9999xxxxx, which nobody has")
	return c
}

// newConfig is what a new configuration is made from.
type newConfig struct {
	oin, name, broker, brokerOIN, ledgerKey, tls string
	domains                                      []string
	testBSN                                      bool
}

const configTemplate = `# Configuration of a Sluis agent. Paths are relative to this file. "agent config check" prints it with its defaults.
oin: $oin
name: $name
domains: [$domains]
broker:
  address: $broker
  oin: $brokerOIN
  ledger_key: $ledgerKey
tls:
  cert: $tls/cert.pem
  key: $tls/key.pem
  ca: $tls/ca.pem
keys:
  envelope: keys/envelope.key
  signing: keys/signing.key
state: state
test_bsn: $testBSN
`

// write makes the folders and the configuration.
func (n newConfig) write(dir, path string) error {
	for flag, value := range map[string]string{
		"oin": n.oin, "name": n.name, "domain": strings.Join(n.domains, ""), "broker": n.broker, "broker-oin": n.brokerOIN,
		"ledger-key": n.ledgerKey, "tls": n.tls,
	} {
		if value == "" {
			return usage("--dir also needs --%s", flag)
		}
	}
	for _, folder := range []string{dir, filepath.Join(dir, "keys"), filepath.Join(dir, "state")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return err
		}
	}
	text := strings.NewReplacer(
		"$oin", quote(n.oin), "$name", quote(n.name), "$domains", strings.Join(n.domains, ", "), "$brokerOIN", quote(n.brokerOIN),
		"$broker", quote(n.broker), "$ledgerKey", quote(n.ledgerKey), "$tls", relative(dir, n.tls), "$testBSN", fmt.Sprint(n.testBSN),
	).Replace(configTemplate)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

// relative gives path as seen from dir, if it can be.
func relative(dir, path string) string {
	from, fromErr := filepath.Abs(dir)
	to, toErr := filepath.Abs(path)
	seen, err := filepath.Rel(from, to)
	if errors.Join(fromErr, toErr, err) != nil {
		return path
	}
	return seen
}

// makeKeys makes the keys that a configuration names, and gives their names.
func makeKeys(cfg *config.Agent, suite envelope.Suite) (envelopeID, signingID string, err error) {
	for _, path := range []string{cfg.Keys.Envelope, cfg.Keys.Signing} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return "", "", err
		}
		if _, err := os.Lstat(path); err == nil {
			return "", "", fmt.Errorf("%s exists already; a new key would make what is sealed to the old one unreadable", path)
		}
	}
	envelopeKey, err := envelope.GenerateKey(suite)
	if err != nil {
		return "", "", err
	}
	secret, err := envelopeKey.Encode()
	if err != nil {
		return "", "", err
	}
	defer clear(secret)
	if err := keys.CreateSecret(cfg.Keys.Envelope, envelopeKeyType, secret); err != nil {
		return "", "", err
	}
	signingKey, err := keys.CreateSigningKey(cfg.Keys.Signing)
	if err != nil {
		return "", "", err
	}
	return envelopeKey.PublicKey().String(), signingKey.ID(), nil
}

func (a *app) configCommand() *cobra.Command {
	return group("config", "Look at the configuration", &cobra.Command{
		Use: "check", Short: "Check the configuration and its files, and print what it comes down to", Args: cobra.NoArgs,
		Long:    "Tells all that is wrong at once, with line numbers. What is printed holds the paths of secrets, no secrets.",
		Example: "  agent config check -c police/agent.yaml",
		RunE: func(*cobra.Command, []string) error {
			cfg, err := config.LoadAgent(a.configPath)
			if err != nil {
				return err
			}
			if err := cfg.CheckFiles(); err != nil {
				return err
			}
			if a.output == outputJSON {
				return writeJSON(a.stdout, map[string]string{"config": a.configPath, "effective": cfg.Redacted()})
			}
			_, err = fmt.Fprint(a.stdout, cfg.Redacted())
			return err
		},
	})
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check that all works: keys, sources and their columns, fields, broker",
		Long: "Opens every source, looks for every configured table and column and for fields that the catalogue does not know, loads the keys and the\n" +
			"certificate, and verifies the broker's keys against the pinned key of its ledger. Nothing about anybody is read.",
		Example: "  agent check -c police/agent.yaml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(ctx context.Context, s *session) error { return a.check(ctx, s) })
		},
	}
}

type jsonCheck struct {
	What  string `json:"what"`
	OK    bool   `json:"ok"`
	Fault string `json:"fault,omitempty"`
}

func (a *app) check(ctx context.Context, s *session) error {
	checks := []jsonCheck{{What: "configuration, certificate and keys", OK: true}} // otherwise there were no session
	var faults []error
	add := func(what string, err error) {
		check := jsonCheck{What: what, OK: err == nil}
		if err != nil {
			check.Fault = err.Error()
			faults = append(faults, fmt.Errorf("%s: %w", what, err))
		}
		checks = append(checks, check)
	}
	for _, hat := range s.cfg.Domains {
		var err error
		if !s.catalogue.hasDomain(disclosure.Domain(hat)) {
			err = errors.New("not in the catalogue")
		}
		add("domain "+hat, err)
	}
	for _, configured := range s.cfg.Sources {
		add(fmt.Sprintf("source %s for %s", configured.Name, configured.Domain), source.Check(ctx, sourceConfig(configured), s.catalogue.knows))
	}
	add("broker "+s.cfg.Broker.Address, s.agent.TrustBroker(ctx))
	err := a.print(map[string]any{"checks": checks}, func(t *table) {
		for _, check := range checks {
			mark := label{"ok", "goed"}
			if !check.OK {
				mark = label{"FAULT", "FOUT"}
			}
			t.line(mark.in(t.dutch), check.What)
		}
	})
	return errors.Join(append([]error{err}, faults...)...)
}
