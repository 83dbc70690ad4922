// Command bench measures what a disclosure through Sluis costs, against what it could not be cheaper than: the same messages over the same
// two hops of mTLS with nothing done about them ("bare"), and with only the cryptography of the two ends ("bare sealed").
//
// Everything runs on this machine, over loopback: a broker and a source's agent as they are built, and a load generator in this process.
// Absolute figures say more about the machine than about Sluis; the ratios are measured in interleaved pairs and are what counts. Nothing
// is asserted about time: the exit status is 0 unless something did not work. docs/performance.md explains every figure.
//
// It needs Linux, for the CPU time of other processes, and a folder on a real disk, since the ledger's durability is part of the price.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The processes of the bare relay are this program with one of these as its first argument.
const (
	childProxy = "bare-proxy"
	childAgent = "bare-agent"
)

// options are the flags.
type options struct {
	pairs    int
	length   time.Duration
	callers  []int
	quick    bool
	output   string
	dir, bin string
	only     []string
}

// The parts that -only can name.
const (
	partDisclosures = "disclosures"
	partDecisions   = "decisions"
	partLedger      = "ledger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == childProxy:
		err = proxyMain(ctx, args[1])
	case len(args) == 3 && args[0] == childAgent:
		err = agentMain(ctx, args[1], args[2])
	default:
		err = benchMain(ctx, args, os.Stdout, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	o := options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.pairs, "pairs", 5, "interleaved pairs for each ratio")
	flags.DurationVar(&o.length, "duration", 2*time.Second, "how long each load is kept up")
	callers := flags.String("callers", "1,64,256", "numbers of callers at once")
	flags.BoolVar(&o.quick, "quick", false, "a minute instead of six: 3 pairs of half a second, a smaller ledger")
	flags.StringVar(&o.output, "o", "text", "text or json")
	flags.StringVar(&o.dir, "dir", "build", "where to make a temporary folder: on the disk to measure")
	flags.StringVar(&o.bin, "bin", "build/bin", "folder of the broker and agent binaries")
	only := flags.String("only", "", "parts to measure, with commas: "+strings.Join(parts(), ",")+" (default all)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if o.quick && !given["pairs"] {
		o.pairs = 3
	}
	if o.quick && !given["duration"] {
		o.length = time.Second / 2
	}
	for text := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 4096 {
			return o, fmt.Errorf("-callers: %q is not a number from 1 to 4096", text)
		}
		o.callers = append(o.callers, n)
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, part := range o.only {
		if !slices.Contains(parts(), part) {
			return o, fmt.Errorf("-only: no part %q", part)
		}
	}
	if o.pairs < 1 || o.length < 100*time.Millisecond || flags.NArg() > 0 || o.output != "text" && o.output != "json" {
		return o, errors.New("usage: bench [flags]; -pairs at least 1, -duration at least 100ms, -o text or json")
	}
	return o, nil
}

func parts() []string { return []string{partDisclosures, partDecisions, partLedger} }

func (o options) wants(part string) bool { return len(o.only) == 0 || slices.Contains(o.only, part) }

func benchMain(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o750); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.dir, "bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	// The load generator is to be in the way as little as possible; all that are compared pay the same for it.
	const gcPercent = 400
	debug.SetGCPercent(gcPercent)

	r := &report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Pairs: o.pairs, Length: o.length}
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(stderr, format+"\n", a...) }
	if o.wants(partDisclosures) {
		say("disclosures: %d pairs of %v with %v callers", o.pairs, o.length, o.callers)
		if r.Disclosures, err = measureDisclosures(ctx, o, dir, say); err != nil {
			return fmt.Errorf("disclosures: %w", err)
		}
	}
	if o.wants(partDecisions) {
		say("decisions")
		decided, err := measureDecisions(ctx, o.length)
		if err != nil {
			return fmt.Errorf("decisions: %w", err)
		}
		r.Decisions = &decided
	}
	if o.wants(partLedger) {
		say("ledger")
		cfg := ledgerConfig{dir: filepath.Join(dir, "ledger"), length: o.length / 2, pairs: o.pairs, small: 10_000, large: 100_000}
		if o.quick {
			cfg.small, cfg.large = 5_000, 20_000
		}
		if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
			return err
		}
		kept, err := measureLedger(ctx, cfg)
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		r.Ledger = &kept
	}
	r.Load = loadAverage()
	r.Measures = r.judge()
	if o.output == "json" {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	return r.print(stdout)
}

// loadAverage tells whether the machine was busy with other things.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
