package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
	"sluis/internal/relay"
	"sluis/internal/rpc"
)

func fullQuestion(text string) disclosure.Question {
	return disclosure.Question{
		Permit:         disclosure.Signed{Payload: []byte(text), Signature: make([]byte, 64)},
		SealedIdentity: []byte("identity"), RequesterStatement: []byte("statement"),
	}
}

func replyTo(q disclosure.Question) disclosure.Reply {
	return disclosure.Reply{
		Manifest: disclosure.Signed{Payload: []byte("manifest"), Signature: make([]byte, 64)},
		Answer:   append([]byte("answer to "), q.Permit.Payload...),
	}
}

// serve lets an agent of the police answer. The result comes when Serve has returned.
func (w *world) serve(ctx context.Context, client *rpc.Client, answer rpc.Answer) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- client.Serve(ctx, []disclosure.Domain{"P"}, "1.0", answer) }()
	return ended
}

func (w *world) connected() bool { return len(w.relay.Connected()) > 0 }

func TestServeAnswers(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.deadline())
	asked := make(chan disclosure.Question, 1)
	ended := w.serve(ctx, w.client(police), func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
		asked <- q
		return replyTo(q), nil
	})
	until(t, "connected", w.connected)
	reply, err := w.relay.Ask(ctx, policeHat(), fullQuestion("permit"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullQuestion("permit"), receive(t, "question", asked)); diff != "" {
		t.Errorf("question (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(replyTo(fullQuestion("permit")), reply); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	cancel()
	if err := receive(t, "end", ended); err != nil {
		t.Errorf("end: %v", err)
	}
	until(t, "gone", func() bool { return !w.connected() })
}

func TestServeAnswersManyAtOnceAndNoMoreThanItsWorkers(t *testing.T) {
	w := newWorld(t)
	var running, most atomic.Int64
	w.serve(w.deadline(), w.client(police, func(cfg *rpc.ClientConfig) { cfg.Workers = 8 }),
		func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
			now := running.Add(1)
			for {
				before := most.Load()
				if now <= before || most.CompareAndSwap(before, now) {
					break
				}
			}
			defer running.Add(-1)
			return replyTo(q), nil
		})
	until(t, "connected", w.connected)
	results := make(chan error, 500)
	for i := range cap(results) {
		go func() {
			for {
				text := fmt.Sprint(i)
				reply, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion(text))
				if errors.Is(err, relay.ErrBusy) {
					continue
				}
				if err == nil && string(reply.Answer) != "answer to "+text {
					err = fmt.Errorf("answer to another question: %s", reply.Answer)
				}
				results <- err
				return
			}
		}()
	}
	for range cap(results) {
		if err := receive(t, "answer", results); err != nil {
			t.Fatal(err)
		}
	}
	if most.Load() > 8 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestServeTellsWhenThereIsNoAnswer(t *testing.T) {
	w := newWorld(t)
	w.serve(w.deadline(), w.client(police), func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
		switch string(q.Permit.Payload) {
		case "error":
			return disclosure.Reply{}, errors.New("database is down")
		case "panic":
			panic("999961007")
		case "large":
			r := replyTo(q)
			r.Answer = make([]byte, disclosure.MaxAnswer+1)
			return r, nil
		case "empty":
			return disclosure.Reply{}, nil
		}
		return replyTo(q), nil
	})
	until(t, "connected", w.connected)
	for _, text := range []string{"error", "panic", "large", "empty"} {
		if _, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion(text)); !errors.Is(err, relay.ErrFailed) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	malformed := fullQuestion("x")
	malformed.Permit.Signature = nil
	if _, err := w.relay.Ask(w.deadline(), policeHat(), malformed); !errors.Is(err, relay.ErrFailed) {
		t.Errorf("malformed question: got %v", err)
	}
	if _, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("fine")); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestServeLogsNoPanicValues(t *testing.T) {
	w := newWorld(t)
	logged := &lockedBuffer{}
	w.serve(w.deadline(), w.client(police, func(cfg *rpc.ClientConfig) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) }),
		func(context.Context, disclosure.Question) (disclosure.Reply, error) { panic("999961007") })
	until(t, "connected", w.connected)
	if _, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("x")); !errors.Is(err, relay.ErrFailed) {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(logged.String(), "panic") || strings.Contains(logged.String(), "999961007") {
		t.Errorf("log: %s", logged)
	}
}

func TestServeComesBack(t *testing.T) {
	w := newWorld(t)
	logged := &lockedBuffer{}
	ctx, cancel := context.WithCancel(w.deadline())
	ended := w.serve(ctx, w.client(police, func(cfg *rpc.ClientConfig) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) }),
		func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) { return replyTo(q), nil })
	until(t, "connected", w.connected)
	// An intruder with the same certificate takes the hat, and leaves.
	intruder, leave := context.WithCancel(w.deadline())
	gone := w.serve(intruder, w.client(police), func(context.Context, disclosure.Question) (disclosure.Reply, error) {
		return disclosure.Reply{}, errors.New("intruder")
	})
	until(t, "the first is told", func() bool { return strings.Contains(logged.String(), "CONTENTION") })
	leave()
	_ = receive(t, "end of the intruder", gone)
	until(t, "answered again", func() bool {
		_, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("x"))
		return err == nil
	})
	cancel()
	if err := receive(t, "end", ended); err != nil {
		t.Error(err)
	}
}

func TestServeKeepsTryingWhileRefused(t *testing.T) {
	w := newWorld(t)
	w.broker.set(func(b *fakeBroker) { delete(b.partners, police) })
	logged := &lockedBuffer{}
	ctx, cancel := context.WithCancel(w.deadline())
	ended := w.serve(ctx, w.client(police, func(cfg *rpc.ClientConfig) { cfg.Logger = slog.New(slog.NewTextHandler(logged, nil)) }),
		func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) { return replyTo(q), nil })
	until(t, "refused twice", func() bool { return strings.Count(logged.String(), "UNKNOWN_ORGANISATION") > 1 })
	w.broker.set(func(b *fakeBroker) {
		b.partners[police] = disclosure.Partner{OIN: police, Domains: []disclosure.Domain{"P"}}
	})
	until(t, "connected", w.connected)
	cancel()
	_ = receive(t, "end", ended)
}

func TestServeLetsAnswersFinishAtTheEnd(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.deadline())
	started, finish := make(chan struct{}, 2), make(chan struct{})
	ended := w.serve(ctx, w.client(police), func(ctx context.Context, q disclosure.Question) (disclosure.Reply, error) {
		started <- struct{}{}
		<-finish
		return replyTo(q), ctx.Err()
	})
	until(t, "connected", w.connected)
	result := make(chan error, 1)
	go func() {
		_, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("last"))
		result <- err
	}()
	receive(t, "start", started)
	cancel()
	// What comes now is refused at once, while the running answer goes on.
	until(t, "refusal", func() bool {
		asking, stop := context.WithTimeout(w.deadline(), time.Second)
		defer stop()
		_, err := w.relay.Ask(asking, policeHat(), fullQuestion("too late"))
		return errors.Is(err, relay.ErrFailed)
	})
	select {
	case err := <-ended:
		t.Fatalf("ended while an answer runs: %v", err)
	default:
	}
	close(finish)
	if err := receive(t, "answer", result); err != nil {
		t.Errorf("running answer: %v", err)
	}
	if err := receive(t, "end", ended); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestServeCutsOffAnswersThatTakeTooLongAtTheEnd(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.deadline())
	started := make(chan struct{}, 2)
	ended := w.serve(ctx, w.client(police, func(cfg *rpc.ClientConfig) { cfg.Leave, cfg.Workers = 50*time.Millisecond, 1 }),
		func(ctx context.Context, _ disclosure.Question) (disclosure.Reply, error) {
			started <- struct{}{}
			<-ctx.Done()
			return disclosure.Reply{}, ctx.Err()
		})
	until(t, "connected", w.connected)
	result := make(chan error, 2)
	for range cap(result) { // one is answered, one waits for the worker
		go func() {
			_, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("endless"))
			result <- err
		}()
	}
	receive(t, "start", started)
	cancel()
	if err := receive(t, "end", ended); err != nil {
		t.Errorf("end: %v", err)
	}
	for range cap(result) {
		if err := receive(t, "failure", result); err == nil {
			t.Error("answered")
		}
	}
}

func TestServeBoundsTheTimeOfAnAnswer(t *testing.T) {
	w := newWorld(t)
	w.serve(w.deadline(), w.client(police, func(cfg *rpc.ClientConfig) { cfg.QuestionTimeout = time.Millisecond }),
		func(ctx context.Context, _ disclosure.Question) (disclosure.Reply, error) {
			<-ctx.Done()
			return disclosure.Reply{}, ctx.Err()
		})
	until(t, "connected", w.connected)
	if _, err := w.relay.Ask(w.deadline(), policeHat(), fullQuestion("x")); !errors.Is(err, relay.ErrFailed) {
		t.Errorf("got %v", err)
	}
}

func TestServeEndsWhileThereIsNoBroker(t *testing.T) {
	w := newWorld(t)
	client := w.client(police, func(cfg *rpc.ClientConfig) { cfg.Target = "127.0.0.1:1" })
	ctx, cancel := context.WithCancel(w.deadline())
	ended := w.serve(ctx, client, func(context.Context, disclosure.Question) (disclosure.Reply, error) {
		return disclosure.Reply{}, nil
	})
	cancel()
	if err := receive(t, "end", ended); err != nil {
		t.Error(err)
	}
	if err := client.Serve(t.Context(), nil, "1.0", nil); err == nil {
		t.Error("serves nothing")
	}
}

func TestServeWarnsOfClocks(t *testing.T) {
	w := newWorld(t)
	logged := &lockedBuffer{}
	client := w.client(police, func(cfg *rpc.ClientConfig) {
		cfg.Logger = slog.New(slog.NewTextHandler(logged, nil))
		cfg.Clock = func() time.Time { return time.Now().Add(-10 * time.Second) }
	})
	w.serve(w.deadline(), client, func(context.Context, disclosure.Question) (disclosure.Reply, error) {
		return disclosure.Reply{}, nil
	})
	until(t, "warning", func() bool { return strings.Contains(logged.String(), "clocks of broker and agent differ") })
}

func TestLateAnswerIsReported(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	started := make(chan struct{}, 1)
	w.serve(w.deadline(), w.client(police), func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
		started <- struct{}{}
		<-release
		return replyTo(q), nil
	})
	until(t, "connected", w.connected)
	ctx, cancel := context.WithCancel(w.deadline())
	result := make(chan error, 1)
	go func() {
		_, err := w.relay.Ask(ctx, policeHat(), fullQuestion("x"))
		result <- err
	}()
	receive(t, "start", started)
	cancel()
	_ = receive(t, "cancellation", result)
	close(release)
	if got := receive(t, "late", w.late); got != policeHat() {
		t.Errorf("late answer of %v", got)
	}
}

func TestAgentThatLeavesIsNoErrorOfTheBroker(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.deadline())
	if err := connect(ctx, w.conn(city)); err != nil {
		t.Fatal(err)
	}
	until(t, "connected", w.connected)
	cancel() // without a word
	until(t, "gone", func() bool { return !w.connected() })
	w.stop()
	_ = receive(t, "stop", w.stopped)
	w.stopped <- nil
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Errorf("log: %s", w.log)
	}
}

func TestJitter(t *testing.T) {
	const base, limit = 100 * time.Millisecond, time.Second
	for failures, bound := range map[int]time.Duration{0: base, 1: 2 * base, 2: 4 * base, 4: limit, 1000: limit} {
		var least, most time.Duration = limit, 0
		for range 2000 {
			d := rpc.Jitter(base, limit, failures)
			least, most = min(least, d), max(most, d)
		}
		if most > bound || most < bound*9/10 || least > bound/10 {
			t.Errorf("after %d failures: %v to %v, want 0 to %v", failures, least, most, bound)
		}
	}
}
