package httpapi

import (
	"context"
	"net/http"

	"github.com/tunnox-net/tunnox/domain"
)

// OwnerFilter selects the items of one user.
type OwnerFilter struct {
	UserID int64 `query:"user_id" minimum:"1" doc:"Only items of this user. Callers who are not admins see only their own" example:"100000001"`
}

// owner gives the user of a list; ok is false when an admin asks for all.
func (f OwnerFilter) owner(ctx context.Context) (user int64, ok bool, err error) {
	who := identity(ctx)
	switch {
	case who.admin():
		return f.UserID, f.UserID != 0, nil
	case f.UserID != 0 && f.UserID != who.UserID:
		p := refused(http.StatusNotFound, &domain.Error{Code: domain.CodeUserNotFound, Message: "There is no such user."})
		p.Errors = []*Fault{{Location: "query.user_id", Message: "There is no such user."}}
		return 0, false, p
	}
	return who.UserID, true, nil
}

// maxScan bounds the rows that one request reads for a filter. A page may then be
// shorter than its limit, or empty, and still have a next.
const maxScan = 5000

// filtered gives a page of items that pass. It reads pages of all items until there are
// enough. next is the id after which the list continues.
func filtered[R any](after int64, limit int, id func(R) int64,
	read func(after int64, limit int) ([]R, int64, error), pass func([]R) ([]R, error)) (rows []R, next int64, err error) {
	for scanned := 0; ; {
		n := min(max(2*limit, 100), 1000)
		page, more, err := read(after, n)
		if err != nil {
			return nil, 0, err
		}
		passed, err := pass(page)
		if err != nil {
			return nil, 0, err
		}
		if left := limit - len(rows); len(passed) >= left {
			rows = append(rows, passed[:left]...)
			if len(passed) == left && more == 0 {
				return rows, 0, nil
			}
			return rows, id(rows[len(rows)-1]), nil
		}
		rows = append(rows, passed...)
		if more == 0 {
			return rows, 0, nil
		}
		after = more
		if scanned += n; scanned >= maxScan {
			return rows, after, nil
		}
	}
}
