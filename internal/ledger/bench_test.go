package ledger_test

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"sluis/internal/ledger"
)

// BenchmarkAppend appends entries of 600 incompressible bytes with three search terms, and an item of state in one of ten,
// until durable, by so many writers at once, with the index following.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			w := newWorld(b)
			w.spoiled = true // verifying it is another benchmark
			l := w.open()
			var next atomic.Int64
			payloads := make([][]byte, b.N)
			for i := range payloads {
				noise := make([]byte, 250)
				_, _ = rand.Read(noise)
				payloads[i] = fmt.Appendf(nil, "pad %x\nterm p%d\nterm r%d\nterm c%d", noise,
					mathrand.IntN(200_000), mathrand.IntN(500), mathrand.IntN(50_000))
				if i%10 == 0 {
					payloads[i] = fmt.Appendf(payloads[i], "\nput g%d x", mathrand.IntN(100_000))
				}
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for {
						i := int(next.Add(1)) - 1
						if i >= b.N {
							return
						}
						e := ledger.Entry{KeyID: fmt.Sprintf("case-%d", i%1000), Payload: payloads[i]}
						if _, err := l.Append(context.Background(), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	const entries = 20_000
	w := newWorld(b)
	fill(b, w.open(), entries)
	must(b, w.close())
	for b.Loop() {
		w.verify()
	}
	b.ReportMetric(float64(b.N)*entries/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkInclusionProof(b *testing.B) {
	const entries = 100_000
	w := newWorld(b)
	l := w.open()
	fill(b, l, entries)
	for b.Loop() {
		if _, err := l.InclusionProof(b.Context(), mathrand.Uint64N(entries), entries); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	w := newWorld(b)
	l := w.open()
	fill(b, l, 1000)
	for b.Loop() {
		if _, _, ok, err := l.Get(b.Context(), "k7"); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	w := newWorld(b)
	l := w.open()
	fill(b, l, 10_000)
	for b.Loop() {
		if _, _, err := l.Search(b.Context(), ledger.Query{Terms: []string{"mod3-1", "mod5-2"}}); err != nil {
			b.Fatal(err)
		}
	}
}
