package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"sluis/internal/disclosure"
	"sluis/internal/identity"
	sluisv1 "sluis/proto/sluis/v1"
)

var (
	errPanic       = errors.New("rpc: panic")
	errTooLarge    = fmt.Errorf("%w: larger than any sound request", disclosure.ReasonInvalidRequest)
	errUnknown     = fmt.Errorf("%w: unknown fields or enum values", disclosure.ReasonInvalidRequest)
	errNoRule      = fmt.Errorf("%w: method has no rule", disclosure.ReasonRoleNotAllowed)
	errWrongPerson = fmt.Errorf("%w: person of another organisation", disclosure.ReasonTokenInvalid)
)

// session is what the interceptors found out about a call.
type session struct {
	caller  disclosure.Caller
	partner *disclosure.Partner // nil for open methods
}

type sessionKey struct{}

// sessionOf returns the session of a call; every call that reaches a handler has one.
func sessionOf(ctx context.Context) *session {
	s, ok := ctx.Value(sessionKey{}).(*session)
	if !ok {
		return &session{}
	}
	return s
}

func callerOf(ctx context.Context) disclosure.Caller { return sessionOf(ctx).caller }

// unary guards one call.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !s.calls.begin() {
		return nil, s.refuse(ctx, info.FullMethod, "", disclosure.ReasonOverloaded)
	}
	defer s.calls.end()
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > s.cfg.MaxCall {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.cfg.MaxCall)
		defer cancel()
	}
	var found session
	response, err := s.guarded(ctx, info.FullMethod, &found, func(ctx context.Context, rule rule) (any, error) {
		if err := s.check(request, rule); err != nil {
			return nil, err
		}
		return handler(ctx, request)
	})
	if err != nil {
		return nil, s.refuse(ctx, info.FullMethod, found.caller.Organisation, err)
	}
	return response, nil
}

// stream guards one stream.
func (s *Server) stream(server any, wire grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	var found session
	_, err := s.guarded(wire.Context(), info.FullMethod, &found, func(ctx context.Context, rule rule) (any, error) {
		return nil, handler(server, &guardedStream{ServerStream: wire, ctx: ctx, server: s, rule: rule})
	})
	if broken := brokenStream(err); broken != nil {
		return broken
	}
	if err != nil {
		return s.refuse(wire.Context(), info.FullMethod, found.caller.Organisation, err)
	}
	return nil
}

// guarded finds out who calls, and lets him do it if he may. The results are named for the sake of the recovery alone.
func (s *Server) guarded(
	ctx context.Context, method string, found *session, do func(context.Context, rule) (any, error),
) (response any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			// Not the value: it may hold what nobody may log.
			s.log.LogAttrs(ctx, slog.LevelError, "panic in a call",
				slog.String("method", method), slog.String("type", fmt.Sprintf("%T", cause)), slog.String("stack", string(debug.Stack())))
			response, err = nil, errPanic
		}
	}()
	rule, ok := s.rules[method]
	if !ok {
		return nil, errNoRule
	}
	if !rule.open {
		if err := s.identify(ctx, rule, found); err != nil {
			return nil, err
		}
		ctx = context.WithValue(ctx, sessionKey{}, found)
	}
	return do(ctx, rule)
}

// identify finds the organisation and, where the rule asks for one, the person.
func (s *Server) identify(ctx context.Context, rule rule, found *session) error {
	organisation, err := organisationOf(ctx)
	if err != nil {
		return err
	}
	found.caller.Organisation = organisation
	found.partner, err = s.cfg.Broker.Partner(ctx, organisation)
	if errors.Is(err, disclosure.ReasonNotFound) {
		return fmt.Errorf("directory: %w", disclosure.ReasonUnknownOrganisation)
	}
	if err != nil {
		return err
	}
	if found.partner == nil || found.partner.OIN != organisation {
		return fmt.Errorf("directory: %w", disclosure.ReasonUnknownOrganisation)
	}
	if rule.roles == nil {
		return nil
	}
	token, err := tokenOf(ctx)
	if err != nil {
		return err
	}
	person, err := s.cfg.Tokens.Verify(ctx, token, organisation)
	if err != nil {
		return err
	}
	if person.Organisation != organisation || person.Subject == "" {
		return errWrongPerson
	}
	found.caller.Person, found.caller.Roles, found.caller.Domains = person.Ref(), person.Roles, person.Domains
	if !found.caller.Is(rule.roles...) {
		return fmt.Errorf("method: %w", disclosure.ReasonRoleNotAllowed)
	}
	return nil
}

// organisationOf reads the organisation from the certificate of the connection.
func organisationOf(ctx context.Context) (disclosure.OIN, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", identity.ErrNoOrganisation
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", identity.ErrNoOrganisation
	}
	organisation, err := identity.PeerOrganisation(info.State)
	return organisation.OIN, err
}

const bearer = "bearer "

// tokenOf reads the token from the metadata.
func tokenOf(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch {
	case len(values) == 0:
		return "", identity.ErrNoToken
	case len(values) > 1 || len(values[0]) <= len(bearer) || !strings.EqualFold(values[0][:len(bearer)], bearer):
		return "", identity.ErrTokenInvalid
	}
	return values[0][len(bearer):], nil
}

// check holds a request against its limit of size and the known fields and enum values.
func (s *Server) check(request any, rule rule) error {
	if rule.open {
		return nil
	}
	m, ok := request.(proto.Message)
	if !ok {
		return fmt.Errorf("rpc: request of type %T", request)
	}
	if proto.Size(m) > rule.maxBytes {
		return errTooLarge
	}
	if !s.strict.known(m.ProtoReflect()) {
		return errUnknown
	}
	return nil
}

// refuse logs why a call failed and returns what the caller is told about it.
func (s *Server) refuse(ctx context.Context, method string, organisation disclosure.OIN, err error) error {
	shown := statusOf(err)
	level := slog.LevelInfo
	switch shown.Code() {
	case codes.Internal:
		level = slog.LevelError
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		level = slog.LevelWarn
	default:
	}
	s.log.LogAttrs(ctx, level, "call refused", slog.String("method", method), slog.String("organisation", string(organisation)),
		slog.String("code", shown.Code().String()), slog.Any("error", err))
	return shown.Err()
}

// brokenStream turns the errors with which gRPC itself ends a stream, such as that the agent is gone, into one without its text. For any
// other error, and none, it is nil.
func brokenStream(err error) error {
	found, ok := status.FromError(err)
	if _, reason := errors.AsType[disclosure.ReasonCode](err); !ok || reason || found.Code() == codes.Unknown {
		return nil
	}
	return status.Error(found.Code(), "the stream broke off")
}

// guardedStream is a stream whose messages are checked as requests are.
type guardedStream struct {
	grpc.ServerStream
	ctx    context.Context //nolint:containedctx // this is how gRPC hands a context to a stream's handler
	server *Server
	rule   rule
}

// Context returns the context with the session.
func (g *guardedStream) Context() context.Context { return g.ctx }

// RecvMsg receives and checks a message.
func (g *guardedStream) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return g.server.check(m, g.rule)
}

// strictness knows for each message of the contract which of its fields hold messages or enums, and so where unknown things can hide.
type strictness map[protoreflect.FullName][]protoreflect.FieldDescriptor

func newStrictness() strictness {
	s := strictness{}
	for _, file := range contract() {
		messages := file.Messages()
		for i := range messages.Len() {
			s.learn(messages.Get(i))
		}
	}
	return s
}

// contract lists the files of the wire contract.
func contract() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		sluisv1.File_sluis_v1_agents_proto, sluisv1.File_sluis_v1_audit_proto, sluisv1.File_sluis_v1_cases_proto,
		sluisv1.File_sluis_v1_common_proto, sluisv1.File_sluis_v1_directory_proto, sluisv1.File_sluis_v1_disclosures_proto,
		sluisv1.File_sluis_v1_evidence_proto, sluisv1.File_sluis_v1_grants_proto, sluisv1.File_sluis_v1_pseudonyms_proto,
	}
}

func (s strictness) learn(message protoreflect.MessageDescriptor) {
	if _, ok := s[message.FullName()]; ok {
		return
	}
	var deep []protoreflect.FieldDescriptor
	fields := message.Fields()
	s[message.FullName()] = nil
	for i := range fields.Len() {
		field := fields.Get(i)
		value := field
		if field.IsMap() {
			value = field.MapValue()
		}
		switch value.Kind() {
		case protoreflect.MessageKind, protoreflect.GroupKind:
			deep = append(deep, field)
			s.learn(value.Message())
		case protoreflect.EnumKind:
			deep = append(deep, field)
		default:
		}
	}
	s[message.FullName()] = deep
}

// known reports whether everything in a message is known to this version of the contract.
func (s strictness) known(m protoreflect.Message) bool {
	deep, ok := s[m.Descriptor().FullName()]
	if !ok || len(m.GetUnknown()) > 0 {
		return false
	}
	for _, field := range deep {
		if m.Has(field) && !s.knownField(field, m.Get(field)) {
			return false
		}
	}
	return true
}

func (s strictness) knownField(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
	switch {
	case field.IsMap():
		all := true
		value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			all = s.knownValue(field.MapValue(), v)
			return all
		})
		return all
	case field.IsList():
		list := value.List()
		for i := range list.Len() {
			if !s.knownValue(field, list.Get(i)) {
				return false
			}
		}
		return true
	default:
		return s.knownValue(field, value)
	}
}

func (s strictness) knownValue(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
	if field.Kind() == protoreflect.EnumKind {
		return field.Enum().Values().ByNumber(value.Enum()) != nil
	}
	return s.known(value.Message())
}
