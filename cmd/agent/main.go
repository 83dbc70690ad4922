// Command agent is an organisation's Sluis agent: it asks other organisations for what the law, a purpose and a grant allow, answers what
// others may ask, and runs cases. It is the only part of Sluis that sees whom a disclosure is about, and what is in it.
//
// See `agent help`. Data go to standard output, messages for people and logs to standard error. Exit status: 0 done, 1 failed, 2 wrong usage
// or configuration, 3 denied by the policy or refused by the source, 4 broker or source not reachable, 5 verification failed.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluis/internal/config"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app is one run of the program: its streams and the flags that all commands share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configPath string
	output     string
	language   string
	tokenFile  string
	timeout    time.Duration
}

// run carries out one command and gives the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false // whether a command's own code was reached: before that, what fails is the usage
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		if err := errors.Join(c.ValidateRequiredFlags(), c.ValidateFlagGroups(), a.checkFlags()); err != nil {
			return err
		}
		started = true
		return nil
	}
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		err = fmt.Errorf("%w: %w", errUsage, err)
	}
	if err == nil {
		return exitDone
	}
	return a.fail(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "agent",
		Short: "Ask and answer, case by case, what the law allows",
		Long: "The Sluis agent of one organisation. It asks other organisations for what the law, a stated purpose and a grant allow\n" +
			"(request, explain), answers what others may ask (serve), and runs cases (case, grant, evidence). It checks everything\n" +
			"that the broker says, and keeps a receipt of every disclosure that verifies without the broker (receipt, audit).\n\n" +
			"Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 denied by the policy or refused by the source,\n" +
			"4 broker or source not reachable, 5 verification failed.",
		Example: "  agent init --dir police --oin 00000001000000000003 --name 'Politie (demo)' --domain P \\\n" +
			"    --broker broker.example:7400 --broker-oin 00000001000000000001 --ledger-key 'sluis.example/2026+...' --tls certs/police\n" +
			"  agent check -c police/agent.yaml\n" +
			"  agent serve -c police/agent.yaml\n" +
			"  agent request -c police/agent.yaml --case 0f9a7d50-2f0f-4a5e-9f0a-000000000001 --source 00000001000000000004/R \\\n" +
			"    --purpose CASUSOVERLEG --field 'SUPV.*'",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.configPath, "config", "c", "agent.yaml", "configuration file")
	flags.StringVarP(&a.output, "output", "o", outputTable, "form of what is printed: table or json")
	flags.StringVar(&a.language, "lang", "en", "language of reasons and headings: nl or en")
	flags.StringVar(&a.tokenFile, "token-file", "", "file with the ID token of the signed-in person (default: token.file of the configuration)")
	flags.DurationVar(&a.timeout, "timeout", time.Minute, "give up after this long; not for serve")
	root.AddGroup(
		&cobra.Group{ID: "ask", Title: "Ask and answer:"},
		&cobra.Group{ID: "case", Title: "Cases:"},
		&cobra.Group{ID: "proof", Title: "Proof:"},
		&cobra.Group{ID: "setup", Title: "Set up:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("ask", a.requestCommand(), a.explainCommand(), a.serveCommand())
	add("case", a.caseCommand(), a.grantCommand(), a.evidenceCommand())
	add("proof", a.auditCommand(), a.receiptCommand())
	add("setup", a.initCommand(), a.configCommand(), a.checkCommand(), a.versionCommand())
	return root
}

func (a *app) checkFlags() error {
	if a.output != outputTable && a.output != outputJSON {
		return errors.New("--output must be table or json")
	}
	if a.language != "nl" && a.language != "en" {
		return errors.New("--lang must be nl or en")
	}
	if a.timeout <= 0 {
		return errors.New("--timeout must be more than 0")
	}
	return nil
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return usage("say what to do; see %s --help", c.CommandPath())
	}}
	c.AddCommand(commands...)
	return c
}

// required marks flags that were defined before.
func required(c *cobra.Command, flags ...string) *cobra.Command {
	for _, flag := range flags {
		if err := c.MarkFlagRequired(flag); err != nil {
			panic(err) // the flag is defined just above
		}
	}
	return c
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  agent version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"version": version}, func(t *table) { t.line("agent " + version) })
		},
	}
}

// logger logs on standard error as the configuration says.
func (a *app) logger(cfg config.Log) *slog.Logger {
	options := &slog.HandlerOptions{}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err == nil {
		options.Level = level
	}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}

var errUsage = errors.New("wrong usage")

// usage marks what the caller can put right on the command line.
func usage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
}
