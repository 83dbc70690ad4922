package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

// Why a question got no answer. After any of these, and after an error of the context, nothing usable came back. Each wraps the reason code
// that is recorded as the outcome's reason; an expired deadline gives an error that wraps ReasonSourceTimeout and context.DeadlineExceeded.
var (
	// ErrOffline says that no agent of this organisation is connected for this hat. The question was not sent.
	ErrOffline = fmt.Errorf("%w: agent is not connected", disclosure.ReasonSourceOffline)
	// ErrDraining says that the relay is stopping. The question was not sent.
	ErrDraining = fmt.Errorf("%w: relay is stopping", disclosure.ReasonSourceOffline)
	// ErrBusy says that too many questions wait for this agent. The question was not sent.
	ErrBusy = fmt.Errorf("%w: agent is busy", disclosure.ReasonSourceFailed)
	// ErrDisconnected says that the stream ended before the answer came. The agent may have seen the question.
	ErrDisconnected = fmt.Errorf("%w: agent disconnected before it answered", disclosure.ReasonSourceFailed)
	// ErrFailed says that the agent told it could not answer.
	ErrFailed = fmt.Errorf("%w: agent could not answer", disclosure.ReasonSourceFailed)
	// ErrMalformedReply says that the answer was not of the form that the wire contract describes.
	ErrMalformedReply = fmt.Errorf("%w: agent gave a malformed answer", disclosure.ReasonSourceFailed)
)

// Why a stream is refused or ended, for the agent. Each wraps the reason code that the edge shows.
var (
	errReplaced = fmt.Errorf("%w: a newer stream answers for all hats of this one", disclosure.ReasonContention)
	errStopping = fmt.Errorf("%w: the relay is stopping", disclosure.ReasonBrokerRestarted)
	errProtocol = fmt.Errorf("%w: message out of place on an agent's stream", disclosure.ReasonInvalidRequest)
	errHello    = fmt.Errorf("%w: hello", disclosure.ReasonInvalidRequest)
	errHat      = fmt.Errorf("%w: hello", disclosure.ReasonHatNotAllowed)
)

// The defaults of Config.
const (
	DefaultQueue        = DefaultPending
	DefaultPending      = 1024
	DefaultHelloTimeout = 10 * time.Second
)

// Stream is the broker's end of AgentService.Connect.
type Stream = grpc.BidiStreamingServer[sluisv1.ConnectRequest, sluisv1.ConnectResponse]

// Config is what a Relay needs. The zero value works.
type Config struct {
	// Late, if not nil, is told of every answer to a question that its asker had given up: who answered, and the question, of which only the
	// permit is kept. It is called on the goroutine that reads that agent's stream, and holds up that agent only.
	Late func(source disclosure.Party, question disclosure.Question)
	// Queue is how many questions may wait to be written to one stream. Zero means DefaultQueue.
	Queue int
	// Pending is how many questions may wait for their answer on one stream. Zero means DefaultPending.
	Pending int
	// HelloTimeout is how long an agent may take to say hello. Zero means DefaultHelloTimeout.
	HelloTimeout time.Duration
	// Clock tells the time for the welcome. Nil means time.Now.
	Clock func() time.Time
	// Logger, if not nil, is told who connects and leaves.
	Logger *slog.Logger
}

// Relay routes questions to agents. It is safe for concurrent use.
type Relay struct {
	cfg Config

	mu       sync.RWMutex // guards the rest; never held while sending, receiving or holding a stream's lock
	draining bool
	streams  map[disclosure.Party]*stream

	stop     chan struct{} // closed by Drain when streams must end
	stopOnce sync.Once

	// Both are only added to under mu while draining is false, so that Drain may wait for them.
	asks     sync.WaitGroup
	connects sync.WaitGroup
}

// New returns a relay without streams.
func New(cfg Config) *Relay {
	if cfg.Late == nil {
		cfg.Late = func(disclosure.Party, disclosure.Question) {}
	}
	if cfg.Queue <= 0 {
		cfg.Queue = DefaultQueue
	}
	if cfg.Pending <= 0 {
		cfg.Pending = DefaultPending
	}
	if cfg.HelloTimeout <= 0 {
		cfg.HelloTimeout = DefaultHelloTimeout
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Relay{cfg: cfg, streams: make(map[disclosure.Party]*stream), stop: make(chan struct{})}
}

// Ask puts a question to the agent that answers for a party, and waits for the answer. It ends with the context, which should have a
// deadline. The answer's shape and size were checked, its manifest and whether it fits the permit were not.
func (r *Relay) Ask(ctx context.Context, to disclosure.Party, q disclosure.Question) (disclosure.Reply, error) {
	if err := givenUp(ctx); err != nil {
		return disclosure.Reply{}, err
	}
	if err := r.beginAsk(); err != nil {
		return disclosure.Reply{}, err
	}
	defer r.asks.Done()
	c := newCall(to, q)
	s, err := r.enqueue(c)
	if err != nil {
		return disclosure.Reply{}, err
	}
	select {
	case end := <-c.end:
		return end.reply, end.err
	case <-ctx.Done():
	}
	if s.abandon(c) {
		return disclosure.Reply{}, givenUp(ctx)
	}
	// The answer was taken in at the same moment, so it is not late.
	end := <-c.end
	return end.reply, end.err
}

// givenUp gives the end of a context its reason.
func givenUp(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", disclosure.ReasonSourceTimeout, err)
	}
	return err
}

func (r *Relay) beginAsk() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.draining {
		return ErrDraining
	}
	r.asks.Add(1)
	return nil
}

func (r *Relay) enqueue(c *call) (*stream, error) {
	// A stream can lose its hat between being found and being asked; its successor was registered before that.
	for range 3 {
		r.mu.RLock()
		s := r.streams[c.to]
		r.mu.RUnlock()
		if s == nil {
			return nil, ErrOffline
		}
		err := s.enqueue(c)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errMoved) {
			return nil, err
		}
	}
	return nil, ErrOffline
}

// Connected returns the parties that can be asked now, sorted.
func (r *Relay) Connected() []disclosure.Party {
	r.mu.RLock()
	defer r.mu.RUnlock()
	parties := make([]disclosure.Party, 0, len(r.streams))
	for party := range r.streams {
		parties = append(parties, party)
	}
	slices.SortFunc(parties, compareParties)
	return parties
}

// Connect serves the stream of an agent of the organisation until it ends. allowed are the hats of the organisation in the directory. Where
// the agent is to blame, or should know why, the error wraps a disclosure.ReasonCode. It is nil when the agent left.
func (r *Relay) Connect(organisation disclosure.OIN, allowed []disclosure.Domain, wire Stream) error {
	if err := r.beginConnect(); err != nil {
		return err
	}
	defer r.connects.Done()

	s := newStream(r.cfg, organisation, wire)
	defer s.finish(ErrDisconnected)
	hello := make(chan *sluisv1.AgentHello, 1)
	ended := make(chan error, 2) // of reader and writer
	// Both goroutines end soon after Connect returns: that cancels the stream's context, on which Recv and Send return.
	go func() { ended <- s.read(hello) }()

	timer := time.NewTimer(r.cfg.HelloTimeout)
	defer timer.Stop()
	var parties []disclosure.Party
	var version string
	select {
	case h := <-hello:
		var err error
		if parties, version, err = parseHello(organisation, allowed, h); err != nil {
			return err
		}
	case err := <-ended:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: none in time", errHello)
	case <-r.stop:
		return errStopping
	}

	if err := r.register(s, parties); err != nil {
		return err
	}
	defer r.unregister(s, parties)
	logger := r.cfg.Logger.With(slog.String("organisation", string(organisation)), slog.String("version", version))
	logger.LogAttrs(wire.Context(), slog.LevelInfo, "agent connected", slog.Int("hats", len(parties)))

	go func() { ended <- s.write() }()
	var err error
	select {
	case err = <-ended:
	case <-s.done:
		err = s.cause()
	case <-r.stop:
		err = errStopping
	}
	logger.LogAttrs(wire.Context(), slog.LevelInfo, "agent left", slog.Any("error", err))
	return err
}

func (r *Relay) beginConnect() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.draining {
		return errStopping
	}
	r.connects.Add(1)
	return nil
}

// register makes s the stream of the parties, and takes them from the streams that had them.
func (r *Relay) register(s *stream, parties []disclosure.Party) error {
	s.wear(parties)
	older := make(map[disclosure.Party]*stream)
	r.mu.Lock()
	if r.draining {
		r.mu.Unlock()
		return errStopping
	}
	for _, party := range parties {
		if old := r.streams[party]; old != nil {
			older[party] = old
		}
		r.streams[party] = s
	}
	r.mu.Unlock()
	for party, old := range older {
		old.lose(party)
	}
	return nil
}

func (r *Relay) unregister(s *stream, parties []disclosure.Party) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, party := range parties {
		if r.streams[party] == s {
			delete(r.streams, party)
		}
	}
}

// Drain stops the relay: new questions and streams are refused, and when the questions that wait are answered, or the context ends, all
// streams are ended. It returns the context's error if that came first. A relay that was drained stays so.
func (r *Relay) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.draining = true
	r.mu.Unlock()

	err := wait(ctx, &r.asks)
	r.stopOnce.Do(func() { close(r.stop) })
	if waitErr := wait(ctx, &r.connects); err == nil {
		err = waitErr
	}
	return err
}

func wait(ctx context.Context, group *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
