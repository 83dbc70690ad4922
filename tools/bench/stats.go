package main

import (
	"math"
	"slices"
	"time"
)

// median returns the median, NaN of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// quantile returns the smallest of the sorted durations that at least a part q of them does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// spread is a median with the smallest and largest of what it is the median of.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Kept   int     `json:"kept"` // how many values it is made of
	Of     int     `json:"of"`   // how many were measured
}

func spreadOf(values []float64, of int) spread {
	if len(values) == 0 {
		return spread{Of: of}
	}
	return spread{Median: median(values), Low: slices.Min(values), High: slices.Max(values), Kept: len(values), Of: of}
}

// conclusive reports whether enough pairs were quiet.
func (s spread) conclusive() bool { return s.Kept > 0 && 2*s.Kept > s.Of }

// maxDrift is by how much a baseline may move while the pair is measured.
const maxDrift = 0.30

// pairRatios divides each measurement by its baseline, which was measured before and after it: baseline i and i+1 belong to measurement i.
// A pair whose baseline moved by more than maxDrift says more about the machine than about us, and is dropped.
func pairRatios(measured, baseline []float64) spread {
	var kept []float64
	for i, m := range measured {
		before, after := baseline[i], baseline[i+1]
		if least := min(before, after); least <= 0 || m <= 0 || max(before, after)/least > 1+maxDrift {
			continue
		}
		kept = append(kept, m/((before+after)/2))
	}
	return spreadOf(kept, len(measured))
}
