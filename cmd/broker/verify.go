package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluis/internal/casefile"
	"sluis/internal/config"
	"sluis/internal/ledger"
)

func verifyCommand() *cobra.Command {
	var path, output string
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify the whole ledger from its entries alone",
		Long: "Recomputes every leaf, tile, payload commitment, the state and the search index from the entries, and checks the\n" +
			"checkpoints. Writes nothing. The broker must not be running. Exit status 5 says that something is not as it was written.",
		Example: "  broker verify --config broker/broker.yaml\n  broker verify --config broker/broker.yaml -o json | jq .size",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if output != "text" && output != "json" {
				return fmt.Errorf("%w: --output must be text or json", errUsage)
			}
			cfg, err := config.LoadBroker(path)
			if err != nil {
				return err
			}
			f, err := openFiles(cfg, true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.close()) }()
			report, err := ledger.Verify(cmd.Context(), ledger.VerifyConfig{
				Store: f.store, Index: f.index, Verifier: f.verifier, Sealer: f.keyring, Folder: casefile.Folder{},
				Guard: ledger.NewFileGuard(cfg.Guard), Progress: progress(cmd.ErrOrStderr()),
			})
			if err != nil {
				return err
			}
			return printReport(cmd.OutOrStdout(), report, output)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// progress reports on a long verification: at most one line every ten seconds.
func progress(w io.Writer) func(done, total uint64) {
	start := time.Now()
	last := start
	return func(done, total uint64) {
		now := time.Now()
		if now.Sub(last) < 10*time.Second || done == 0 {
			return
		}
		last = now
		left := time.Duration(float64(now.Sub(start)) / float64(done) * float64(total-done)).Round(time.Second)
		_, _ = fmt.Fprintf(w, "verified %d of %d entries, about %s left\n", done, total, left)
	}
}

func printReport(w io.Writer, r ledger.Report, output string) error {
	erased := uint64(0)
	for _, n := range r.Erased {
		erased += n
	}
	if output == "json" {
		return json.NewEncoder(w).Encode(struct {
			Verified   bool   `json:"verified"`
			Size       uint64 `json:"size"`
			Root       string `json:"root"`
			Tiles      uint64 `json:"tiles"`
			StateKeys  uint64 `json:"state_keys"`
			Postings   uint64 `json:"postings"`
			Checkpoint uint64 `json:"checkpoint"`
			Guarded    uint64 `json:"guarded"`
			Erased     uint64 `json:"erased"`
		}{true, r.Size, r.Root.String(), r.Tiles, r.StateKeys, r.Postings, r.Checkpoint, r.Guarded, erased})
	}
	_, err := fmt.Fprintf(w, "verified: %d entries, root %s\n%d tiles, %d keys of state, %d postings of the index are as the entries say\n"+
		"checkpoint covers %d entries, guard %d; %d entries erased\n",
		r.Size, r.Root, r.Tiles, r.StateKeys, r.Postings, r.Checkpoint, r.Guarded, erased)
	return err
}
