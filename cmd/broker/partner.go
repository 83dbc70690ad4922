package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"sluis/internal/broker"
	"sluis/internal/config"
	"sluis/internal/disclosure"
	"sluis/internal/identity"
)

func partnerCommand() *cobra.Command {
	parent := &cobra.Command{Use: "partner", Short: "Keep the directory of partners", Long: "Keeps the directory of partners. The broker must not be running: its ledger has one writer."}
	parent.AddCommand(partnerAddCommand(), partnerListCommand())
	return parent
}

func partnerAddCommand() *cobra.Command {
	var path, oin, name, issuer, jwks string
	var domains []string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Add a partner, or change one",
		Example: "  broker partner add --config broker/broker.yaml --oin 00000001000000000002 --name 'Gemeente (demo)' \\\n" +
			"      --domain ME --domain MB --issuer https://signin.example/gemeente --jwks gemeente/jwks.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			partner, err := newPartner(oin, name, domains, issuer, jwks)
			if err != nil {
				return err
			}
			return withBroker(cmd.Context(), path, func(ctx context.Context, b *broker.Broker) error {
				written, err := b.AddPartner(ctx, partner)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "partner %s added, entry %d\n", oin, written.Index)
				return err
			})
		},
	}
	configFlag(cmd, &path)
	flags := cmd.Flags()
	flags.StringVar(&oin, "oin", "", "the partner's OIN, 20 digits")
	flags.StringVar(&name, "name", "", "the partner's name")
	flags.StringSliceVar(&domains, "domain", nil, "a hat that the partner may wear, such as P; may be repeated")
	flags.StringVar(&issuer, "issuer", "", "issuer of its people's tokens (OIDC iss)")
	flags.StringVar(&jwks, "jwks", "", "file with the issuer's public keys (JWKS)")
	for _, flag := range []string{"oin", "name", "domain"} {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is defined just above
		}
	}
	cmd.MarkFlagsRequiredTogether("issuer", "jwks")
	return cmd
}

func newPartner(oin, name string, domains []string, issuer, jwks string) (disclosure.Partner, error) {
	partner := disclosure.Partner{OIN: disclosure.OIN(oin), Name: name, Issuer: issuer}
	if _, err := disclosure.ParseOIN(oin); err != nil {
		return disclosure.Partner{}, fmt.Errorf("%w: --oin: %w", errUsage, err)
	}
	for _, d := range domains {
		domain, err := disclosure.ParseDomain(d)
		if err != nil {
			return disclosure.Partner{}, fmt.Errorf("%w: --domain: %w", errUsage, err)
		}
		partner.Domains = append(partner.Domains, domain)
	}
	if jwks == "" {
		return partner, nil
	}
	keys, err := os.ReadFile(jwks)
	if err != nil {
		return disclosure.Partner{}, err
	}
	if _, err := identity.ParseJWKS(keys); err != nil {
		return disclosure.Partner{}, fmt.Errorf("%w: --jwks: %w", errUsage, err)
	}
	partner.JWKS = json.RawMessage(keys)
	return partner, nil
}

func partnerListCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the partners",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBroker(cmd.Context(), path, func(ctx context.Context, b *broker.Broker) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				_, _ = fmt.Fprintln(w, "OIN\tNAME\tDOMAINS\tKEYS")
				after := ""
				for {
					list, next, err := b.Organisations(ctx, after, 200)
					if err != nil {
						return err
					}
					for _, org := range list {
						keys := "published"
						if len(org.Statement) == 0 {
							keys = "not yet"
						}
						_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", org.OIN, org.Name, join(org.Domains), keys)
					}
					if next == "" {
						return w.Flush()
					}
					after = next
				}
			})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func join(domains []disclosure.Domain) string {
	list := make([]string, len(domains))
	for i, d := range domains {
		list[i] = string(d)
	}
	return strings.Join(list, ",")
}

// withBroker runs do on the broker's own files, without serving anyone.
func withBroker(ctx context.Context, path string, do func(context.Context, *broker.Broker) error) (err error) {
	cfg, err := config.LoadBroker(path)
	if err != nil {
		return err
	}
	f, err := openFiles(cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	logger := slog.New(slog.DiscardHandler)
	if err := f.openLedger(ctx, cfg, logger); err != nil {
		return err
	}
	b, engine, err := newBroker(ctx, cfg, f, offline{}, logger)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	work := func(ctx context.Context) error {
		select {
		case <-b.Ready():
			return do(ctx, b)
		case <-ctx.Done():
			return nil // another part says why
		}
	}
	inTurn(ctx, group, work, b.Run, engine.Run, f.log.Run)
	return group.Wait()
}

// offline is the relay of a broker that serves nobody.
type offline struct{}

// Ask finds every source offline.
func (offline) Ask(context.Context, disclosure.Party, disclosure.Question) (disclosure.Reply, error) {
	return disclosure.Reply{}, disclosure.ReasonSourceOffline
}
