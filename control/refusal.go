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

// ErrUnavailable wraps the reason why a call did not reach a control plane. After it a
// command may or may not have been executed.
var ErrUnavailable = errors.New("control: the control plane cannot be reached")

// refusalOf puts a domain error into a message.
func refusalOf(e *domain.Error) *controlpb.Refusal {
	r := &controlpb.Refusal{Code: string(e.Code), Message: text(e.Message)}
	for _, f := range e.Faults {
		r.Faults = append(r.Faults, &controlpb.Fault{Field: text(f.Field), Message: text(f.Message)})
	}
	return r
}

// text makes a text that may come from a stranger valid for a protobuf string.
func text(s string) string { return strings.ToValidUTF8(s, "�") }

// errorOf is the reverse of refusalOf.
func errorOf(r *controlpb.Refusal) *domain.Error {
	e := &domain.Error{Code: domain.Code(r.Code), Message: r.Message}
	for _, f := range r.Faults {
		e.Faults = append(e.Faults, domain.Fault{Field: f.Field, Message: f.Message})
	}
	return e
}

// statusOf gives the gRPC form of an error of the server: the first domain error in it
// with all its parts, and nothing else of the error. For any other error the caller
// learns only that there was one; internal reports this case.
func statusOf(err error) (s *status.Status, internal bool) {
	if e, ok := errors.AsType[*domain.Error](err); ok {
		s, failed := status.New(grpcCode(e.Code), text(e.Message)).WithDetails(refusalOf(e))
		return s, failed != nil
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "The caller left."), false
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "The call took too long."), false
	}
	return status.New(codes.Internal, "The control plane failed; its log says how."), true
}

// grpcCode is for tools that know gRPC and not Tunnox; our client reads the Refusal.
func grpcCode(c domain.Code) codes.Code {
	switch c {
	case domain.CodeInvalid:
		return codes.InvalidArgument
	case domain.CodeUserNotFound, domain.CodeClientNotFound, domain.CodeMappingNotFound, domain.CodeInviteNotFound:
		return codes.NotFound
	case domain.CodeUsernameTaken, domain.CodeEmailTaken, domain.CodeListenerTaken, domain.CodeIDTaken:
		return codes.AlreadyExists
	case domain.CodeClientNotOwned, domain.CodeCommandsRefused, domain.CodeNodeTaken, domain.CodeNodeRevoked, domain.CodeNodeName, domain.CodeJoinTokenUsed, codeJoinRefused:
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

// outcome is the result of one attempt of a call.
type outcome int

const (
	answered outcome = iota // with success or a refusal
	away                    // nobody answered, or could not reach the log
	failed                  // the answer was wrong
)

// received turns an error of gRPC into the error for callers.
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
	// A connection can be older than its certificate. The server ends it then, and the
	// next one uses the present certificate.
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unauthenticated:
		return away, unreachable(err)
	}
	return failed, fmt.Errorf("control plane: %w", err)
}

// unknownService are the texts of gRPC when no control plane has the service of this
// version: that the call failed, or, if all have said so in advance, that there is
// nobody to call. If one of them has the service, that one is called.
var unknownService = map[codes.Code]string{codes.Unimplemented: "unknown ", codes.Unavailable: "SERVICE_UNKNOWN"}

// otherVersion keeps the cause for logs after the sentence for people.
func otherVersion(err error) error {
	return fmt.Errorf("%w: %w", &domain.Error{Code: domain.CodeOtherVersion,
		Message: "The control plane and this forwarder have different versions: bring all servers of the cluster to the same version."}, err)
}

// unreachable keeps the cause for logs after the sentence for people.
func unreachable(err error) error {
	return fmt.Errorf("%w: %w: %w", &domain.Error{Code: domain.CodeStoreUnavailable,
		Message: "The control plane cannot be reached. A command may or may not have been executed."}, ErrUnavailable, err)
}
