package relay

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

const (
	maxHats      = 20
	maxVersion   = 64
	maxPayload   = 256 << 10 // of a manifest
	maxSignature = 64        // Ed25519
	maxAbandoned = 128       // questions given up whose answers can still be told apart
	maxUnknown   = 100       // answers to nothing that an agent may give before its stream is ended
)

// errMoved says that a stream no longer answers for a hat, because a newer one does.
var errMoved = errors.New("hat moved to another stream")

// call is one question and whoever waits for its answer.
type call struct {
	to      disclosure.Party
	message *sluisv1.ConnectResponse
	body    *sluisv1.BrokerQuestion // inside message
	end     chan ending             // gets exactly one value from whoever takes the call from stream.pending; buffered

	written bool // guarded by the stream's mu
}

type ending struct {
	reply disclosure.Reply
	err   error
}

func newCall(to disclosure.Party, q disclosure.Question) *call {
	body := &sluisv1.BrokerQuestion{
		Permit:             &sluisv1.Signed{Payload: q.Permit.Payload, Signature: q.Permit.Signature},
		SealedIdentity:     q.SealedIdentity,
		RequesterStatement: q.RequesterStatement,
	}
	return &call{
		to:      to,
		body:    body,
		message: &sluisv1.ConnectResponse{Message: &sluisv1.ConnectResponse_Question{Question: body}},
		end:     make(chan ending, 1),
	}
}

func (c *call) permit() disclosure.Signed {
	return disclosure.Signed{Payload: c.body.GetPermit().GetPayload(), Signature: c.body.GetPermit().GetSignature()}
}

// abandoned is a question that was written and then given up.
type abandoned struct {
	id     uint64
	to     disclosure.Party
	permit disclosure.Signed
}

// stream is one agent's stream. One goroutine reads, one writes.
type stream struct {
	cfg          Config
	organisation disclosure.OIN
	wire         Stream
	queue        chan *call
	done         chan struct{} // closed when err is set

	mu        sync.Mutex // guards the rest; never held while sending or receiving
	err       error      // why it ended
	hats      []disclosure.Party
	last      uint64 // number of the last question
	pending   map[uint64]*call
	abandoned []abandoned // oldest first
	unknown   int
}

func newStream(cfg Config, organisation disclosure.OIN, wire Stream) *stream {
	return &stream{
		cfg:          cfg,
		organisation: organisation,
		wire:         wire,
		queue:        make(chan *call, cfg.Queue),
		done:         make(chan struct{}),
		pending:      make(map[uint64]*call),
	}
}

func compareParties(a, b disclosure.Party) int {
	return cmp.Or(cmp.Compare(a.OIN, b.OIN), cmp.Compare(a.Domain, b.Domain))
}

// parseHello returns the parties that the agent answers for.
func parseHello(
	organisation disclosure.OIN, allowed []disclosure.Domain, hello *sluisv1.AgentHello,
) ([]disclosure.Party, string, error) {
	names := hello.GetDomains()
	if len(names) == 0 || len(names) > maxHats {
		return nil, "", fmt.Errorf("%w: want 1 to %d domains", errHello, maxHats)
	}
	if !isVersion(hello.GetVersion()) {
		return nil, "", fmt.Errorf("%w: want a version of at most %d printable ASCII characters", errHello, maxVersion)
	}
	parties := make([]disclosure.Party, 0, len(names))
	for _, name := range names {
		domain, err := disclosure.ParseDomain(name)
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errHello, err)
		}
		party := disclosure.Party{OIN: organisation, Domain: domain}
		if slices.Contains(parties, party) {
			return nil, "", fmt.Errorf("%w: a domain comes twice", errHello)
		}
		if !slices.Contains(allowed, domain) {
			return nil, "", fmt.Errorf("%w: a domain is not the organisation's", errHat)
		}
		parties = append(parties, party)
	}
	return parties, hello.GetVersion(), nil
}

func isVersion(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= maxVersion
}

func parseReply(answer *sluisv1.AgentAnswer) (disclosure.Reply, error) {
	manifest := answer.GetManifest()
	switch {
	case manifest == nil && len(answer.GetAnswer()) == 0:
		return disclosure.Reply{}, ErrFailed
	case len(manifest.GetPayload()) == 0 || len(manifest.GetPayload()) > maxPayload:
		return disclosure.Reply{}, fmt.Errorf("%w: size of the manifest", ErrMalformedReply)
	case len(manifest.GetSignature()) != maxSignature:
		return disclosure.Reply{}, fmt.Errorf("%w: size of the signature", ErrMalformedReply)
	case len(answer.GetAnswer()) > disclosure.MaxAnswer:
		return disclosure.Reply{}, fmt.Errorf("%w: size of the sealed answer", ErrMalformedReply)
	}
	return disclosure.Reply{
		Manifest: disclosure.Signed{Payload: manifest.GetPayload(), Signature: manifest.GetSignature()},
		Answer:   answer.GetAnswer(),
	}, nil
}

// enqueue numbers a question and queues it to be written.
func (s *stream) enqueue(c *call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return ErrOffline
	case !slices.Contains(s.hats, c.to):
		return errMoved
	case len(s.pending) >= s.cfg.Pending:
		return ErrBusy
	}
	s.last++
	c.body.QuestionId = s.last
	select {
	case s.queue <- c:
		s.pending[s.last] = c
		return nil
	default:
		return ErrBusy
	}
}

// abandon gives a question up. It reports false when the question has ended already: its end is or will be in c.end.
func (s *stream) abandon(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := c.body.GetQuestionId()
	if s.pending[id] != c {
		return false
	}
	delete(s.pending, id)
	s.remember(id, c)
	return true
}

// remember keeps what an answer to a question that was given up would be about. The caller holds mu.
func (s *stream) remember(id uint64, c *call) {
	if !c.written {
		return // and never will be
	}
	if len(s.abandoned) == maxAbandoned {
		s.abandoned = slices.Delete(s.abandoned, 0, 1)
	}
	s.abandoned = append(s.abandoned, abandoned{id: id, to: c.to, permit: c.permit()})
}

// wear sets the hats, before the stream can be found.
func (s *stream) wear(parties []disclosure.Party) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hats = slices.Clone(parties)
}

// lose takes a hat away: a newer stream has it. What was asked of this hat fails, since the older stream is most often a dead one.
func (s *stream) lose(party disclosure.Party) {
	s.mu.Lock()
	s.hats = slices.DeleteFunc(s.hats, func(p disclosure.Party) bool { return p == party })
	bare := len(s.hats) == 0
	for id, c := range s.pending {
		if c.to == party {
			delete(s.pending, id)
			s.remember(id, c)
			c.end <- ending{err: ErrDisconnected}
		}
	}
	s.mu.Unlock()
	if bare {
		s.finish(errReplaced)
	}
}

// finish ends the stream, once, and fails all that waits on it.
func (s *stream) finish(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = cause
	for id, c := range s.pending {
		delete(s.pending, id)
		c.end <- ending{err: ErrDisconnected}
	}
	close(s.done)
}

func (s *stream) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// write sends the welcome and then questions, until the stream ends.
func (s *stream) write() error {
	welcome := &sluisv1.BrokerWelcome{Time: timestamppb.New(s.cfg.Clock())}
	err := s.wire.Send(&sluisv1.ConnectResponse{Message: &sluisv1.ConnectResponse_Welcome{Welcome: welcome}})
	for err == nil {
		select {
		case c := <-s.queue:
			if s.begin(c) {
				err = s.wire.Send(c.message)
			}
		case <-s.done:
			return s.cause()
		}
	}
	return err
}

// begin marks a question as written. It reports false when its asker gave it up.
func (s *stream) begin(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[c.body.GetQuestionId()] != c {
		return false
	}
	c.written = true
	return true
}

// read hands over the hello and then takes in answers, until the stream ends. It returns nil when the agent closed its side.
func (s *stream) read(hello chan<- *sluisv1.AgentHello) error {
	first, err := s.wire.Recv()
	if err != nil {
		return leaving(err)
	}
	if first.GetHello() == nil {
		return errProtocol
	}
	hello <- first.GetHello()
	for {
		message, err := s.wire.Recv()
		if err != nil {
			return leaving(err)
		}
		if message.GetAnswer() == nil {
			return errProtocol
		}
		if err := s.accept(message.GetAnswer()); err != nil {
			return err
		}
	}
}

func leaving(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// accept gives an answer to whoever waits for it. It fails when the agent has answered nothing too often.
func (s *stream) accept(answer *sluisv1.AgentAnswer) error {
	s.mu.Lock()
	c := s.pending[answer.GetQuestionId()]
	if c == nil || !c.written {
		late, ok := s.takeAbandoned(answer.GetQuestionId())
		unknown := s.unknown
		s.mu.Unlock()
		switch {
		case ok:
			s.cfg.Late(late.to, disclosure.Question{Permit: late.permit})
		case unknown > maxUnknown:
			return fmt.Errorf("%w: too many answers to nothing", errProtocol)
		default:
			s.cfg.Logger.LogAttrs(s.wire.Context(), slog.LevelWarn, "agent answered what it was not asked, or too late to tell",
				slog.String("organisation", string(s.organisation)))
		}
		return nil
	}
	delete(s.pending, answer.GetQuestionId())
	s.mu.Unlock()
	reply, err := parseReply(answer)
	c.end <- ending{reply: reply, err: err}
	return nil
}

// takeAbandoned returns what a late answer is about, once. If that is not known, it counts. The caller holds mu.
func (s *stream) takeAbandoned(id uint64) (abandoned, bool) {
	for i, a := range s.abandoned {
		if a.id == id {
			s.abandoned = slices.Delete(s.abandoned, i, i+1)
			return a, true
		}
	}
	s.unknown++
	return abandoned{}, false
}
