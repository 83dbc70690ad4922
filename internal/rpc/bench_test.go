package rpc_test

import (
	"context"
	"testing"

	"google.golang.org/protobuf/proto"

	"sluis/internal/disclosure"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

// BenchmarkEdge is what the edge itself does with a request for a disclosure, apart from gRPC: unknown fields, parsing, digest, response.
func BenchmarkEdge(b *testing.B) {
	services := rpc.Services(silentBroker{newFakeBroker()})
	method := sluisv1.DisclosureService_RequestDisclosure_FullMethodName
	request := requests()[method]
	b.ReportAllocs()
	for b.Loop() {
		if err := services(context.Background(), method, request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStrictness is the search for unknown fields in that request.
func BenchmarkStrictness(b *testing.B) {
	request := requests()[sluisv1.DisclosureService_RequestDisclosure_FullMethodName]
	known := rpc.Strict()
	b.ReportAllocs()
	for b.Loop() {
		if !known(request) {
			b.Fatal("unknown")
		}
	}
}

// BenchmarkSize is the size of that request, for comparison.
func BenchmarkSize(b *testing.B) {
	request := requests()[sluisv1.DisclosureService_RequestDisclosure_FullMethodName]
	b.ReportAllocs()
	for b.Loop() {
		if proto.Size(request) == 0 {
			b.Fatal("empty")
		}
	}
}

// silentBroker notes nothing about disclosures.
type silentBroker struct{ *fakeBroker }

func (silentBroker) RequestDisclosure(
	context.Context, disclosure.Caller, disclosure.RequestID, disclosure.Query, []byte, []byte,
) (disclosure.Disclosure, error) {
	return fullDisclosure(), nil
}

// BenchmarkCall is a request for a disclosure from client to server and back, over mutual TLS, with a broker that does nothing.
func BenchmarkCall(b *testing.B) {
	w := newWorld(b, func(cfg *rpc.ServerConfig) { cfg.Broker = silentBroker{newFakeBroker()} })
	client := w.client(city)
	q := fullQuery()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.RequestDisclosure(context.Background(), requestID, q, nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkAsk is a question to an agent and its answer, over mutual TLS.
func BenchmarkAsk(b *testing.B) {
	w := newWorld(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := w.serve(ctx, w.client(police), func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
		return replyTo(q), nil
	})
	until(b, "connected", w.connected)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.relay.Ask(ctx, policeHat(), fullQuestion("permit")); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}
