package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

const (
	welcomeTimeout = 10 * time.Second
	skewWarning    = 5 * time.Second
	// steady is how long a stream must last before the next failure counts as the first.
	steady = 30 * time.Second
)

// Answer answers one question of the broker. An error tells the broker that there is no answer; why, is for the log here.
type Answer = func(ctx context.Context, question disclosure.Question) (disclosure.Reply, error)

// Serve answers the broker's questions for the hats of the organisation until ctx ends, over a stream that it opens again, after a random
// and growing delay, whenever it ends. Questions are answered by cfg.Workers goroutines; while all are busy the broker has to wait. Once
// ctx has ended, running answers may still finish, for cfg.Leave. The result is nil then; an error says that the arguments were wrong.
func (c *Client) Serve(ctx context.Context, domains []disclosure.Domain, version string, answer Answer) error {
	if len(domains) == 0 || answer == nil {
		return errors.New("rpc: serve needs domains and an answer")
	}
	hello := &sluisv1.AgentHello{Domains: stringsOf(domains), Version: version}
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range c.cfg.Workers {
		workers.Go(func() {
			for j := range jobs {
				j.answerWith(answer)
			}
		})
	}
	defer workers.Wait()
	defer close(jobs)
	for failures := 0; ; failures++ {
		started := c.cfg.Clock()
		err := c.serveStream(ctx, hello, jobs)
		if ctx.Err() != nil {
			return nil
		}
		if c.cfg.Clock().Sub(started) > steady {
			failures = 0
		}
		delay := jitter(c.cfg.BackoffBase, c.cfg.BackoffMax, failures)
		c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "stream to the broker ended",
			slog.Any("error", err), slog.Duration("again_after", delay))
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// jitter is full jitter: anything up to a bound that doubles with each failure.
func jitter(base, limit time.Duration, failures int) time.Duration {
	bound := base
	for range failures {
		if bound >= limit/2 {
			bound = limit
			break
		}
		bound *= 2
	}
	return rand.N(bound + 1) //nolint:gosec // chance, not secrecy
}

// serveStream opens one stream and serves it until it ends.
func (c *Client) serveStream(ctx context.Context, hello *sluisv1.AgentHello, jobs chan<- job) error {
	// The stream outlives ctx for a while, so that running answers can still be sent.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopOpening := context.AfterFunc(ctx, cancel)
	defer stopOpening()
	wire, err := c.open(streamCtx, cancel, hello)
	if err != nil {
		return err
	}
	if !stopOpening() {
		return ctx.Err()
	}
	s := &agentStream{cfg: c.cfg, ctx: streamCtx, wire: wire}
	left := make(chan struct{})
	stopLeaving := context.AfterFunc(ctx, func() {
		s.leave(cancel)
		close(left)
	})
	err = s.receive(jobs)
	cancel()
	if !stopLeaving() {
		<-left
	}
	return err
}

// open opens a stream and exchanges hello and welcome.
func (c *Client) open(
	ctx context.Context, cancel context.CancelFunc, hello *sluisv1.AgentHello,
) (grpc.BidiStreamingClient[sluisv1.ConnectRequest, sluisv1.ConnectResponse], error) {
	timer := time.AfterFunc(welcomeTimeout, cancel)
	defer timer.Stop()
	wire, err := sluisv1.NewAgentServiceClient(c.conn).Connect(ctx)
	if err != nil {
		return nil, errorFrom(err)
	}
	if err := wire.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
		// The reason comes with Recv.
		c.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "hello not sent", slog.Any("error", err))
	}
	first, err := wire.Recv()
	if err != nil {
		return nil, errorFrom(err)
	}
	if first.GetWelcome() == nil || first.GetWelcome().GetTime().CheckValid() != nil {
		return nil, fmt.Errorf("%w: no welcome", ErrMalformedResponse)
	}
	skew := first.GetWelcome().GetTime().AsTime().Sub(c.cfg.Clock())
	if skew.Abs() > skewWarning {
		c.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "clocks of broker and agent differ", slog.Duration("broker_ahead", skew))
	}
	c.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "connected to the broker", slog.Int("hats", len(hello.GetDomains())))
	return wire, nil
}

// agentStream is one stream, as the agent sees it.
type agentStream struct {
	cfg  ClientConfig
	ctx  context.Context //nolint:containedctx // of the stream; a question belongs to its stream and not to the worker that answers it
	wire grpc.BidiStreamingClient[sluisv1.ConnectRequest, sluisv1.ConnectResponse]

	sending sync.Mutex // held while sending: gRPC allows one at a time

	mu      sync.Mutex // guards the rest
	leaving bool
	running sync.WaitGroup // questions; only added to while leaving is false
}

// job is one question to answer.
type job struct {
	stream   *agentStream
	id       uint64
	question disclosure.Question
}

// receive hands questions to workers until the stream ends.
func (s *agentStream) receive(jobs chan<- job) error {
	for {
		m, err := s.wire.Recv()
		if err != nil {
			return errorFrom(err)
		}
		if m.GetQuestion() == nil {
			return fmt.Errorf("%w: not a question", ErrMalformedResponse)
		}
		var f faults
		at := root()
		j := job{stream: s, id: m.GetQuestion().GetQuestionId(), question: questionFrom(&f, at, m.GetQuestion())}
		if err := f.err(); err != nil {
			s.cfg.Logger.LogAttrs(s.ctx, slog.LevelWarn, "malformed question", slog.Any("error", err))
			s.send(&sluisv1.AgentAnswer{QuestionId: j.id})
			continue
		}
		if !s.begin() {
			s.send(&sluisv1.AgentAnswer{QuestionId: j.id})
			continue
		}
		select {
		case jobs <- j:
		case <-s.ctx.Done():
			s.running.Done()
		}
	}
}

// begin reports false when no questions are taken any more.
func (s *agentStream) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		return false
	}
	s.running.Add(1)
	return true
}

// leave lets running answers finish, for as long as is allowed, and then closes the stream.
func (s *agentStream) leave(cancel context.CancelFunc) {
	// If the broker does not end the stream in that time, it is cut.
	timer := time.AfterFunc(s.cfg.Leave, cancel)
	context.AfterFunc(s.ctx, func() { timer.Stop() })
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
	s.running.Wait() // their contexts end with the stream's
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.wire.CloseSend(); err != nil {
		cancel()
	}
}

// send sends an answer. When that fails the stream is at its end, which receive notices.
func (s *agentStream) send(answer *sluisv1.AgentAnswer) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.ctx.Err() != nil {
		return
	}
	err := s.wire.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Answer{Answer: answer}})
	if err != nil {
		s.cfg.Logger.LogAttrs(s.ctx, slog.LevelDebug, "answer not sent", slog.Any("error", err))
	}
}

// answerWith answers the question. Without a usable reply the broker is told that there is none, so that it need not wait.
func (j job) answerWith(answer Answer) {
	s := j.stream
	defer s.running.Done()
	if s.ctx.Err() != nil {
		return // nobody to tell
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.QuestionTimeout)
	defer cancel()
	reply, err := j.guarded(ctx, answer)
	if err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "question not answered", slog.Any("error", err))
		s.send(&sluisv1.AgentAnswer{QuestionId: j.id})
		return
	}
	s.send(&sluisv1.AgentAnswer{QuestionId: j.id, Manifest: signedTo(reply.Manifest), Answer: reply.Answer})
}

var errBadReply = errors.New("rpc: answer is larger than the contract allows, or has no manifest")

// guarded makes a panic an error. The results are named for the sake of the recovery alone.
func (j job) guarded(ctx context.Context, answer Answer) (reply disclosure.Reply, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			// Not the value: it may hold what nobody may log.
			reply, err = disclosure.Reply{}, fmt.Errorf("%w: %T", errPanic, cause)
		}
	}()
	reply, err = answer(ctx, j.question)
	if err == nil && (len(reply.Answer) > disclosure.MaxAnswer || len(reply.Manifest.Payload) == 0 ||
		len(reply.Manifest.Payload) > maxSignedPayload) {
		return disclosure.Reply{}, errBadReply
	}
	return reply, err
}
