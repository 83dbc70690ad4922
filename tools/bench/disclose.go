package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The variants of a disclosure, in the order in which they are measured.
const (
	bare     = "bare"
	sealed   = "bare sealed"
	x25519   = "bare sealed, X25519"
	full     = "full"
	receipts = "full, receipts kept"
)

func variants() []string { return []string{bare, sealed, x25519, full, receipts} }

// The processes whose CPU time is told apart.
const (
	callersProcess = "callers"
	relayProcess   = "relay"  // the bare proxy, or the broker
	sourceProcess  = "source" // the bare agent, or the source's agent
)

// variantResult is what one variant came to with a number of callers: medians over the rounds.
type variantResult struct {
	Variant   string             `json:"variant"`
	Callers   int                `json:"callers"`
	PerSecond spread             `json:"per_second"`
	P50       time.Duration      `json:"p50_ns"`
	P99       time.Duration      `json:"p99_ns"`
	CPU       map[string]float64 `json:"cpu_us_per_request"` // by process
	Failed    int                `json:"failed"`
	Refused   bool               `json:"refused"`           // more than one request in a hundred failed: the figures mean little
	Failure   string             `json:"failure,omitempty"` // the first
}

// callersResult is everything with one number of callers.
type callersResult struct {
	Callers        int             `json:"callers"`
	Variants       []variantResult `json:"variants"`
	OfBare         spread          `json:"full_of_bare"`
	OfSealed       spread          `json:"full_of_bare_sealed"`
	ReceiptsSealed spread          `json:"full_receipts_kept_of_bare_sealed"`
	Latency        spread          `json:"full_p50_of_bare_sealed"`
	Tail           spread          `json:"full_p99_of_p50"`
	RelayCPU       spread          `json:"broker_cpu_of_bare_relay"`
	Hybrid         spread          `json:"bare_sealed_x25519_of_hybrid"`
}

// disclosures is everything about whole disclosures.
type disclosures struct {
	Messages map[string]int  `json:"message_bytes"`
	Callers  []callersResult `json:"callers"`
}

// measureDisclosures measures whole disclosures against the bare relay.
func measureDisclosures(ctx context.Context, o options, dir string, say func(string, ...any)) (*disclosures, error) {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return nil, err
	}
	w, err := startWorld(ctx, dir, bin)
	if err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	defer w.stop()
	f, err := w.capture(ctx)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	b, err := startBare(ctx, dir, f)
	if err != nil {
		return nil, fmt.Errorf("bare relay: %w", err)
	}
	defer b.stop()
	d := &disclosures{Messages: map[string]int{
		"request": len(f.Request), "question": len(f.Question), "answer": len(f.Answer), "response": len(f.Response), "content": len(f.Content),
	}}
	loads, err := newLoads(w, b)
	if err != nil {
		return nil, err
	}
	for _, callers := range o.callers {
		r, err := measureCallers(ctx, o, callers, loads, say)
		if err != nil {
			return nil, fmt.Errorf("%d callers: %w", callers, err)
		}
		d.Callers = append(d.Callers, r)
	}
	return d, nil
}

// load is what is done over and over, and who pays for it.
type load struct {
	ask       func(context.Context) error
	processes map[string]process
}

func newLoads(w *world, b *bareRelay) (map[string]load, error) {
	bareProcesses := map[string]process{callersProcess: self(), relayProcess: b.proxy.process, sourceProcess: b.agent.process}
	fullProcesses := map[string]process{callersProcess: self(), relayProcess: w.broker.process, sourceProcess: w.source.process}
	loads := map[string]load{full: {w.ask, fullProcesses}, receipts: {w.askAndKeep, fullProcesses}}
	for variant, mode := range map[string]string{bare: modeBare, sealed: modeSealed, x25519: modeX25519} {
		ask, err := b.asker(mode)
		if err != nil {
			return nil, err
		}
		loads[variant] = load{ask, bareProcesses}
	}
	return loads, nil
}

// measureCallers interleaves the variants, and ends as it began, so that each round lies between two measurements of its baselines.
func measureCallers(ctx context.Context, o options, callers int, loads map[string]load, say func(string, ...any)) (callersResult, error) {
	windows := map[string][]window{}
	measure := func(variant string) error {
		l := loads[variant]
		w, err := drive(ctx, callers, o.length, l.processes, l.ask)
		if err != nil {
			return fmt.Errorf("%s: %w", variant, err)
		}
		windows[variant] = append(windows[variant], w)
		return nil
	}
	for round := range o.pairs {
		say("  %d callers, round %d of %d", callers, round+1, o.pairs)
		for _, variant := range variants() {
			if err := measure(variant); err != nil {
				return callersResult{}, err
			}
		}
	}
	for _, variant := range []string{bare, sealed} {
		if err := measure(variant); err != nil {
			return callersResult{}, err
		}
	}
	return compare(callers, windows, o.pairs), nil
}

func compare(callers int, windows map[string][]window, pairs int) callersResult {
	values := func(variant string, of func(window) float64) []float64 {
		var list []float64
		for _, w := range windows[variant] {
			list = append(list, of(w))
		}
		return list
	}
	throughput := func(w window) float64 { return w.perSecond() }
	p50 := func(w window) float64 { return float64(w.p50) }
	relayCPU := func(w window) float64 { return w.perRequest(relayProcess) }
	r := callersResult{
		Callers:        callers,
		OfBare:         pairRatios(values(full, throughput), values(bare, throughput)),
		OfSealed:       pairRatios(values(full, throughput), values(sealed, throughput)),
		ReceiptsSealed: pairRatios(values(receipts, throughput), values(sealed, throughput)),
		Latency:        pairRatios(values(full, p50), values(sealed, p50)),
		Tail:           spreadOf(tails(windows[full]), pairs),
		RelayCPU:       pairRatios(values(full, relayCPU), values(bare, relayCPU)),
		Hybrid:         pairRatios(values(x25519, throughput), values(sealed, throughput)),
	}
	for _, variant := range variants() {
		v := variantResult{
			Variant: variant, Callers: callers, PerSecond: spreadOf(values(variant, throughput), len(windows[variant])),
			P50: time.Duration(median(values(variant, p50))),
			P99: time.Duration(median(values(variant, func(w window) float64 { return float64(w.p99) }))),
			CPU: map[string]float64{},
		}
		for _, process := range []string{callersProcess, relayProcess, sourceProcess} {
			v.CPU[process] = median(values(variant, func(w window) float64 { return w.perRequest(process) }))
		}
		done := 0
		for _, w := range windows[variant] {
			done += w.done
			v.Failed += w.failed
			if w.err != nil && v.Failure == "" {
				v.Failure = w.err.Error()
			}
		}
		v.Refused = v.Failed > done/100
		r.Variants = append(r.Variants, v)
	}
	return r
}

// tails returns how much longer the slowest requests of each window took than the middle one.
func tails(windows []window) []float64 {
	var list []float64
	for _, w := range windows {
		if w.p50 > 0 {
			list = append(list, float64(w.p99)/float64(w.p50))
		}
	}
	return list
}

// judge holds the ratios against the targets, which are set for 1, 64 and 256 callers.
func (d *disclosures) judge() []measure {
	throughput := map[int][2]float64{1: {0.35, 0.55}, 64: {0.45, 0.70}, 256: {0.45, 0.75}}
	var list []measure
	for _, r := range d.Callers {
		first := len(list)
		what := func(text string) string { return fmt.Sprintf("%s, callers: %d", text, r.Callers) }
		limit := throughput[r.Callers]
		list = append(list,
			judgedSpread(what("full / bare sealed, throughput"), "x", r.OfSealed, limit[0], limit[1]),
			judgedSpread(what("full with receipts kept / bare sealed, throughput"), "x", r.ReceiptsSealed, limit[0], limit[1]),
			judgedSpread(what("full / bare, throughput"), "x", r.OfBare, 0, 0),
		)
		if r.Callers == 1 {
			list = append(list, judgedSpread(what("full p50 / bare sealed p50"), "x", r.Latency, 2.8, 1.8))
		} else {
			list = append(list, judgedSpread(what("full p99 / p50"), "x", r.Tail, 3.5, 2.2))
		}
		floor, target := 0.0, 0.0
		if r.Callers == 64 {
			floor, target = 5.5, 3
		}
		list = append(list,
			judgedSpread(what("broker CPU of a full disclosure / bare relay's"), "x", r.RelayCPU, floor, target),
			judgedSpread(what("bare sealed with X25519 / hybrid, throughput"), "x", r.Hybrid, 0, 0),
		)
		for i := first; i < len(list); i++ {
			keeps := strings.Contains(list[i].What, "receipts kept")
			if strings.HasPrefix(list[i].What, "full") && (!keeps && r.refused(full) || keeps && r.refused(receipts)) {
				list[i].Verdict = verdictRefused
			}
		}
	}
	return list
}

func (r callersResult) refused(variant string) bool {
	return slices.ContainsFunc(r.Variants, func(v variantResult) bool { return v.Variant == variant && v.Refused })
}

func (d *disclosures) print(line func(string, ...any)) {
	line("messages, bytes: request %d, question %d, answer %d, response %d; content %d",
		d.Messages["request"], d.Messages["question"], d.Messages["answer"], d.Messages["response"], d.Messages["content"])
	for _, r := range d.Callers {
		line("\nCALLERS: %d\tPER SECOND\tP50\tP99\tCPU US PER REQUEST\tCALLERS\tRELAY\tSOURCE\tFAILED", r.Callers)
		for _, v := range r.Variants {
			total := v.CPU[callersProcess] + v.CPU[relayProcess] + v.CPU[sourceProcess]
			line("%s\t%.0f\t%v\t%v\t%.0f\t%.0f\t%.0f\t%.0f\t%d", v.Variant, v.PerSecond.Median, v.P50.Round(10*time.Microsecond),
				v.P99.Round(10*time.Microsecond), total, v.CPU[callersProcess], v.CPU[relayProcess], v.CPU[sourceProcess], v.Failed)
			if v.Failure != "" {
				line("  first failure: %s", v.Failure)
			}
		}
	}
}
