package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/tunnox-net/tunnox/domain"
)

// The two forms of an audit: a page, and all results line by line.
const (
	mediaJSON   = "application/json"
	mediaNDJSON = "application/x-ndjson"
	mediaEvents = "text/event-stream"
)

// The bounds of an audit: an export reads exportPage records at a time and ends when the
// reader takes longer than streamPatience for them.
const (
	pageDefault    = 50
	exportPage     = 500
	streamPatience = 30 * time.Second
)

type auditInput struct {
	RecordFilter
	After  int64  `query:"after" minimum:"0" doc:"Only items after this position, in the order asked for. Use next of the previous page" example:"42"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" doc:"The most items to return; default 50, for NDJSON all"`
	Order  string `query:"order" enum:"oldest,newest" default:"oldest" doc:"The order"`
	Format string `query:"format" enum:"json,ndjson" doc:"The format, instead of Accept: application/json or application/x-ndjson"`
	Accept string `header:"Accept" hidden:"true"`
}

// lines reports whether the caller wants NDJSON.
func (in *auditInput) lines() bool {
	return in.Format == "ndjson" || in.Format == "" && strings.Contains(in.Accept, mediaNDJSON)
}

// auditAnswer is written by its body, because it has two forms.
type auditAnswer struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Total       string `header:"X-Total-Count" doc:"For NDJSON: the number of lines"`
	Body        func(huma.Context)
}

func (a *api) registerAudit() {
	op := operation(http.MethodGet, "/audit", "audit", "events", "Search the log: who did what, when", errorsOfList...)
	op.Description = "A page of records, or with `Accept: application/x-ndjson` all of them, one a line, as of the moment of the request; " +
		"`X-Total-Count` says how many lines there will be. An answer that ends before that was interrupted."
	page := a.huma.OpenAPI().Components.Schemas.Schema(typeOf[Page[Event]](), true, "")
	line := a.huma.OpenAPI().Components.Schemas.Schema(typeOf[Event](), true, "")
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		mediaJSON: {Schema: page}, mediaNDJSON: {Schema: line}}}}
	huma.Register(a.huma, op, a.audit)
}

func (a *api) audit(ctx context.Context, in *auditInput) (*auditAnswer, error) {
	q, err := a.query(ctx, in.RecordFilter)
	if err != nil {
		return nil, err
	}
	q.Newest = in.Order == "newest"
	switch after := domain.Position(in.After); {
	case q.Newest && after > 0 && (q.Before == 0 || after < q.Before):
		q.Before = after
	case !q.Newest:
		q.After = max(q.After, after)
	}
	if in.lines() {
		return a.auditLines(ctx, q, in.Limit)
	}
	limit := in.Limit
	if limit == 0 {
		limit = pageDefault
	}
	records, err := a.config.Search.Select(ctx, q, limit+1)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	page, err := a.eventPage(ctx, records, limit, func(e Event) int64 { return int64(e.Position) })
	if err != nil {
		return nil, err
	}
	return &auditAnswer{ContentType: mediaJSON, Body: func(ctx huma.Context) {
		// The error is that of a write to a connection that is gone.
		_ = jsonFormat.Marshal(ctx.BodyWriter(), page.Body)
	}}, nil
}

// auditLines streams the records that the query selects from the present log.
func (a *api) auditLines(ctx context.Context, q domain.Query, limit int) (*auditAnswer, error) {
	head, err := a.head(ctx)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	if q.Before == 0 || q.Before > head {
		q.Before = head + 1 // records that are written meanwhile are not in the total
	}
	total, err := a.config.Search.Count(ctx, q)
	if err != nil {
		return nil, a.unreadable(ctx, err)
	}
	if limit > 0 {
		total = min(total, int64(limit))
	}
	end, err := a.streams.begin(identity(ctx))
	if err != nil {
		return nil, err
	}
	return &auditAnswer{ContentType: mediaNDJSON, Total: strconv.FormatInt(total, 10), Body: func(ctx huma.Context) {
		defer end()
		if err := a.writeLines(ctx, q, total); err != nil {
			if ctx.Context().Err() == nil {
				a.logger.WarnContext(ctx.Context(), "export was interrupted", "request", tracked(ctx.Context()).id, "error", err)
			}
			// The status has been sent. Breaking off the connection is the only way to
			// tell the reader that records are missing.
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

func (a *api) writeLines(ctx huma.Context, q domain.Query, total int64) error {
	out := newOutflow(ctx)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for total > 0 {
		records, err := a.config.Search.Select(ctx.Context(), q, int(min(total, exportPage)))
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return io.ErrUnexpectedEOF // the log has fewer records than it counted
		}
		out.grant(streamPatience)
		for _, r := range records {
			event, err := a.event(ctx.Context(), r)
			if err != nil {
				return err
			}
			if err := lines.Encode(event); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		total -= int64(len(records))
		if last := records[len(records)-1].Position; q.Newest {
			q.Before = last
		} else {
			q.After = last
		}
	}
	return nil
}

// outflow is an answer that may take longer than the server's time limits.
type outflow struct {
	io.Writer
	control *http.ResponseController
}

func newOutflow(ctx huma.Context) *outflow {
	_, w := humago.Unwrap(ctx)
	o := &outflow{Writer: w, control: http.NewResponseController(w)}
	// The server's time limit for reading a request would end a long answer. An error
	// means that there is no connection, as in tests.
	_ = o.control.SetReadDeadline(time.Time{})
	return o
}

// grant sets the time limit of the next write. A reader that does not read must not keep
// the memory of the answer.
func (o *outflow) grant(patience time.Duration) {
	_ = o.control.SetWriteDeadline(time.Now().Add(patience)) // as in newOutflow
}

func (o *outflow) flush() error { return o.control.Flush() }
