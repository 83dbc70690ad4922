package rpc_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"sluis/internal/disclosure"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

func TestHealth(t *testing.T) {
	w := newWorld(t)
	client := healthpb.NewHealthClient(w.conn(stranger)) // a certificate is enough
	services := []string{
		"", "sluis.v1.DisclosureService", "sluis.v1.AgentService", "sluis.v1.CaseService", "sluis.v1.GrantService",
		"sluis.v1.EvidenceService", "sluis.v1.DirectoryService", "sluis.v1.PseudonymService", "sluis.v1.AuditService",
	}
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range services {
			got, err := client.Check(w.deadline(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("%q: got %v, %v, want %v", service, got.GetStatus(), err, want)
			}
		}
	}
	check(healthpb.HealthCheckResponse_SERVING)
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", first, err)
	}
	w.healthMu.Lock()
	w.sick = errors.New("ledger is poisoned")
	w.healthMu.Unlock()
	if next, err := watch.Recv(); err != nil || next.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("watch: %v, %v", next, err)
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	w.healthMu.Lock()
	w.sick = nil
	w.healthMu.Unlock()
	check(healthpb.HealthCheckResponse_SERVING)
	_, err = client.Check(w.deadline(), &healthpb.HealthCheckRequest{Service: "nonesuch"})
	if status.Code(err) == codes.OK {
		t.Error("a service that does not exist is healthy")
	}
	if next, err := watch.Recv(); err != nil || next.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("watch: %v, %v", next, err)
	}
	w.stop()
	if err := receive(t, "stop", w.stopped); err != nil {
		t.Errorf("stop with a watcher: %v", err)
	}
	w.stopped <- nil
}

func TestStopLetsCallsFinish(t *testing.T) {
	w := newWorld(t)
	held := make(chan struct{})
	w.broker.set(func(b *fakeBroker) { b.held = held })
	client := w.client(city)
	result := make(chan error, 1)
	go func() {
		_, err := client.Checkpoint(w.deadline(), 1)
		result <- err
	}()
	receive(t, "call", w.broker.entered)
	watch, err := healthpb.NewHealthClient(w.conn(city)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	agentEnded := make(chan error, 1)
	stream, err := sluisv1.NewAgentServiceClient(w.conn(city)).Connect(w.deadline())
	if err != nil {
		t.Fatal(err)
	}
	hello := &sluisv1.AgentHello{Domains: []string{"ME"}}
	if err := stream.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := stream.Recv()
		agentEnded <- err
	}()

	w.stop()
	until(t, "the listener is closed", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.client(city).Checkpoint(ctx, 1)
		return err != nil
	})
	select {
	case err := <-w.stopped:
		t.Fatalf("stopped while a call runs: %v", err)
	case err := <-agentEnded:
		t.Fatalf("the agent's stream ended while a call runs: %v", err)
	default:
	}
	if next, err := watch.Recv(); err != nil || next.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health while stopping: %v, %v", next, err)
	}
	close(held)
	if err := receive(t, "call", result); err != nil {
		t.Errorf("running call: %v", err)
	}
	if err := receive(t, "stream", agentEnded); reasonIn(t, err) != disclosure.ReasonBrokerRestarted {
		t.Errorf("stream of the agent: %v", err)
	}
	if err := receive(t, "stop", w.stopped); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	w := newWorld(t, func(cfg *rpc.ServerConfig) { cfg.Stop = 20 * time.Millisecond })
	w.broker.set(func(b *fakeBroker) { b.held = make(chan struct{}) })
	result := make(chan error, 1)
	client := w.client(city)
	go func() {
		_, err := client.Checkpoint(w.deadline(), 1)
		result <- err
	}()
	receive(t, "call", w.broker.entered)
	w.stop()
	if err := receive(t, "stop", w.stopped); err == nil {
		t.Error("says nothing of the call that was broken off")
	}
	if err := receive(t, "call", result); err == nil {
		t.Error("the call succeeds")
	}
}

func TestCallsAreBoundedInTime(t *testing.T) {
	w := newWorld(t, func(cfg *rpc.ServerConfig) { cfg.MaxCall = time.Minute })
	conn := w.conn(city)
	method := sluisv1.AuditService_GetCheckpoint_FullMethodName
	for name, test := range map[string]struct {
		asked, least, most time.Duration
	}{
		"no deadline":  {0, 50 * time.Second, time.Minute},
		"too long":     {time.Hour, 50 * time.Second, time.Minute},
		"its own":      {patience, 0, patience},
		"a short time": {time.Second, 0, time.Second},
	} {
		ctx := context.Background()
		if test.asked > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, test.asked)
			defer cancel()
		}
		if err := unary(ctx, conn, method, requests()[method]); err != nil {
			t.Fatal(err)
		}
		var left time.Duration
		w.broker.set(func(b *fakeBroker) {
			deadline, ok := b.ctxs[len(b.ctxs)-1].Deadline()
			if !ok {
				t.Errorf("%s: no deadline", name)
			}
			left = time.Until(deadline)
		})
		if left < test.least || left > test.most {
			t.Errorf("%s: %v left, want %v to %v", name, left, test.least, test.most)
		}
	}
	short := newWorld(t, func(cfg *rpc.ServerConfig) { cfg.MaxCall = time.Millisecond })
	short.broker.set(func(b *fakeBroker) { b.held = make(chan struct{}) })
	if err := unary(short.deadline(), short.conn(city), method, requests()[method]); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call that takes too long: %v", err)
	}
}

func TestTooManyCallsAreRefusedAtOnce(t *testing.T) {
	w := newWorld(t, func(cfg *rpc.ServerConfig) { cfg.MaxInFlight = 2 })
	held := make(chan struct{})
	w.broker.set(func(b *fakeBroker) { b.held = held })
	client := w.client(city)
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := client.Checkpoint(w.deadline(), 1)
			results <- err
		}()
		receive(t, "call", w.broker.entered)
	}
	_, err := client.Checkpoint(w.deadline(), 1)
	var failed *rpc.Error
	if !errors.Is(err, disclosure.ReasonOverloaded) || !errors.As(err, &failed) || failed.Retry == 0 || failed.GRPC != codes.ResourceExhausted {
		t.Errorf("third call: %v", err)
	}
	close(held)
	for range 2 {
		if err := receive(t, "call", results); err != nil {
			t.Errorf("running call: %v", err)
		}
	}
	if _, err := client.Checkpoint(w.deadline(), 1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestKeepalive(t *testing.T) {
	if rpc.KeepaliveMinimum != 20*time.Second || rpc.KeepaliveTime <= rpc.KeepaliveMinimum {
		t.Errorf("clients ping every %v and may every %v: they would be sent away", rpc.KeepaliveTime, rpc.KeepaliveMinimum)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	w := newWorld(t)
	server, err := rpc.NewServer(rpc.ServerConfig{TLS: w.serverTLS(), Broker: w.broker, Tokens: w.verifier(), Agents: w.relay})
	if err != nil {
		t.Fatal(err)
	}
	listener := brokenListener{}
	if err := server.Serve(t.Context(), listener); err == nil {
		t.Error("no error")
	}
}

type brokenListener struct{}

func (brokenListener) Accept() (net.Conn, error) { return nil, errors.New("broken") }
func (brokenListener) Close() error              { return nil }
func (brokenListener) Addr() net.Addr            { return &net.TCPAddr{} }
