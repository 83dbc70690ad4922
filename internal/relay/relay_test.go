package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"sluis/internal/disclosure"
	"sluis/internal/relay"
	sluisv1 "sluis/proto/sluis/v1"
)

const (
	police = disclosure.OIN("00000001000000000001")
	care   = disclosure.OIN("00000001000000000002")

	patience = 10 * time.Second // far longer than anything here takes
)

func party(oin disclosure.OIN, domain disclosure.Domain) disclosure.Party {
	return disclosure.Party{OIN: oin, Domain: domain}
}

// world is a relay behind a real gRPC server. Which organisation connects follows from the listener: there is one for each.
type world struct {
	t     *testing.T
	relay *relay.Relay
	late  chan lateAnswer
	ended chan error // what Connect returned
	dials map[disclosure.OIN]*bufconn.Listener
}

type lateAnswer struct {
	Source disclosure.Party
	Permit string
}

type agentService struct {
	sluisv1.UnimplementedAgentServiceServer
	world *world
	oin   disclosure.OIN
}

func (s agentService) Connect(stream relay.Stream) error {
	err := s.world.relay.Connect(s.oin, []disclosure.Domain{"P", "ME", "CG"}, stream)
	s.world.ended <- err
	return err
}

func newWorld(t *testing.T, cfg relay.Config) *world {
	t.Helper()
	w := &world{
		t:     t,
		late:  make(chan lateAnswer, 1000),
		ended: make(chan error, 1000),
		dials: make(map[disclosure.OIN]*bufconn.Listener),
	}
	cfg.Late = func(source disclosure.Party, question disclosure.Question) {
		w.late <- lateAnswer{source, string(question.Permit.Payload)}
	}
	w.relay = relay.New(cfg)
	for _, oin := range []disclosure.OIN{police, care} {
		listener := bufconn.Listen(1 << 20)
		w.dials[oin] = listener
		server := grpc.NewServer(grpc.MaxRecvMsgSize(2 << 20))
		sluisv1.RegisterAgentServiceServer(server, agentService{world: w, oin: oin})
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
	}
	return w
}

// agent is the other end of a stream.
type agent struct {
	w      *world
	stream grpc.BidiStreamingClient[sluisv1.ConnectRequest, sluisv1.ConnectResponse]
	cancel context.CancelFunc
}

// open opens a stream without a hello.
func (w *world) open(oin disclosure.OIN) *agent {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///agent", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.dials[oin].DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(w.t.Context())
	stream, err := sluisv1.NewAgentServiceClient(conn).Connect(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return &agent{w: w, stream: stream, cancel: cancel}
}

func hello(domains ...string) *sluisv1.ConnectRequest {
	return &sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{
		Hello: &sluisv1.AgentHello{Domains: domains, Version: "1.0"},
	}}
}

// connect opens a stream and waits for the welcome.
func (w *world) connect(oin disclosure.OIN, domains ...string) *agent {
	w.t.Helper()
	a := w.open(oin)
	a.send(hello(domains...))
	first, err := a.stream.Recv()
	if err != nil {
		w.t.Fatalf("welcome: %v", err)
	}
	if first.GetWelcome().GetTime() == nil {
		w.t.Fatalf("first message is %v, want a welcome with a time", first)
	}
	return a
}

func (a *agent) send(m *sluisv1.ConnectRequest) {
	a.w.t.Helper()
	if err := a.stream.Send(m); err != nil {
		a.w.t.Fatalf("send: %v", err)
	}
}

func (a *agent) question() *sluisv1.BrokerQuestion {
	a.w.t.Helper()
	m, err := a.stream.Recv()
	if err != nil {
		a.w.t.Fatalf("question: %v", err)
	}
	if m.GetQuestion() == nil {
		a.w.t.Fatalf("got %v, want a question", m)
	}
	return m.GetQuestion()
}

func answer(id uint64, text string) *sluisv1.ConnectRequest {
	return &sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Answer{Answer: &sluisv1.AgentAnswer{
		QuestionId: id,
		Manifest:   &sluisv1.Signed{Payload: []byte("manifest of " + text), Signature: make([]byte, 64)},
		Answer:     []byte("answer to " + text),
	}}}
}

// serve answers everything, in random order of batches, until the stream ends.
func (a *agent) serve() {
	var waiting []*sluisv1.ConnectRequest
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return
		}
		waiting = append(waiting, answer(m.GetQuestion().GetQuestionId(), string(m.GetQuestion().GetPermit().GetPayload())))
		if len(waiting) < 4 && len(m.GetQuestion().GetSealedIdentity()) > 0 {
			continue // more will come
		}
		slices.Reverse(waiting)
		for _, w := range waiting {
			if a.stream.Send(w) != nil {
				return
			}
		}
		waiting = nil
	}
}

func question(text string) disclosure.Question {
	return disclosure.Question{
		Permit:             disclosure.Signed{Payload: []byte(text), Signature: make([]byte, 64)},
		RequesterStatement: []byte("statement"),
	}
}

func (w *world) ask(ctx context.Context, to disclosure.Party, text string) <-chan error {
	result := make(chan error, 1)
	go func() {
		reply, err := w.relay.Ask(ctx, to, question(text))
		if err == nil && string(reply.Answer) != "answer to "+text {
			err = fmt.Errorf("answer to another question: %s", reply.Answer)
		}
		result <- err
	}()
	return result
}

func (w *world) deadline() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); runtime.Gosched() { // a condition inside the relay, which has no channel to wait on
		if time.Since(start) > patience {
			t.Fatalf("%s: never", what)
		}
	}
}

func TestAskReachesTheAgentAndBack(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	result := make(chan disclosure.Reply, 1)
	go func() {
		reply, err := w.relay.Ask(w.deadline(), party(police, "P"), disclosure.Question{
			Permit:             disclosure.Signed{Payload: []byte("permit"), Signature: []byte("signature")},
			SealedIdentity:     []byte("identity"),
			RequesterStatement: []byte("statement"),
		})
		if err != nil {
			t.Error(err)
		}
		result <- reply
	}()
	q := a.question()
	got := []string{
		string(q.GetPermit().GetPayload()), string(q.GetPermit().GetSignature()), string(q.GetSealedIdentity()),
		string(q.GetRequesterStatement()),
	}
	if diff := cmp.Diff([]string{"permit", "signature", "identity", "statement"}, got); diff != "" {
		t.Errorf("question (-want +got):\n%s", diff)
	}
	a.send(answer(q.GetQuestionId(), "it"))
	want := disclosure.Reply{
		Manifest: disclosure.Signed{Payload: []byte("manifest of it"), Signature: make([]byte, 64)},
		Answer:   []byte("answer to it"),
	}
	if diff := cmp.Diff(want, receive(t, "reply", result)); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
}

func TestManyConcurrentAsksGetTheirOwnAnswers(t *testing.T) {
	w := newWorld(t, relay.Config{Queue: 5000, Pending: 5000})
	go w.connect(police, "P", "ME").serve()
	go w.connect(care, "CG").serve()
	targets := []disclosure.Party{party(police, "P"), party(police, "ME"), party(care, "CG")}
	var results []<-chan error
	for i := range 3000 {
		results = append(results, w.ask(w.deadline(), targets[i%3], fmt.Sprintf("question %d", i)))
	}
	for _, result := range results {
		if err := receive(t, "answer", result); err != nil {
			t.Fatal(err)
		}
	}
	if n := relay.Waiting(w.relay); n != 0 {
		t.Errorf("%d questions still wait", n)
	}
}

func TestAskNobody(t *testing.T) {
	w := newWorld(t, relay.Config{})
	w.connect(police, "P")
	for _, to := range []disclosure.Party{party(police, "ME"), party(care, "P")} {
		if _, err := w.relay.Ask(w.deadline(), to, question("x")); !errors.Is(err, relay.ErrOffline) {
			t.Errorf("ask %v: got %v, want ErrOffline", to, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.relay.Ask(ctx, party(police, "P"), question("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("ask with an ended context: got %v", err)
	}
}

func TestHelloIsStrict(t *testing.T) {
	for name, test := range map[string]struct {
		first *sluisv1.ConnectRequest
		want  disclosure.ReasonCode
	}{
		"no message":        {&sluisv1.ConnectRequest{}, disclosure.ReasonInvalidRequest},
		"answer first":      {answer(1, "x"), disclosure.ReasonInvalidRequest},
		"no domains":        {hello(), disclosure.ReasonInvalidRequest},
		"too many":          {hello(slices.Repeat([]string{"P"}, 21)...), disclosure.ReasonInvalidRequest},
		"twice":             {hello("P", "P"), disclosure.ReasonInvalidRequest},
		"malformed":         {hello("p"), disclosure.ReasonInvalidRequest},
		"someone else's":    {hello("P", "R"), disclosure.ReasonHatNotAllowed},
		"version with line": {helloVersion("1\n2"), disclosure.ReasonInvalidRequest},
		"long version":      {helloVersion(strings.Repeat("1", 65)), disclosure.ReasonInvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, relay.Config{})
			w.open(police).send(test.first)
			if err := receive(t, "end", w.ended); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if got := w.relay.Connected(); len(got) != 0 {
				t.Errorf("connected: %v", got)
			}
		})
	}
}

func helloVersion(version string) *sluisv1.ConnectRequest {
	m := hello("P")
	m.GetHello().Version = version
	return m
}

func TestHelloMustComeInTime(t *testing.T) {
	w := newWorld(t, relay.Config{HelloTimeout: time.Millisecond})
	w.open(police)
	if err := receive(t, "end", w.ended); !errors.Is(err, disclosure.ReasonInvalidRequest) {
		t.Errorf("got %v", err)
	}
}

func TestSecondHelloEndsTheStream(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	a.send(hello("P"))
	if err := receive(t, "end", w.ended); !errors.Is(err, disclosure.ReasonInvalidRequest) {
		t.Errorf("got %v", err)
	}
}

func TestNewerStreamReplacesOlder(t *testing.T) {
	w := newWorld(t, relay.Config{})
	older := w.connect(police, "P", "ME")
	lost := w.ask(w.deadline(), party(police, "P"), "lost")
	kept := w.ask(w.deadline(), party(police, "ME"), "kept")
	questions := map[string]uint64{}
	for range 2 {
		q := older.question()
		questions[string(q.GetPermit().GetPayload())] = q.GetQuestionId()
	}

	newer := w.connect(police, "P")
	if err := receive(t, "lost", lost); !errors.Is(err, relay.ErrDisconnected) {
		t.Errorf("question to the lost hat: got %v, want ErrDisconnected", err)
	}
	older.send(answer(questions["lost"], "lost"))
	if got, want := receive(t, "late", w.late), (lateAnswer{party(police, "P"), "lost"}); got != want {
		t.Errorf("late answer: got %v, want %v", got, want)
	}
	older.send(answer(questions["kept"], "kept"))
	if err := receive(t, "kept", kept); err != nil {
		t.Errorf("question to the hat that was kept: %v", err)
	}
	result := w.ask(w.deadline(), party(police, "P"), "new")
	newer.send(answer(newer.question().GetQuestionId(), "new"))
	if err := receive(t, "new", result); err != nil {
		t.Errorf("question to the newer stream: %v", err)
	}

	w.connect(police, "ME")
	if err := receive(t, "end of the older stream", w.ended); !errors.Is(err, disclosure.ReasonContention) {
		t.Errorf("older stream without hats: got %v", err)
	}
	want := []disclosure.Party{party(police, "ME"), party(police, "P")}
	if diff := cmp.Diff(want, w.relay.Connected()); diff != "" {
		t.Errorf("connected (-want +got):\n%s", diff)
	}
}

func TestDisconnectFailsWhatWaits(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	var results []<-chan error
	for i := range 20 {
		results = append(results, w.ask(t.Context(), party(police, "P"), fmt.Sprint(i))) // without a deadline
	}
	for range results {
		a.question()
	}
	a.cancel()
	for _, result := range results {
		if err := receive(t, "failure", result); !errors.Is(err, relay.ErrDisconnected) {
			t.Errorf("got %v, want ErrDisconnected", err)
		}
	}
	_ = receive(t, "end", w.ended)
	if _, err := w.relay.Ask(w.deadline(), party(police, "P"), question("x")); !errors.Is(err, relay.ErrOffline) {
		t.Errorf("after the end: got %v, want ErrOffline", err)
	}
}

func TestAgentThatClosesLeavesWithoutError(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	if err := a.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "end", w.ended); err != nil {
		t.Errorf("got %v", err)
	}
	if _, err := a.stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("agent sees %v, want EOF", err)
	}
}

func TestTimeoutLeavesNothingBehind(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	ctx, cancel := context.WithCancel(t.Context())
	var results []<-chan error
	ids := map[uint64]string{}
	for i := range 50 {
		results = append(results, w.ask(ctx, party(police, "P"), fmt.Sprint(i)))
	}
	for range results {
		q := a.question()
		ids[q.GetQuestionId()] = string(q.GetPermit().GetPayload())
	}
	if n := relay.Waiting(w.relay); n != 50 {
		t.Fatalf("%d questions wait, want 50", n)
	}
	cancel()
	for _, result := range results {
		if err := receive(t, "cancellation", result); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if n := relay.Waiting(w.relay); n != 0 {
		t.Errorf("%d questions still wait", n)
	}
	for id, text := range ids {
		a.send(answer(id, text))
		if got, want := receive(t, "late", w.late), (lateAnswer{party(police, "P"), text}); got != want {
			t.Errorf("late answer: got %v, want %v", got, want)
		}
	}
	a.send(answer(1, "twice"))
	result := w.ask(w.deadline(), party(police, "P"), "after")
	a.send(answer(a.question().GetQuestionId(), "after"))
	if err := receive(t, "after", result); err != nil {
		t.Error(err)
	}
	if len(w.late) != 0 {
		t.Errorf("an answer that was given twice is reported twice: %v", <-w.late)
	}
}

func TestDeadlineIsASourceTimeout(t *testing.T) {
	w := newWorld(t, relay.Config{})
	w.connect(police, "P")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := w.relay.Ask(ctx, party(police, "P"), question("x"))
	if !errors.Is(err, disclosure.ReasonSourceTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want SOURCE_TIMEOUT", err)
	}
}

func TestAbandonedQuestionsAreBounded(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	var first uint64
	for i := range 129 {
		ctx, cancel := context.WithCancel(t.Context())
		result := w.ask(ctx, party(police, "P"), fmt.Sprint(i))
		if id := a.question().GetQuestionId(); i == 0 {
			first = id
		}
		cancel()
		_ = receive(t, "cancellation", result)
	}
	a.send(answer(first, "0"))
	a.send(answer(first+1, "1"))
	if got, want := receive(t, "late", w.late), (lateAnswer{party(police, "P"), "1"}); got != want {
		t.Errorf("got %v, want %v: the oldest is forgotten", got, want)
	}
}

func TestGivenUpBeforeItWasWrittenIsNeverWritten(t *testing.T) {
	w := newWorld(t, relay.Config{Queue: 100})
	a := w.connect(police, "P")
	// The agent does not read: large questions fill its window, and the rest stays in the queue.
	ctx, cancel := context.WithCancel(t.Context())
	large := question("large")
	large.SealedIdentity = make([]byte, 100_000)
	givenUp := make(chan error, 50)
	for range 50 {
		go func() {
			_, err := w.relay.Ask(ctx, party(police, "P"), large)
			givenUp <- err
		}()
	}
	until(t, "50 questions wait", func() bool { return relay.Waiting(w.relay) == 50 })
	cancel()
	for range 50 {
		_ = receive(t, "cancellation", givenUp)
	}
	result := w.ask(w.deadline(), party(police, "P"), "after")
	written := 0
	for q := a.question(); string(q.GetPermit().GetPayload()) != "after"; q = a.question() {
		written++
	}
	if written > 10 {
		t.Errorf("%d of 50 questions were written after they were given up", written)
	}
	a.send(answer(51, "after"))
	if err := receive(t, "answer", result); err != nil {
		t.Error(err)
	}
	for id := range uint64(50) {
		a.send(answer(id+1, "large"))
	}
	result = w.ask(w.deadline(), party(police, "P"), "again")
	a.send(answer(a.question().GetQuestionId(), "again"))
	if err := receive(t, "answer", result); err != nil {
		t.Error(err)
	}
	if len(w.late) != written {
		t.Errorf("%d answers are reported as late, want those to the %d questions that were written", len(w.late), written)
	}
}

func TestStuckAgentStopsNobodyElse(t *testing.T) {
	w := newWorld(t, relay.Config{Queue: 4, Pending: 1000})
	w.connect(police, "P") // never reads again
	go w.connect(care, "CG").serve()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	large := question("large")
	large.SealedIdentity = make([]byte, 64<<10)
	busy := make(chan error, 100)
	for range 100 {
		go func() {
			_, err := w.relay.Ask(ctx, party(police, "P"), large)
			busy <- err
		}()
	}
	if err := receive(t, "refusal", busy); !errors.Is(err, relay.ErrBusy) {
		t.Fatalf("got %v, want ErrBusy", err)
	}
	for i := range 200 {
		if err := receive(t, "answer", w.ask(w.deadline(), party(care, "CG"), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	// It can be replaced, although the writer hangs in the middle of a message.
	again := w.connect(police, "P")
	if err := receive(t, "end of the stuck stream", w.ended); !errors.Is(err, disclosure.ReasonContention) {
		t.Errorf("stuck stream: got %v", err)
	}
	result := w.ask(w.deadline(), party(police, "P"), "again")
	again.send(answer(again.question().GetQuestionId(), "again"))
	if err := receive(t, "answer", result); err != nil {
		t.Error(err)
	}
}

func TestPendingIsBounded(t *testing.T) {
	w := newWorld(t, relay.Config{Pending: 3})
	a := w.connect(police, "P")
	for i := range 3 {
		w.ask(w.deadline(), party(police, "P"), fmt.Sprint(i))
		a.question()
	}
	if _, err := w.relay.Ask(w.deadline(), party(police, "P"), question("x")); !errors.Is(err, relay.ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
}

func TestMalformedAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*sluisv1.AgentAnswer)
		want  error
	}{
		"nothing":         {func(a *sluisv1.AgentAnswer) { a.Manifest, a.Answer = nil, nil }, relay.ErrFailed},
		"no manifest":     {func(a *sluisv1.AgentAnswer) { a.Manifest = nil }, relay.ErrMalformedReply},
		"empty manifest":  {func(a *sluisv1.AgentAnswer) { a.Manifest.Payload = nil }, relay.ErrMalformedReply},
		"long manifest":   {func(a *sluisv1.AgentAnswer) { a.Manifest.Payload = make([]byte, 256<<10+1) }, relay.ErrMalformedReply},
		"short signature": {func(a *sluisv1.AgentAnswer) { a.Manifest.Signature = make([]byte, 63) }, relay.ErrMalformedReply},
		"long answer":     {func(a *sluisv1.AgentAnswer) { a.Answer = make([]byte, disclosure.MaxAnswer+1) }, relay.ErrMalformedReply},
		"largest answer":  {func(a *sluisv1.AgentAnswer) { a.Answer = make([]byte, disclosure.MaxAnswer) }, nil},
		"a refusal":       {func(a *sluisv1.AgentAnswer) { a.Answer = nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, relay.Config{})
			a := w.connect(police, "P")
			result := make(chan error, 1)
			go func() {
				_, err := w.relay.Ask(w.deadline(), party(police, "P"), question("x"))
				result <- err
			}()
			m := answer(a.question().GetQuestionId(), "x")
			test.spoil(m.GetAnswer())
			a.send(m)
			if err := receive(t, "result", result); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			// The stream lives on.
			next := w.ask(w.deadline(), party(police, "P"), "next")
			a.send(answer(a.question().GetQuestionId(), "next"))
			if err := receive(t, "next", next); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnswersToNothingAreBounded(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	for range 101 {
		_ = a.stream.Send(answer(7, "nothing"))
	}
	if err := receive(t, "end", w.ended); !errors.Is(err, disclosure.ReasonInvalidRequest) {
		t.Errorf("got %v", err)
	}
	if len(w.late) != 0 {
		t.Errorf("an answer to nothing is reported as late: %v", <-w.late)
	}
}

func TestDrainLetsQuestionsFinish(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	unsaid := w.open(care) // connected, no hello
	result := w.ask(w.deadline(), party(police, "P"), "last")
	q := a.question()
	drained := make(chan error, 1)
	go func() { drained <- w.relay.Drain(w.deadline()) }()
	until(t, "refused", func() bool {
		_, err := w.relay.Ask(t.Context(), party(care, "CG"), question("x"))
		return errors.Is(err, relay.ErrDraining)
	})
	select {
	case err := <-drained:
		t.Fatalf("drained while a question waits: %v", err)
	default:
	}
	a.send(answer(q.GetQuestionId(), "last"))
	if err := receive(t, "last", result); err != nil {
		t.Errorf("last question: %v", err)
	}
	if err := receive(t, "drain", drained); err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := receive(t, "end", w.ended); !errors.Is(err, disclosure.ReasonBrokerRestarted) {
		t.Errorf("stream: got %v", err)
	}
	if _, err := unsaid.stream.Recv(); err == nil {
		t.Error("stream without hello lives on")
	}
	if err := w.relay.Drain(w.deadline()); err != nil {
		t.Errorf("second drain: %v", err)
	}
	w.open(police).send(hello("P"))
	for { // the stream without hello ends first
		err := receive(t, "end", w.ended)
		if !errors.Is(err, disclosure.ReasonBrokerRestarted) {
			t.Errorf("stream after drain: got %v", err)
		}
		if len(w.relay.Connected()) == 0 {
			break
		}
	}
}

func TestDrainIsBounded(t *testing.T) {
	w := newWorld(t, relay.Config{})
	a := w.connect(police, "P")
	result := w.ask(w.deadline(), party(police, "P"), "never answered")
	a.question()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := w.relay.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: got %v", err)
	}
	if err := receive(t, "failure", result); !errors.Is(err, relay.ErrDisconnected) {
		t.Errorf("question: got %v", err)
	}
}

// TestStorm lets agents come and go and askers give up, all at once; under the race detector it looks for races, otherwise for hangs.
func TestStorm(t *testing.T) {
	w := newWorld(t, relay.Config{Queue: 8, Pending: 16})
	ctx := w.deadline()
	stop := make(chan struct{})
	var agents, askers sync.WaitGroup
	for _, domain := range []string{"P", "ME", "P"} {
		agents.Go(func() {
			for !isClosed(stop) {
				a := w.open(police)
				a.stormy(hello(domain))
			}
		})
	}
	var answered atomic.Int64
	for i := range 16 {
		askers.Go(func() {
			for j := 0; answered.Load() < 500 && ctx.Err() == nil; j++ {
				asking, cancel := context.WithTimeout(ctx, time.Duration(1+rand.IntN(10))*time.Millisecond)
				_, err := w.relay.Ask(asking, party(police, []disclosure.Domain{"P", "ME"}[j%2]), question(fmt.Sprint(i, j)))
				cancel()
				switch {
				case err == nil:
					answered.Add(1)
				case errors.Is(err, relay.ErrOffline), errors.Is(err, relay.ErrBusy), errors.Is(err, relay.ErrDisconnected),
					errors.Is(err, context.DeadlineExceeded):
				default:
					t.Errorf("ask: %v", err)
				}
			}
		})
	}
	askers.Wait()
	close(stop)
	if err := w.relay.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
	agents.Wait()
	if n := relay.Waiting(w.relay); n != 0 {
		t.Errorf("%d questions still wait", n)
	}
	if answered.Load() < 500 {
		t.Errorf("only %d questions were answered", answered.Load())
	}
}

// stormy answers three of four questions, and leaves without a word after twenty.
func (a *agent) stormy(hello *sluisv1.ConnectRequest) {
	defer a.cancel()
	if a.stream.Send(hello) != nil {
		return
	}
	for range 20 {
		m, err := a.stream.Recv()
		if err != nil {
			return
		}
		if m.GetQuestion() != nil && rand.IntN(4) > 0 {
			_ = a.stream.Send(answer(m.GetQuestion().GetQuestionId(), "x"))
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
