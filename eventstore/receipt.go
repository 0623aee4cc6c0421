package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/tunnox-net/tunnox/domain"
)

// usedBefore looks for the append that used the submission's key.
func (e *Executor) usedBefore(ctx context.Context, sub domain.Submission) (KeyUse, bool, error) {
	if sub.Key == "" {
		return KeyUse{}, false, nil
	}
	return e.store.KeyUse(ctx, sub.KeyScope, sub.Key)
}

// recall builds the receipt of the command that used the key, as its caller got it: its
// records, and its subject as it was then and not as it is now.
func (e *Executor) recall(ctx context.Context, sub domain.Submission, use KeyUse) (domain.Receipt, error) {
	if use.Hash != sub.Hash {
		return domain.Receipt{}, keyReused()
	}
	r := domain.Receipt{Position: use.Last, Subject: use.Subject, State: domain.NewAggregate(use.Subject), Duplicate: true}
	if r.State == nil {
		return domain.Receipt{}, fmt.Errorf("recall a command about %q: unknown category", use.Subject)
	}
	var err error
	if r.Records, err = e.store.ReadAll(ctx, use.First-1, int(use.Last-use.First)+1); err != nil {
		return domain.Receipt{}, err
	}
	for {
		records, err := e.store.ReadStream(ctx, use.Subject, r.Version, streamPage)
		if err != nil {
			return domain.Receipt{}, err
		}
		for i, record := range records {
			if record.Position > use.Last {
				return r, nil
			}
			if err := domain.Fold(r.State, records[i:i+1]); err != nil {
				return domain.Receipt{}, fmt.Errorf("fold event stream %s: %w", use.Subject, err)
			}
			r.Version = record.Version
		}
		if len(records) < streamPage {
			return r, nil
		}
	}
}

// outward turns a failure of the store into the error that callers of Submit get.
func outward(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, ok := errors.AsType[*domain.Error](err); ok {
		return err
	}
	return unavailable(err)
}

// unavailable keeps the cause for logs after the sentence for people. An error other
// than [ErrUnavailable] does not go away by waiting, so it gets no code.
func unavailable(err error) error {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", &domain.Error{Code: domain.CodeStoreUnavailable,
		Message: "The log cannot be reached. The command may or may not have been executed; repeat it with the same idempotency key to find out."}, err)
}

func keyReused() error {
	return &domain.Error{Code: domain.CodeIdempotencyMismatch,
		Message: "This idempotency key was used with another request."}
}

func claimRefusal(c domain.Claim) error {
	message := fmt.Sprintf("The %s %q is taken.", c.Scope, c.Value)
	if c.Scope == domain.ClaimListener {
		message = "Another mapping of the source client listens on this address."
	}
	return &domain.Error{Code: domain.TakenCode(c.Scope), Message: message}
}
