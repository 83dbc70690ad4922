package policy

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"sluis/policies"
)

// grown returns the policy with n more rows, in flows that no measured request asks for.
func grown(t testing.TB, n int) fs.FS {
	t.Helper()
	if n == 0 {
		return policies.FS
	}
	e, err := load(policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	return overlay(t, map[string]func(string) string{"catalogue/legal-bases.yaml": func(s string) string {
		var rows strings.Builder
		rows.WriteString(s)
		for i := 0; i < n; {
			for _, source := range []string{"E", "OM", "RK", "DJI"} {
				for _, purpose := range e.catalogue.purposes {
					if purpose.Incompatible {
						continue
					}
					secrecy := "  secrecy: [statute]\n"
					if source == "E" {
						secrecy = ""
					}
					fmt.Fprintf(&rows, "\n- id: LB-X%d\n  source: %s\n  recipient: MS\n  purposes: [%s]\n  ground: AVG 6(1)(e)\n  law: [none]\n"+
						"  conditions: [LAW, NEED]\n%s  allowed: [ID]\n  retention: R.CASE\n  confidence: K\n", i, source, purpose.Code, secrecy)
					i++
				}
			}
		}
		return rows.String()
	}})
}

func measured() map[string]string {
	return map[string]string{"permit": "T01", "partial": "LB-011 permits", "deny": "T03", "deny_no_row": "T04"}
}

// BenchmarkDecide measures a decision on a warm goroutine, with the whole catalogue and with 4,000 rows more.
func BenchmarkDecide(b *testing.B) {
	for _, more := range []int{0, 4000} {
		e, err := load(grown(b, more))
		if err != nil {
			b.Fatal(err)
		}
		v, err := e.rules.evaluator(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range []string{"permit", "partial", "deny", "deny_no_row"} {
			in := golden(b, e, measured()[name])
			b.Run(fmt.Sprintf("%s/rows=%d", name, len(e.catalogue.rows)), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e.decide(context.Background(), v, &in)
				}
			})
		}
	}
}

// BenchmarkDecideParallel measures the same through the queue, as the broker asks.
func BenchmarkDecideParallel(b *testing.B) {
	e := running(b, policies.FS)
	in := golden(b, e, measured()["permit"])
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Decide(context.Background(), in); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// TestAllocations keeps decisions cheap, and their cost apart from the number of rows.
func TestAllocations(t *testing.T) {
	most := map[string]float64{"permit": 310, "partial": 370, "deny": 700, "deny_no_row": 340}
	small := map[string]float64{}
	for _, more := range []int{0, 2000} {
		e, err := load(grown(t, more))
		if err != nil {
			t.Fatal(err)
		}
		v, err := e.rules.evaluator(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, limit := range most {
			in := golden(t, e, measured()[name])
			got := testing.AllocsPerRun(50, func() { e.decide(context.Background(), v, &in) })
			if more == 0 {
				small[name] = got
			}
			if got > limit*underRace || got > small[name]*1.05 {
				t.Errorf("%s takes %.0f allocations with %d rows more, %.0f without; want at most %.0f", name, got, more, small[name], limit)
			}
		}
	}
}
