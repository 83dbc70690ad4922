package config

import (
	"strings"
	"time"
)

// Broker is the configuration of the broker.
type Broker struct {
	// Address to serve gRPC on, host:port. Required.
	Listen string `yaml:"listen"`
	// Folder of ledger.db, index.db and keyring.db. Required.
	Data string `yaml:"data"`
	// The broker's own OIN, as in its certificate. Required.
	OIN string `yaml:"oin"`
	// The broker's name. Required.
	Name string `yaml:"name"`
	// The broker's certificate. Required.
	TLS TLS `yaml:"tls"`
	// The broker's other keys. Required.
	Keys BrokerKeys `yaml:"keys"`
	// Name of the ledger, the first line of its checkpoints (c2sp.org/tlog-checkpoint), such as sluis.example/2026.
	// It never changes. Required.
	Origin string `yaml:"origin"`
	// How often a checkpoint is signed while entries arrive, 100ms to 1m. Default 1s.
	CheckpointInterval Duration `yaml:"checkpoint_interval"`
	// File that keeps the last checkpoint, against rollback of the data folder. Outside that folder, and better on
	// another disk. Required.
	Guard string `yaml:"guard"`
	// Folder of the policy. Empty: the one built in.
	Policies string `yaml:"policies,omitempty"`
	// How many pseudonyms an organisation may have made on a day (UTC), against enumeration. Default 10000.
	PseudonymsPerDay int `yaml:"pseudonyms_per_day"`
	// How long a source may take to answer, 1s to 25s: a permit is valid for 30 seconds. Default 10s.
	SourceTimeout Duration `yaml:"source_timeout"`
	// The audience that tokens of people must name (OIDC aud). Required.
	TokenAudience string `yaml:"token_audience"`
	// Free space of the data folder's disk below which nothing new is accepted. Default 256MiB.
	MinFree ByteSize `yaml:"min_free"`
	// How to log.
	Log Log `yaml:"log"`
}

// BrokerKeys names the files of the broker's keys, each readable by the broker's user only. The command that
// initialises the broker makes them.
type BrokerKeys struct {
	// Ed25519 key that signs checkpoints.
	Ledger string `yaml:"ledger"`
	// Ed25519 key that signs permits.
	Permit string `yaml:"permit"`
	// Key of the pseudonyms (VOPRF, RFC 9497). As precious as the BSNs behind the pseudonyms; losing it loses them.
	Pseudonym string `yaml:"pseudonym"`
	// Key-encryption key of the keys per case.
	KEK string `yaml:"kek"`
}

// LoadBroker reads the broker's configuration from a file. Its errors about the content wrap [ErrInvalid]; each part of
// them is a [Fault].
func LoadBroker(path string) (*Broker, error) {
	b := new(Broker)
	if err := load(path, b); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Broker) setDefaults() {
	setDefault(&b.CheckpointInterval, Duration(time.Second))
	setDefault(&b.PseudonymsPerDay, 10_000)
	setDefault(&b.SourceTimeout, Duration(10*time.Second))
	setDefault(&b.MinFree, 256*mib)
	b.Log.setDefaults()
}

func (b *Broker) resolve(folder string) {
	resolvePaths(folder, &b.Data, &b.TLS.Cert, &b.TLS.Key, &b.TLS.CA, &b.Keys.Ledger, &b.Keys.Permit,
		&b.Keys.Pseudonym, &b.Keys.KEK, &b.Guard, &b.Policies)
}

// Validate checks the values, without looking at any file. It gives all faults, joined, or nil.
func (b *Broker) Validate() error { return joined(b.faults()) }

func (b *Broker) faults() faults {
	var f faults
	f.address("listen", b.Listen)
	f.required("data", b.Data)
	f.oin("oin", b.OIN)
	f.required("name", b.Name)
	f.tls(b.TLS)
	f.required("keys.ledger", b.Keys.Ledger)
	f.required("keys.permit", b.Keys.Permit)
	f.required("keys.pseudonym", b.Keys.Pseudonym)
	f.required("keys.kek", b.Keys.KEK)
	if f.required("origin", b.Origin) {
		f.check(!strings.ContainsAny(b.Origin, " \t\r\n+"), "origin", "must be a name without spaces and plus signs")
	}
	f.between("checkpoint_interval", b.CheckpointInterval, Duration(100*time.Millisecond), Duration(time.Minute))
	if f.required("guard", b.Guard) && b.Data != "" {
		f.check(!inside(b.Data, b.Guard), "guard", "must be outside the data folder: it guards against a rollback of that folder")
	}
	f.check(b.PseudonymsPerDay >= 1 && b.PseudonymsPerDay <= 10_000_000, "pseudonyms_per_day", "must be 1 to 10000000")
	f.between("source_timeout", b.SourceTimeout, Duration(time.Second), Duration(25*time.Second))
	f.required("token_audience", b.TokenAudience)
	f.check(b.MinFree >= mib, "min_free", `must be at least "1MiB"`)
	f.log(b.Log)
	return f
}

// CheckFiles checks that the files named exist, and that those of keys are for their owner alone. The data folder and
// the guard need not exist yet.
func (b *Broker) CheckFiles() error {
	public := map[string]string{"tls.cert": b.TLS.Cert, "tls.ca": b.TLS.CA}
	if b.Policies != "" {
		public["policies"] = b.Policies
	}
	return checkFiles(public, map[string]string{
		"tls.key": b.TLS.Key, "keys.ledger": b.Keys.Ledger, "keys.permit": b.Keys.Permit,
		"keys.pseudonym": b.Keys.Pseudonym, "keys.kek": b.Keys.KEK,
	})
}

// Redacted gives the effective configuration in YAML, to show. It holds paths of secrets, no secrets.
func (b *Broker) Redacted() string { return redacted(b) }
