package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// window is what came of one load, kept up for a while.
type window struct {
	done     int // requests that ended well within it, whenever they began
	failed   int
	err      error // the first failure
	seconds  float64
	p50, p99 time.Duration
	cpu      map[string]time.Duration // spent by each process
}

func (w window) perSecond() float64 { return float64(w.done) / w.seconds }

// perRequest returns what a request cost of the processes with these names, or of all, in microseconds.
func (w window) perRequest(names ...string) float64 {
	var total time.Duration
	for name, spent := range w.cpu {
		if len(names) == 0 || slices.Contains(names, name) {
			total += spent
		}
	}
	return float64(total.Microseconds()) / float64(max(w.done, 1))
}

// maxFailures is how many requests of a window may fail before it is broken off.
const maxFailures = 10_000

// drive has a number of callers ask, each the next thing as soon as the last was answered. It lets the load settle for a tenth of the time,
// then measures. Failures are counted: a load that is refused says something too.
func drive(ctx context.Context, callers int, length time.Duration, processes map[string]process, ask func(context.Context) error) (window, error) {
	whole := ctx
	ctx, cancel := context.WithCancel(whole)
	defer cancel()
	var (
		group     sync.WaitGroup
		mu        sync.Mutex // guards the next three
		latencies []time.Duration
		failed    int
		first     error
		measuring atomic.Bool
	)
	for range callers {
		group.Go(func() {
			var own []time.Duration
			for ctx.Err() == nil {
				start := time.Now()
				err := ask(ctx)
				switch {
				case err == nil && measuring.Load():
					own = append(own, time.Since(start))
				case err != nil && ctx.Err() == nil:
					mu.Lock()
					failed++
					if first == nil {
						first = err
					}
					stop := failed > maxFailures
					mu.Unlock()
					if stop {
						cancel()
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			latencies = append(latencies, own...)
		})
	}
	wait(ctx, length/10)
	before, err := cpuOf(processes)
	start := time.Now()
	measuring.Store(true)
	wait(ctx, length)
	measuring.Store(false)
	w := window{seconds: time.Since(start).Seconds(), cpu: map[string]time.Duration{}}
	after, err2 := cpuOf(processes)
	cancel()
	group.Wait()
	if err := errors.Join(err, err2, whole.Err()); err != nil {
		return window{}, err
	}
	for name := range processes {
		w.cpu[name] = after[name] - before[name]
	}
	slices.Sort(latencies)
	w.done, w.failed, w.err = len(latencies), failed, first
	w.p50, w.p99 = quantile(latencies, 0.50), quantile(latencies, 0.99)
	return w, nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
