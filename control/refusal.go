package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tunnox-net/tunnox/control/controlpb"
	"github.com/tunnox-net/tunnox/domain"
)

// ErrUnavailable wraps what kept a call from reaching a control plane. After it
// a command may or may not have been executed.
var ErrUnavailable = errors.New("control: control plane cannot be reached")

// refusalOf puts a domain error into a message.
func refusalOf(e *domain.Error) *controlpb.Refusal {
	r := &controlpb.Refusal{Code: string(e.Code), Message: text(e.Message)}
	for _, f := range e.Faults {
		r.Faults = append(r.Faults, &controlpb.Fault{Field: text(f.Field), Message: text(f.Message)})
	}
	return r
}

// text makes what may be a stranger's fit for a protobuf string.
func text(s string) string { return strings.ToValidUTF8(s, "�") }

// errorOf is the reverse of refusalOf.
func errorOf(r *controlpb.Refusal) *domain.Error {
	e := &domain.Error{Code: domain.Code(r.Code), Message: r.Message}
	for _, f := range r.Faults {
		e.Faults = append(e.Faults, domain.Fault{Field: f.Field, Message: f.Message})
	}
	return e
}

// statusOf is how an error of the server goes over the wire: the first domain
// error in it with all its parts, and nothing of what stands around that. Of
// other errors the caller learns only that they happened. internal reports such.
func statusOf(err error) (s *status.Status, internal bool) {
	if e, ok := errors.AsType[*domain.Error](err); ok {
		s, failed := status.New(grpcCode(e.Code), text(e.Message)).WithDetails(refusalOf(e))
		return s, failed != nil
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "The caller left."), false
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "It took too long."), false
	}
	return status.New(codes.Internal, "The control plane failed; its log says how."), true
}

// grpcCode is for tools that know gRPC and not us; our client reads the Refusal.
func grpcCode(c domain.Code) codes.Code {
	switch c {
	case domain.CodeInvalid:
		return codes.InvalidArgument
	case domain.CodeUserNotFound, domain.CodeClientNotFound, domain.CodeMappingNotFound, domain.CodeInviteNotFound:
		return codes.NotFound
	case domain.CodeUsernameTaken, domain.CodeEmailTaken, domain.CodeListenerTaken, domain.CodeIDTaken:
		return codes.AlreadyExists
	case domain.CodeClientNotOwned, codeJoinRefused:
		return codes.PermissionDenied
	case domain.CodeQuotaClients, domain.CodeQuotaMappings, domain.CodeQuotaActive:
		return codes.ResourceExhausted
	case domain.CodeVersionConflict:
		return codes.Aborted
	case domain.CodeStoreUnavailable:
		return codes.Unavailable
	}
	return codes.FailedPrecondition
}

// outcome is what came of one attempt of a call.
type outcome int

const (
	answered outcome = iota // with success or a refusal
	away                    // nobody answered, or could not reach the log
	failed                  // somebody answered with something wrong
)

// received turns an error of gRPC into what callers get.
func received(err error) (outcome, error) {
	if err == nil {
		return answered, nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return failed, err
	}
	for _, d := range s.Details() {
		if r, ok := d.(*controlpb.Refusal); ok {
			return answered, errorOf(r)
		}
	}
	if missing := unknownService[s.Code()]; missing != "" && strings.Contains(s.Message(), missing) {
		return failed, otherVersion(err)
	}
	switch s.Code() {
	// A connection can outlive its certificate; the server ends it then, and the
	// next one is made with the certificate of now.
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unauthenticated:
		return away, unreachable(err)
	}
	return failed, fmt.Errorf("control plane: %w", err)
}

// unknownService is what gRPC says when nobody there has the service of this
// version: that it is called in vain, or, when they all told so in advance, that
// there is nobody to call. Where one has it, that one is called.
var unknownService = map[codes.Code]string{codes.Unimplemented: "unknown ", codes.Unavailable: "SERVICE_UNKNOWN"}

// otherVersion keeps the cause for logs behind the sentence for people.
func otherVersion(err error) error {
	return fmt.Errorf("%w: %w", &domain.Error{Code: domain.CodeOtherVersion,
		Message: "The control plane and this forwarder are of different versions: bring all servers of the cluster to the same version."}, err)
}

// unreachable keeps the cause for logs behind the sentence for people.
func unreachable(err error) error {
	return fmt.Errorf("%w: %w: %w", &domain.Error{Code: domain.CodeStoreUnavailable,
		Message: "The control plane cannot be reached. A command may or may not have been executed."}, ErrUnavailable, err)
}
