package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/keys"
	"sluis/internal/pseudonym"
)

// pseudonymKeyType is the PEM type of the pseudonym key.
const pseudonymKeyType = "SLUIS PSEUDONYM KEY"

func initCommand() *cobra.Command {
	var dir, oin, name, origin, listen, tlsDir, guard, audience string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make the keys and the configuration of a new broker",
		Long: "Makes a folder with the broker's configuration and keys, each key in a file of its own that only its owner can read.\n" +
			"Nothing that exists is overwritten. The ledger's public key is printed: partners pin it in their agents.",
		Example: "  broker init --dir broker --oin 00000001000000000001 --name 'Sluis (demo)' --origin sluis.example/2026 --tls certs/broker",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := disclosure.ParseOIN(oin); err != nil {
				return fmt.Errorf("%w: --oin: %w", errUsage, err)
			}
			if guard == "" {
				guard = "guard/checkpoint"
			}
			if audience == "" {
				audience = origin
			}
			vkey, err := makeKeys(dir, origin)
			if err != nil {
				return err
			}
			path := filepath.Join(dir, "broker.yaml")
			text := strings.NewReplacer("$listen", listen, "$oin", oin, "$name", quote(name), "$origin", origin, "$guard", quote(guard),
				"$audience", audience, "$tls", quotedPath(dir, tlsDir)).Replace(template)
			if err := writeNew(path, text); err != nil {
				return err
			}
			if _, err := config.LoadBroker(path); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "configuration: %s\nledger key:    %s\n", path, vkey)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "broker", "folder to make")
	flags.StringVar(&oin, "oin", "", "the broker's own OIN, 20 digits")
	flags.StringVar(&name, "name", "", "the broker's name")
	flags.StringVar(&origin, "origin", "", "name of the ledger, such as sluis.example/2026; it never changes")
	flags.StringVar(&listen, "listen", "127.0.0.1:7400", "address to serve on")
	flags.StringVar(&tlsDir, "tls", "", "folder with the broker's cert.pem, key.pem and ca.pem")
	flags.StringVar(&guard, "guard", "", "file that guards against rollback of the data, better on another disk (default DIR/guard/checkpoint)")
	flags.StringVar(&audience, "audience", "", "audience that tokens of people must name (default the origin)")
	for _, flag := range []string{"oin", "name", "origin", "tls"} {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is defined just above
		}
	}
	return cmd
}

// template is a configuration with all that has no default.
const template = `# Configuration of a Sluis broker. Paths are relative to this file. "broker config check" prints it with its defaults.
listen: $listen
oin: "$oin"
name: $name
data: data
origin: $origin
guard: $guard
token_audience: $audience
tls:
  cert: $tls/cert.pem
  key: $tls/key.pem
  ca: $tls/ca.pem
keys:
  ledger: keys/ledger.key
  permit: keys/permit.key
  pseudonym: keys/pseudonym.key
  kek: keys/kek.key
`

// makeKeys makes the folders and keys of a broker and returns the public key of its ledger.
func makeKeys(dir, origin string) (string, error) {
	for _, folder := range []string{dir, filepath.Join(dir, "keys"), filepath.Join(dir, "data"), filepath.Join(dir, "guard")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return "", err
		}
	}
	path := func(name string) string { return filepath.Join(dir, "keys", name+".key") }
	vkey, err := keys.CreateNoteKey(path("ledger"), origin)
	if err != nil {
		return "", err
	}
	if _, err := keys.CreateSigningKey(path("permit")); err != nil {
		return "", err
	}
	if _, err := keys.CreateKEK(path("kek")); err != nil {
		return "", err
	}
	key, err := pseudonym.GenerateKey()
	if err != nil {
		return "", err
	}
	secret, err := key.Encode()
	if err != nil {
		return "", err
	}
	defer clear(secret)
	return vkey, keys.CreateSecret(path("pseudonym"), pseudonymKeyType, secret)
}

// quotedPath gives path as seen from dir, if it can be.
func quotedPath(dir, path string) string {
	from, err := filepath.Abs(dir)
	if err != nil {
		return path
	}
	to, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(from, to)
	if err != nil {
		return path
	}
	return relative
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
