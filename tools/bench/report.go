package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// report is all that was measured.
type report struct {
	Time        time.Time     `json:"time"`
	Go          string        `json:"go"`
	CPUs        int           `json:"cpus"`
	Load        string        `json:"load_average"` // at the end
	Pairs       int           `json:"pairs"`
	Length      time.Duration `json:"length_ns"`
	Disclosures *disclosures  `json:"disclosures,omitempty"`
	Decisions   *decisions    `json:"decisions,omitempty"`
	Ledger      *ledgerResult `json:"ledger,omitempty"`
	Measures    []measure     `json:"measures"`
}

// measure is one figure against what is expected of it.
type measure struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Low     float64 `json:"low,omitempty"`
	High    float64 `json:"high,omitempty"`
	Kept    int     `json:"kept,omitempty"` // of so many pairs
	Of      int     `json:"of,omitempty"`
	Unit    string  `json:"unit"`
	Floor   float64 `json:"floor,omitempty"`
	Target  float64 `json:"target,omitempty"`
	Verdict string  `json:"verdict"`
}

// The verdicts.
const (
	verdictTarget       = "target met"
	verdictFloor        = "floor met"
	verdictMissed       = "below the floor"
	verdictInconclusive = "inconclusive"
	verdictRefused      = "requests failed"
	verdictNone         = "-"
)

// judged returns a measure with its verdict. Whether more or less is better follows from floor and target; without either there is none.
func judged(what, unit string, value, floor, target float64) measure {
	m := measure{What: what, Value: value, Unit: unit, Floor: floor, Target: target, Verdict: verdictNone}
	if floor == 0 && target == 0 {
		return m
	}
	reaches := func(limit float64) bool {
		if target > floor {
			return value >= limit
		}
		return value <= limit
	}
	switch {
	case reaches(target):
		m.Verdict = verdictTarget
	case reaches(floor):
		m.Verdict = verdictFloor
	default:
		m.Verdict = verdictMissed
	}
	return m
}

// judgedSpread is judged for the median of pairs.
func judgedSpread(what, unit string, s spread, floor, target float64) measure {
	m := judged(what, unit, s.Median, floor, target)
	m.Low, m.High, m.Kept, m.Of = s.Low, s.High, s.Kept, s.Of
	if !s.conclusive() {
		m.Verdict = verdictInconclusive
	}
	return m
}

// judge holds everything against the targets, which docs/performance.md lists.
func (r *report) judge() []measure {
	var list []measure
	if r.Disclosures != nil {
		list = append(list, r.Disclosures.judge()...)
	}
	if r.Decisions != nil {
		list = append(list, r.Decisions.judge()...)
	}
	if r.Ledger != nil {
		list = append(list, r.Ledger.judge()...)
	}
	return list
}

func (d *decisions) judge() []measure {
	return []measure{
		judged("decision, permit, whole catalogue: CPU", "us", d.Permit.micros(), 120, 60),
		judged("decision, permit: allocations", "", d.Permit.Allocations, 400, 300),
		judged("decision, partial permit: CPU", "us", d.Partial.micros(), 0, 0),
		judged("decision, denial: CPU", "us", d.Deny.micros(), 0, 0),
		judgedSpread(fmt.Sprintf("decision at %d rows / at the real catalogue", d.Rows), "x", d.Large, 2, 1.3),
		judgedSpread("decision with 256 grants / with 4", "x", d.Grants256, 1.5, 1.2),
		judgedSpread("decision asked by a fresh goroutine / by a warm one", "x", d.Fresh, 1.25, 1.1),
		judged("decisions a second, 64 callers", "/s", float64(d.PerSecond), 0, 0),
	}
}

func (l *ledgerResult) judge() []measure {
	limits := map[int][2]float64{64: {15_000, 25_000}, 256: {30_000, 45_000}}
	var list []measure
	for _, a := range l.Appends {
		limit := limits[a.Writers]
		list = append(list, judgedSpread(fmt.Sprintf("ledger appends, %d writers", a.Writers), "/s", a.PerSecond, limit[0], limit[1]))
		floor, target := 0.0, 0.0
		if limit[0] > 0 {
			floor, target = 0.15, 0.25
		}
		list = append(list, judgedSpread(fmt.Sprintf("ledger appends / raw file with fdatasync, %d writers", a.Writers), "x", a.RawFile, floor, target))
	}
	small, large := l.Searches[0], l.Searches[len(l.Searches)-1]
	return append(list,
		judgedSpread(fmt.Sprintf("appends at %d entries / empty, 64 writers", large.Entries), "x", l.Grown, 0.35, 0.6),
		judged(fmt.Sprintf("officer's search, page of 50, %d entries / %d: p50", large.Entries, small.Entries), "x",
			float64(large.P50)/float64(small.P50), 2, 1.3),
		judged(fmt.Sprintf("officer's search, page of 50, %d entries: p99", large.Entries), "ms", float64(large.P99)/1e6, 20, 10),
		judged(fmt.Sprintf("inclusion proof of %d hashes: CPU", l.ProofHashes), "us", l.Proof.micros(), 0, 0),
		judged(fmt.Sprintf("open and check at %d entries", large.Entries), "s", l.Open.Seconds(), 1, 0.3),
		judged("verify everything, per entry: CPU", "us", float64(l.Verify)/1e3, 3, 1.5),
	)
}

func (r *report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, a ...any) { _, _ = fmt.Fprintf(t, format+"\n", a...) }
	line("Sluis bench, %s, %s, %d CPUs, load average at the end %s", r.Time.Format(time.RFC3339), r.Go, r.CPUs, r.Load)
	line("ratios: median of %d interleaved pairs of %v, with their spread; pairs whose baseline moved by more than %.0f %% are dropped",
		r.Pairs, r.Length, 100*maxDrift)
	if r.Disclosures != nil {
		r.Disclosures.print(line)
	}
	if r.Decisions != nil {
		line("\nDECISION\tCPU US\tELAPSED US\tALLOCATIONS")
		for _, row := range []struct {
			what string
			cost cost
		}{
			{"permit", r.Decisions.Permit},
			{"partial permit", r.Decisions.Partial},
			{"denial", r.Decisions.Deny},
		} {
			line("%s\t%.0f\t%.0f\t%.0f", row.what, row.cost.micros(), row.cost.Wall/1000, row.cost.Allocations)
		}
	}
	if r.Ledger != nil {
		line("\nAPPENDS, WRITERS\tPER SECOND\tP50\tP99\tOF A RAW FILE")
		for _, a := range r.Ledger.Appends {
			line("%d\t%.0f\t%v\t%v\t%.2f", a.Writers, a.PerSecond.Median, a.P50.Round(time.Microsecond), a.P99.Round(time.Microsecond), a.RawFile.Median)
		}
	}
	line("\nMEASURE\tVALUE\tSPREAD, PAIRS KEPT\tFLOOR\tTARGET\tVERDICT")
	for _, m := range r.Measures {
		value, between, floor, target := number(m.Value)+" "+m.Unit, "", "", ""
		if m.Of > 0 {
			between = fmt.Sprintf("%s - %s, %d of %d", number(m.Low), number(m.High), m.Kept, m.Of)
		}
		if m.Of > 0 && m.Kept == 0 {
			value, between = "none", fmt.Sprintf("0 of %d", m.Of)
		}
		if m.Floor != 0 || m.Target != 0 {
			floor, target = number(m.Floor), number(m.Target)
		}
		line("%s\t%s\t%s\t%s\t%s\t%s", m.What, value, between, floor, target, m.Verdict)
	}
	return t.Flush()
}

// number writes a figure with about three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.1 || v == 0:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}
