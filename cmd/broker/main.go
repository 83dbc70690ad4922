// Command broker is the Sluis broker: it decides, mediates and records disclosures between partners, and never sees whom they are about.
//
// See `broker help`. Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 5 verification failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sluis/internal/config"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// version is set by the linker.
var version = "development"

// The exit statuses beside 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotVerified = 5
)

// errUsage marks what the caller can put right on the command line.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out one command: data on stdout, the rest on stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "broker",
		Short: "Mediate disclosures between partners, and record every one",
		Long: "The Sluis broker decides by law, purpose and grant which partner may tell which other partner what, passes on the\n" +
			"sealed answer, and records every decision and disclosure in a ledger that anyone can verify.",
		Example: "  broker init --dir broker --oin 00000001000000000001 --name 'Sluis (demo)' --origin sluis.example/2026 --tls certs/broker\n" +
			"  broker partner add --config broker/broker.yaml --oin 00000001000000000002 --name 'Gemeente (demo)' --domain ME,MB\n" +
			"  broker serve --config broker/broker.yaml",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %s: %w", errUsage, cmd.CommandPath(), err)
	})
	root.AddCommand(serveCommand(), initCommand(), verifyCommand(), partnerCommand(), configCommand(), versionCommand())
	started := false // whether a command's own code was reached: before that, what fails is the usage
	observe(root, func() { started = true })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "broker: %v\n", err)
	if next := nextStep(err, started); next != "" {
		_, _ = fmt.Fprintf(stderr, "Next: %s\n", next)
	}
	switch {
	case !started:
		return exitUsage
	case errors.Is(err, ledger.ErrCorrupt), errors.Is(err, ledger.ErrRollback), errors.Is(err, ledger.ErrFork):
		return exitNotVerified
	case errors.Is(err, errUsage), errors.Is(err, config.ErrInvalid):
		return exitUsage
	}
	return exitFailed
}

// observe calls begin when the own code of a command begins, after cobra has found fault with neither flags nor arguments.
func observe(cmd *cobra.Command, begin func()) {
	if own := cmd.RunE; own != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			begin()
			return own(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		observe(child, begin)
	}
}

// nextStep says what to do about an error, where that is known.
func nextStep(err error, started bool) string {
	switch {
	case !started, errors.Is(err, errUsage):
		return "see --help"
	case errors.Is(err, config.ErrInvalid):
		return "correct the configuration; broker config check tells when it is right"
	case errors.Is(err, fs.ErrNotExist):
		return "name the configuration with --config, or make one with broker init"
	case errors.Is(err, boltstore.ErrInUse), errors.Is(err, keys.ErrLocked):
		return "stop the broker that uses these files first: a ledger has one writer"
	case errors.Is(err, ledger.ErrCorrupt), errors.Is(err, ledger.ErrRollback), errors.Is(err, ledger.ErrFork):
		return "do not serve these data; keep them as evidence, and tell the privacy officer"
	}
	return ""
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "broker", version)
			return err
		},
	}
}

func configCommand() *cobra.Command {
	parent := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	var path string
	check := &cobra.Command{
		Use:     "check",
		Short:   "Check the configuration and its files, and print what it comes down to",
		Example: "  broker config check --config broker/broker.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadBroker(path)
			if err != nil {
				return err
			}
			if err := cfg.CheckFiles(); err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), cfg.Redacted())
			return err
		},
	}
	configFlag(check, &path)
	parent.AddCommand(check)
	return parent
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "broker.yaml", "configuration file")
}

func newLogger(w io.Writer, cfg config.Log) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err == nil {
		options.Level = level
	}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
