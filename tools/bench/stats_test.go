package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPairRatiosDropsWhereTheBaselineMoved(t *testing.T) {
	// Between the second and third baseline the machine became half as fast.
	got := pairRatios([]float64{50, 40, 30}, []float64{100, 100, 50, 60})
	want := spread{Median: (0.5 + 30.0/55) / 2, Low: 0.5, High: 30.0 / 55, Kept: 2, Of: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.conclusive() {
		t.Error("two of three are inconclusive")
	}
	if lost := pairRatios([]float64{50, 40}, []float64{100, 200, 100}); lost.conclusive() || lost.Of != 2 {
		t.Errorf("none of two: got %+v", lost)
	}
	if stuck := pairRatios([]float64{0}, []float64{100, 100}); stuck.conclusive() {
		t.Errorf("nothing done in the window: got %+v", stuck)
	}
}

func TestQuantile(t *testing.T) {
	var sorted []time.Duration
	for i := range 100 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0.5: 50, 0.99: 99, 1: 100, 0.001: 1} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile %v: got %d, want %d", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: got %d", got)
	}
}

func TestJudged(t *testing.T) {
	for _, test := range []struct {
		value, floor, target float64
		want                 string
	}{
		{0.80, 0.45, 0.70, verdictTarget}, {0.50, 0.45, 0.70, verdictFloor}, {0.40, 0.45, 0.70, verdictMissed}, // more is better
		{1.5, 2.8, 1.8, verdictTarget}, {2.0, 2.8, 1.8, verdictFloor}, {3.0, 2.8, 1.8, verdictMissed}, // less is better
		{3.0, 0, 0, verdictNone},
	} {
		if got := judged("x", "", test.value, test.floor, test.target).Verdict; got != test.want {
			t.Errorf("%v against %v and %v: got %q, want %q", test.value, test.floor, test.target, got, test.want)
		}
	}
}

func TestBSNsAreOfTheTestRange(t *testing.T) {
	for n, want := range map[int]string{0: bsn(0), 1: bsn(1)} {
		sum := 0
		for i, digit := range want {
			weight := 9 - i
			if weight == 1 {
				weight = -1
			}
			sum += weight * int(digit-'0')
		}
		if len(want) != 9 || want[:4] != "9999" || sum%11 != 0 {
			t.Errorf("number %d is %s", n, want)
		}
	}
	if bsn(0) == bsn(1) {
		t.Error("two people with one number")
	}
}

func TestSyntheticRowsLoad(t *testing.T) {
	files, err := policyFiles(syntheticRows)
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ ID string }
	if err := readYAML(files, "catalogue/legal-bases.yaml", &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != syntheticRows {
		t.Errorf("got %d rows, want %d", len(rows), syntheticRows)
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-quick", "-pairs", "4", "-callers", "1,2"}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if o.pairs != 4 || o.length != time.Second/2 || len(o.callers) != 2 {
		t.Errorf("got %+v", o)
	}
	for _, args := range [][]string{{"-callers", "0"}, {"-only", "x"}, {"-o", "xml"}, {"-pairs", "0"}, {"more"}} {
		if _, err := parse(args, t.Output()); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
