//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/receipt"
	"sluis/internal/rpc"
)

// recorder passes requests on to the broker and remembers everything that came back, as it came.
type recorder struct {
	client *rpc.Client
	before func() // called before each call
	after  func() // called when something came back

	mu       sync.Mutex // guards received
	received []disclosure.Disclosure
}

// RequestDisclosure implements agent.Discloser.
func (r *recorder) RequestDisclosure(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query, sealed []byte,
) (disclosure.Disclosure, error) {
	r.before()
	d, err := r.client.RequestDisclosure(ctx, id, q, sealed)
	if err != nil {
		return d, err
	}
	r.mu.Lock()
	r.received = append(r.received, d)
	r.mu.Unlock()
	r.after()
	return d, nil
}

// Explain implements agent.Discloser.
func (r *recorder) Explain(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query,
) (disclosure.Explanation, disclosure.Receipt, error) {
	return r.client.Explain(ctx, id, q)
}

// striker kills the broker at a moment that is chosen beforehand: the n-th time that something happens.
type striker struct {
	w    *world
	left [moments]atomic.Int64 // not positive: nothing happens
}

// The moments at which a broker may be killed.
const (
	onAsk      = iota // a requester is about to call
	onQuestion        // a source has been asked and has not answered
	onAnswer          // a source has its answer ready
	onAnswered        // a source's answer is on its way
	onResult          // a requester has its answer
	moments
)

func (s *striker) now(moment int) {
	if s.left[moment].Add(-1) == 0 {
		s.w.running().kill()
	}
}

// TestCrash kills a loaded broker again and again, and then holds what requesters and sources saw against the ledger: nothing that was
// received is missing from it (I1), no request was answered twice (I7), and every permit came to an end.
func TestCrash(t *testing.T) {
	const requesters, kills = 16, 5
	w := newWorld(t)
	w.start()
	strike := &striker{w: w}
	asked := w.station(police())
	asked.hold(func(context.Context, receipt.Permit) { strike.now(onQuestion) })
	asked.after = func(receipt.Permit) {
		strike.now(onAnswer)
		if strike.left[onAnswered].Load() > 0 { // after the stream had a chance to send it
			go strike.now(onAnswered)
		}
	}
	queries := []disclosure.Query{w.openCase(persons()[0]).aboutNuisance(), w.openCase(persons()[1]).aboutNuisance()}
	denied := queries[0]
	denied.Purpose = "CASUSOVERLEG"
	denied.Motive = nil
	queries = append(queries, denied)

	load := newLoad(w, queries, strike)
	load.run(requesters)
	rounds, deadline := 0, time.Now().Add(suite.soak)
	for rounds < kills || time.Now().Before(deadline) {
		crash(t, w, strike, rounds)
		rounds++
	}
	load.stop()
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	load.check(entries)
	checkQuestions(t, entries, asked.questions())
	abandoned := checkAbandoned(t, entries)
	t.Logf("%d kills, %d requests ended, %d results received, %d answers opened, %d questions seen, %d entries, %d abandoned",
		rounds, load.ended.Load(), len(load.recorder.received), load.opened.Load(), len(asked.questions()), len(entries), abandoned)
}

// crash lets the broker be killed at a moment of some kind and starts it again. Now and then that start is killed too.
func crash(t *testing.T, w *world, strike *striker, round int) {
	t.Helper()
	const most = 40
	switch kind := round % (moments + 1); kind {
	case moments:
		pause(t.Context(), rand.N(100*time.Millisecond)) // whatever the broker is doing then
		w.running().kill()
	default:
		strike.left[kind].Store(1 + rand.Int64N(most))
	}
	select {
	case <-w.running().done:
	case <-time.After(patience):
		t.Fatal("the moment at which the broker was to be killed does not come")
	}
	for i := range strike.left {
		strike.left[i].Store(0)
	}
	if round%3 == 2 {
		p := w.launch()
		pause(t.Context(), rand.N(300*time.Millisecond)) // whatever it has prepared by then
		p.kill()
		<-p.done
	}
	w.start()
}

// load is a number of requesters that ask as fast as they can, and try again what failed until it has an end.
type load struct {
	w        *world
	recorder *recorder
	queries  []disclosure.Query
	stopping chan struct{}
	group    sync.WaitGroup
	ended    atomic.Int64 // requests with an end
	opened   atomic.Int64 // answers whose content a requester had in its hands
}

func newLoad(w *world, queries []disclosure.Query, strike *striker) *load {
	return &load{
		w: w, queries: queries, stopping: make(chan struct{}),
		recorder: &recorder{
			client: w.client(supervisor()),
			before: func() { strike.now(onAsk) },
			after:  func() { strike.now(onResult) },
		},
	}
}

func (l *load) run(requesters int) {
	requester := agent.NewRequester(l.w.agent(probationOIN), l.recorder)
	for n := range requesters {
		l.group.Go(func() {
			for i := n; ; i++ {
				select {
				case <-l.stopping:
					return
				default:
				}
				if err := l.request(requester, l.queries[i%len(l.queries)]); err != nil {
					l.w.t.Error(err)
					return
				}
				l.ended.Add(1)
			}
		})
	}
}

// stop lets requests that are under way come to their end.
func (l *load) stop() {
	close(l.stopping)
	l.group.Wait()
}

// request asks until there is an end.
func (l *load) request(requester *agent.Requester, q disclosure.Query) error {
	id := newRequestID()
	deadline := time.Now().Add(2 * patience)
	for {
		result, err := requester.Request(l.w.t.Context(), ask(id, q))
		code := reasonOf(err)
		switch {
		case err == nil:
			if len(result.Records) > 0 {
				l.opened.Add(1)
			}
			return nil
		case code == disclosure.ReasonAnswerGone: // it was given, and the broker no longer has it
			return nil
		case errors.Is(err, agent.ErrVerification):
			return fmt.Errorf("request %s: %w", id, err)
		case time.Now().After(deadline):
			return fmt.Errorf("request %s comes to no end: %w", id, err)
		}
		// The broker is down or starting, the source is on its way back, or an earlier try is still open.
		pause(l.w.t.Context(), 20*time.Millisecond)
	}
}

// check holds what was received against the ledger.
func (l *load) check(entries []entry) {
	t := l.w.t
	t.Helper()
	first := map[disclosure.RequestID]disclosure.Receipt{}
	for _, d := range l.recorder.received {
		checkReceipt(t, entries, d.DecisionReceipt)
		made := entries[min(d.DecisionReceipt.Index, uint64(len(entries)-1))].event
		if made.Kind != disclosure.KindDecisionMade || made.DecisionMade.Input.Request.ID != d.Request {
			t.Errorf("request %s: entry %d is not its decision", d.Request, d.DecisionReceipt.Index)
			continue
		}
		if made.DecisionMade.Decision.Effect != disclosure.Permit {
			if len(d.Answer) > 0 || d.OutcomeReceipt != nil {
				t.Errorf("request %s: denied, and answered", d.Request)
			}
			continue
		}
		if d.OutcomeReceipt == nil {
			t.Errorf("request %s: permitted, and no outcome received", d.Request)
			continue
		}
		checkReceipt(t, entries, *d.OutcomeReceipt)
		ended := entries[min(d.OutcomeReceipt.Index, uint64(len(entries)-1))].event
		if ended.Kind != disclosure.KindOutcomeRecorded || ended.OutcomeRecorded.Request != d.Request ||
			ended.OutcomeRecorded.DecisionIndex != d.DecisionReceipt.Index {
			t.Errorf("request %s: entry %d is not its outcome", d.Request, d.OutcomeReceipt.Index)
			continue
		}
		if len(d.Answer) > 0 && ended.OutcomeRecorded.Outcome != disclosure.Disclosed {
			t.Errorf("request %s: an answer was received, and %s recorded", d.Request, ended.OutcomeRecorded.Outcome)
		}
		if before, ok := first[d.Request]; ok && before.Index != d.OutcomeReceipt.Index {
			t.Errorf("request %s: outcome received as entry %d and as entry %d", d.Request, before.Index, d.OutcomeReceipt.Index)
		}
		first[d.Request] = *d.OutcomeReceipt
	}
	if l.opened.Load() == 0 || len(l.recorder.received) == 0 {
		t.Error("nothing was received, so nothing was tested")
	}
}

// checkReceipt checks that a receipt is what the ledger holds, to the byte.
func checkReceipt(t *testing.T, entries []entry, r disclosure.Receipt) {
	t.Helper()
	if r.Index >= uint64(len(entries)) {
		t.Errorf("receipt of entry %d was received, and the ledger has %d entries", r.Index, len(entries))
		return
	}
	e := entries[r.Index]
	if !e.Time.Equal(r.Time) || !bytes.Equal(e.Leaf, r.Leaf) || !bytes.Equal(e.Salt, r.Salt) || !bytes.Equal(e.Payload, r.Payload) {
		t.Errorf("receipt of entry %d is not what the ledger holds", r.Index)
	}
}

// checkQuestions checks that a source was never asked anything without a permit in the ledger (I1), nor twice on the same decision.
func checkQuestions(t *testing.T, entries []entry, permits []receipt.Permit) {
	t.Helper()
	if len(permits) == 0 {
		t.Error("no question came in, so nothing was tested")
	}
	seen := map[uint64]bool{}
	for _, p := range permits {
		if p.DecisionIndex >= uint64(len(entries)) {
			t.Errorf("a question was asked on decision %d, and the ledger has %d entries", p.DecisionIndex, len(entries))
			continue
		}
		made := entries[p.DecisionIndex].event
		if made.Kind != disclosure.KindDecisionMade || made.DecisionMade.Decision.Effect != disclosure.Permit ||
			made.DecisionMade.Input.Request.ID != p.Request || made.DecisionMade.Input.Request.Requester != p.Requester ||
			!slices.Equal(made.DecisionMade.Decision.Released, p.Fields) {
			t.Errorf("a question was asked for request %s, and entry %d is not its permit", p.Request, p.DecisionIndex)
		}
		if seen[p.DecisionIndex] {
			t.Errorf("the source was asked twice on decision %d", p.DecisionIndex)
		}
		seen[p.DecisionIndex] = true
	}
}

// checkAbandoned checks that what a crash left open was closed by the start after it, and not because somebody asked again much later. It gives
// the number of permits that were abandoned.
func checkAbandoned(t *testing.T, entries []entry) int {
	t.Helper()
	n := 0
	for _, e := range entries {
		if e.event.Kind != disclosure.KindOutcomeRecorded || e.event.OutcomeRecorded.Outcome != disclosure.Abandoned {
			continue
		}
		n++
		if got := e.event.OutcomeRecorded.Reason; got != disclosure.ReasonBrokerRestarted {
			t.Errorf("entry %d: abandoned because of %s, want %s", e.Index, got, disclosure.ReasonBrokerRestarted)
		}
	}
	return n
}
