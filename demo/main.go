// Command demo is the whole world of Sluis on one machine: a broker and the agents of a municipality, police, a care provider and
// probation as processes of their own, with sixteen fictitious people in their sources. It plays what Sluis promises, a line for each
// promise, and then keeps running for whoever wants to try.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

var errExpectations = errors.New("not every expectation held")

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	bin := flags.String("bin", "build/bin", "folder with the programs broker and agent")
	dir := flags.String("dir", "", "folder for the world, which must not exist (default: a new one, removed at the end)")
	once := flags.Bool("once", false, "end after the play, with status 0 only if every expectation held")
	if err := flags.Parse(args); err != nil {
		return err
	}
	w := &world{agents: map[string]*process{}, now: time.Now()}
	if w.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if *dir == "" {
		if w.dir, err = os.MkdirTemp("", "sluis-world-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(w.dir)
			}
		}()
	} else {
		if w.dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		if err := os.Mkdir(w.dir, 0o700); err != nil {
			return err
		}
	}
	begin := time.Now()
	_, _ = fmt.Fprintf(out, "Sluis, a world of fictitious people in %s\n", w.dir)
	if err := w.build(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	if err := w.start(ctx); err != nil {
		return err
	}
	p := &play{world: w, out: out, cases: map[string]string{}}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "broker and %d agents run; 4 cases are open (%.1f s)\n\n", len(w.agents), time.Since(begin).Seconds())
	if err := p.run(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "\n%d of %d expectations held, in %.1f s\n", p.number-p.failed, p.number, time.Since(begin).Seconds())
	switch {
	case p.failed > 0:
		return errExpectations
	case *once:
		return nil
	}
	p.explain()
	<-ctx.Done()
	return nil
}

// explain says where things are and how to go on by hand.
func (p *play) explain() {
	_, _ = fmt.Fprintf(p.out, `
Everything keeps running until you press Ctrl-C.

  broker      gRPC over mTLS on %s, log in %s
  agents      %s
  ledger key  %s

Ask something yourself, as the probation officer about Daan:

  %s request --config %s --token-file %s \
    --case %s --source %s --purpose TOEZICHT --field 'POLNUIS.*' \
    --aim 'Toezicht houden' --necessity 'Zonder meldingen is overtreding niet te zien' --lang nl

Ask what would be possible and what is missing: put "explain" for "request". Tokens of people are valid for an hour.
`, p.address, p.path("broker", "broker.log"), filepath.Join(p.dir, "{gemeente,politie,zorg,reclassering}"), p.vkey,
		p.agentBin(), p.config("reclassering"), p.path("reclassering", "tokens", "toezichthouder"), p.cases["Daan"], party(politieOIN, "P"))
}
