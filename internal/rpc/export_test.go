package rpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sluis/internal/disclosure"
)

// Rules returns the roles of each method.
func Rules() map[string][]disclosure.Role {
	roles := make(map[string][]disclosure.Role)
	for method, rule := range methodRules() {
		roles[method] = rule.roles
	}
	return roles
}

// StatusOf is statusOf.
func StatusOf(err error) *status.Status { return statusOf(err) }

// HasRow reports whether a reason code is in the error table.
func HasRow(code disclosure.ReasonCode) bool {
	_, ok := reasonRow(code)
	return ok
}

// ErrorFrom is errorFrom.
func ErrorFrom(err error) error { return errorFrom(err) }

// Known reports whether everything in a message is known.
func Known(m proto.Message) bool { return newStrictness().known(m.ProtoReflect()) }

// Jitter is jitter.
func Jitter(base, limit time.Duration, failures int) time.Duration {
	return jitter(base, limit, failures)
}

// The keepalive times.
const (
	KeepaliveTime    = keepaliveTime
	KeepaliveMinimum = keepaliveMinimum
)

// Services returns a function that calls a method as gRPC would, without a network and interceptors.
func Services(b Broker) func(ctx context.Context, method string, request any) error {
	recorder := &recorder{methods: make(map[string]func(context.Context, any) error)}
	register(recorder, ServerConfig{Broker: b})
	return func(ctx context.Context, method string, request any) error {
		return recorder.methods[method](ctx, request)
	}
}

type recorder struct {
	methods map[string]func(context.Context, any) error
}

func (r *recorder) RegisterService(service *grpc.ServiceDesc, implementation any) {
	for _, method := range service.Methods {
		r.methods["/"+service.ServiceName+"/"+method.MethodName] = func(ctx context.Context, request any) error {
			decode := func(target any) error {
				to, okTo := target.(proto.Message)
				from, okFrom := request.(proto.Message)
				if !okTo || !okFrom {
					return errors.New("not a message")
				}
				proto.Merge(to, from)
				return nil
			}
			_, err := method.Handler(implementation, ctx, decode, nil)
			return err
		}
	}
}

// Strict returns a function that reports whether everything in a message is known, as a server does it.
func Strict() func(proto.Message) bool {
	strict := newStrictness()
	return func(m proto.Message) bool { return strict.known(m.ProtoReflect()) }
}
