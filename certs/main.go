// Command certs makes certificates and tokens for development. They are never to be trusted in production: see README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, or 1 after an error, which it has printed.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, "certs:", err)
		if errors.Is(err, fs.ErrExist) {
			_, _ = fmt.Fprintln(stderr, "certs: use --force to replace it; what it has signed will no longer be accepted")
		}
		return 1
	}
	return 0
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "certs",
		Short: "Make certificates and tokens for development, never for production",
		Example: `  certs init
  certs org --oin 00000001001234567000 --name 'Gemeente Voorbeeld'
  certs issuer --oin 00000001001234567000
  certs token --dir certs/dev/00000001001234567000 --person a.jansen --role PGA_EXPERT --domain ME --audience sluis`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(initCommand(), orgCommand(), issuerCommand(), tokenCommand())
	return root
}

// target is where a command writes, and whether it may replace what is there.
type target struct {
	out   string
	force bool
}

func (t *target) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.out, "out", filepath.Join("certs", "dev"), "folder of the authority")
	cmd.Flags().BoolVar(&t.force, "force", false, "replace what is there")
}

// clear removes the named files of dir if that was asked for.
func (t *target) clear(dir string, names ...string) error {
	if !t.force {
		return nil
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func initCommand() *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:     "init",
		Short:   "Make a certificate authority",
		Example: "  certs init --out certs/dev",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := to.clear(to.out, devca.CAFile, devca.CAKeyFile); err != nil {
				return err
			}
			if _, err := devca.New(to.out); err != nil {
				return err
			}
			cmd.Printf("wrote development authority %s and its key %s\n",
				filepath.Join(to.out, devca.CAFile), filepath.Join(to.out, devca.CAKeyFile))
			return nil
		},
	}
	to.addFlags(cmd)
	return cmd
}

func orgCommand() *cobra.Command {
	var to target
	var oin string
	var leaf devca.Leaf
	cmd := &cobra.Command{
		Use:   "org",
		Short: "Issue a certificate to an organisation",
		Long: `Issue a certificate to an organisation, in the folder <out>/<oin>. The names localhost, 127.0.0.1 and ::1 are always in it;
--dns adds others.`,
		Example: "  certs org --oin 00000001001234567000 --name 'Gemeente Voorbeeld' --dns broker.example --dns 192.0.2.1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if leaf.OIN, err = disclosure.ParseOIN(oin); err != nil {
				return err
			}
			authority, err := devca.Load(to.out)
			if err != nil {
				return fmt.Errorf("%w (make one with: certs init)", err)
			}
			leaf.Dir = filepath.Join(to.out, oin)
			if err := to.clear(leaf.Dir, devca.CertFile, devca.KeyFile, devca.CAFile); err != nil {
				return err
			}
			if err := authority.Issue(leaf); err != nil {
				return err
			}
			cmd.Printf("wrote certificate of %s (%s) to %s\n", leaf.Name, leaf.OIN, leaf.Dir)
			return nil
		},
	}
	to.addFlags(cmd)
	cmd.Flags().StringVar(&oin, "oin", "", "identification number of the organisation, 20 digits")
	cmd.Flags().StringVar(&leaf.Name, "name", "", "name of the organisation")
	cmd.Flags().StringSliceVar(&leaf.DNSNames, "dns", nil, "DNS name or IP address, may be repeated")
	cmd.Flags().IntVar(&leaf.Days, "days", 90, "validity in days")
	require(cmd, "oin", "name")
	return cmd
}

func issuerCommand() *cobra.Command {
	var to target
	var oin, url string
	cmd := &cobra.Command{
		Use:     "issuer",
		Short:   "Make a token issuer for an organisation's people",
		Long:    "Make a token issuer for an organisation's people, in the folder <out>/<oin>.",
		Example: "  certs issuer --oin 00000001001234567000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			organisation, err := disclosure.ParseOIN(oin)
			if err != nil {
				return err
			}
			dir := filepath.Join(to.out, oin)
			if err := to.clear(dir, devca.IssuerKeyFile, devca.JWKSFile, devca.IssuerFile); err != nil {
				return err
			}
			issuer, err := devca.CreateIssuer(dir, organisation, url)
			if err != nil {
				return err
			}
			cmd.Printf("wrote issuer %s to %s; verifiers need %s\n", issuer.URL(), dir, filepath.Join(dir, devca.JWKSFile))
			return nil
		},
	}
	to.addFlags(cmd)
	cmd.Flags().StringVar(&oin, "oin", "", "identification number of the organisation, 20 digits")
	cmd.Flags().StringVar(&url, "url", "", "iss of the tokens (default https://signin.example/<oin>)")
	require(cmd, "oin")
	return cmd
}

func tokenCommand() *cobra.Command {
	var dir string
	var claims devca.TokenClaims
	var roles, domains []string
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Sign a token for a person and print it",
		Example: `  certs token --dir certs/dev/00000001001234567000 --person a.jansen --role PGA_EXPERT --domain ME --audience sluis
  certs token --dir certs/dev/00000001001234567000 --person f.bakker --role PRIVACY_OFFICER --audience sluis --ttl 1h`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			issuer, err := devca.LoadIssuer(dir)
			if err != nil {
				return fmt.Errorf("%w (make one with: certs issuer)", err)
			}
			for _, role := range roles {
				claims.Roles = append(claims.Roles, disclosure.Role(role))
			}
			for _, domain := range domains {
				claims.Domains = append(claims.Domains, disclosure.Domain(domain))
			}
			token, err := issuer.Token(claims)
			if err != nil {
				return err
			}
			cmd.Println(token)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder of the issuer")
	cmd.Flags().StringVar(&claims.Subject, "person", "", "stable name of the person within the organisation")
	cmd.Flags().StringVar(&claims.Name, "name", "", "name to show")
	cmd.Flags().StringSliceVar(&roles, "role", nil,
		"PGA_EXPERT, CASE_DIRECTOR, PROFESSIONAL, PRIVACY_OFFICER or OPERATOR, may be repeated")
	cmd.Flags().StringSliceVar(&domains, "domain", nil, "hat that the person wears, such as ME, may be repeated")
	cmd.Flags().StringVar(&claims.Audience, "audience", "", "verifier that the token is for")
	cmd.Flags().DurationVar(&claims.TTL, "ttl", 15*time.Minute, "how long the token is good for, at most 1h")
	require(cmd, "dir", "person", "role", "audience")
	return cmd
}

// require marks flags as required. It can only fail for a flag that does not exist.
func require(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic(err)
		}
	}
}
