//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
	"sluis/internal/source"
)

// station is the answering side of an organisation in one hat: an agent that serves the broker's questions from a source, and remembers
// what it was asked.
type station struct {
	w      *world
	party  disclosure.Party
	source *agent.Source

	mu    sync.Mutex                                       // guards the rest
	seen  []receipt.Permit                                 // every permit that came in, in order
	hook  func(ctx context.Context, permit receipt.Permit) // called before a question is answered
	after func(receipt.Permit)                             // called when an answer is ready, before it is sent
	leave func()                                           // nil while it is away
}

// station makes a source answer. It is connected when station returns; the broker must be serving.
func (w *world) station(party disclosure.Party) *station {
	w.t.Helper()
	c, err := source.Open(w.t.Context(), sourceConfigs(w.sources)[party.Domain])
	if err != nil {
		w.t.Fatal(err)
	}
	answering := w.agent(party.OIN) // makes the state folder
	seen, err := agent.OpenSeenPermits(w.state(party.OIN), time.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	s := &station{w: w, party: party, source: agent.NewSource(answering, agent.SourceConfig{
		Connectors: map[disclosure.Domain]agent.Connector{party.Domain: connector{c}}, Seen: seen,
	})}
	w.t.Cleanup(func() {
		s.disconnect()
		if err := errors.Join(c.Close(), seen.Close()); err != nil {
			w.t.Error(err)
		}
	})
	s.connect()
	return s
}

// connect opens the stream, which comes back by itself when the broker does, and waits until it is open.
func (s *station) connect() {
	s.w.t.Helper()
	connected := &watch{text: "connected to the broker", seen: make(chan struct{})}
	// A connection of its own: it is the process of the source.
	client := s.w.dial(person{oin: s.party.OIN}, slog.New(slog.NewTextHandler(connected, nil)))
	ctx, cancel := context.WithCancel(context.Background()) // the test's ends before its cleanup
	done := make(chan error, 1)
	go func() { done <- client.Serve(ctx, []disclosure.Domain{s.party.Domain}, "e2e", s.answer) }()
	s.mu.Lock()
	s.leave = func() {
		cancel()
		if err := <-done; err != nil {
			s.w.t.Errorf("agent of %s: %v", s.party.Domain, err)
		}
	}
	s.mu.Unlock()
	select {
	case <-connected.seen:
	case <-time.After(patience):
		s.w.t.Fatalf("agent of %s is not connected", s.party.Domain)
	}
}

// disconnect ends the stream, once running answers have been sent.
func (s *station) disconnect() {
	s.mu.Lock()
	leave := s.leave
	s.leave = nil
	s.mu.Unlock()
	if leave != nil {
		leave()
	}
}

func (s *station) answer(ctx context.Context, q disclosure.Question) (disclosure.Reply, error) {
	var permit receipt.Permit
	if err := json.Unmarshal(q.Permit.Payload, &permit); err != nil {
		return disclosure.Reply{}, err
	}
	s.mu.Lock()
	s.seen = append(s.seen, permit)
	hook, after := s.hook, s.after
	s.mu.Unlock()
	if hook != nil {
		hook(ctx, permit)
	}
	reply, err := s.source.Answer(ctx, q)
	if after != nil {
		after(permit)
	}
	return reply, err
}

// hold makes the station call hook before it answers. Nil lets it answer at once.
func (s *station) hold(hook func(context.Context, receipt.Permit)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// questions returns the permits that came in.
func (s *station) questions() []receipt.Permit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// watch is the log of an agent, of which only one message matters.
type watch struct {
	text string
	once sync.Once
	seen chan struct{}
}

// Write implements io.Writer.
func (l *watch) Write(line []byte) (int, error) {
	if strings.Contains(string(line), l.text) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(line), nil
}

// connector lets an agent read a source, as cmd/agent does.
type connector struct{ source source.Connector }

// Read implements agent.Connector.
func (c connector) Read(
	ctx context.Context, person envelope.Identity, fields []disclosure.Field,
) ([]receipt.Record, []disclosure.Withheld, error) {
	result, err := c.source.Read(ctx, source.Person(person), fields)
	if errors.Is(err, source.ErrPersonNotFound) {
		return nil, nil, fmt.Errorf("%w: %w", disclosure.ReasonPersonNotFound, err)
	}
	if err != nil {
		return nil, nil, err
	}
	records := make([]receipt.Record, len(result.Records))
	for i, r := range result.Records {
		values := make(map[string]string, len(r.Values))
		for field, value := range r.Values {
			values[field.Name()] = value
		}
		records[i] = receipt.Record{Category: r.Category, Values: values}
	}
	return records, result.Withheld, nil
}
