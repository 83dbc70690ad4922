package broker

import (
	"fmt"
	"testing"
	"time"

	"sluis/internal/disclosure"
)

func TestAnswers(t *testing.T) {
	at := time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC)
	key := func(i int) flightKey { return flightKey{"00000001007654321000", disclosure.RequestID(fmt.Sprint(i))} }
	paper := make([]byte, 100<<10) // receipts may be much larger than the answer
	d := disclosure.Disclosure{
		Answer: []byte("answer"), DecisionReceipt: disclosure.Receipt{Payload: paper}, OutcomeReceipt: &disclosure.Receipt{Payload: paper},
	}
	kept := func(a *answers, now time.Time) (kept []int) {
		for i := range 100 {
			if _, ok := a.get(key(i), now); ok {
				kept = append(kept, i)
			}
		}
		return kept
	}

	a := newAnswers(time.Minute, 1<<20)
	for i := range 20 {
		a.put(key(i), d, at)
	}
	if got, want := fmt.Sprint(kept(a, at)), "[15 16 17 18 19]"; got != want { // a sixth would not fit in 1 MiB
		t.Errorf("kept %s, want %s", got, want)
	}
	if a.bytes > a.max {
		t.Errorf("%d bytes kept, limit %d", a.bytes, a.max)
	}
	if got := kept(a, at.Add(time.Minute)); len(got) > 0 {
		t.Errorf("after the term there is still %v", got)
	}
	a.put(key(50), disclosure.Disclosure{Answer: []byte("one")}, at.Add(30*time.Second))
	a.put(key(50), disclosure.Disclosure{Answer: []byte("two")}, at.Add(50*time.Second))
	a.put(key(51), disclosure.Disclosure{Answer: []byte("other")}, at.Add(95*time.Second)) // the first of them has expired by then
	if got, _ := a.get(key(50), at.Add(95*time.Second)); string(got.Answer) != "two" {
		t.Errorf("got %q", got.Answer)
	}
	a.put(key(52), disclosure.Disclosure{Answer: make([]byte, 2<<20)}, at.Add(time.Minute))
	if got := kept(a, at.Add(time.Minute)); len(got) > 0 {
		t.Errorf("kept %v beside what does not fit", got)
	}
	if a.bytes != 0 || len(a.kept) != 0 || len(a.order) != 0 {
		t.Errorf("%d bytes, %d answers and %d places left", a.bytes, len(a.kept), len(a.order))
	}
}
