package httpapi

import "reflect"

// PageInput asks for one page of a list.
type PageInput struct {
	MinHeader
	After int64 `query:"after" minimum:"0" doc:"Only items with a higher id. Use next of the previous page" example:"100000001"`
	Limit int   `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"The most items to return"`
}

// Page is one page of a list, by rising id.
type Page[T any] struct {
	Items []T    `json:"items" nullable:"false" doc:"The page"`
	Next  *int64 `json:"next" doc:"Send it as after for the next page; null when this was the last" example:"100000050"`
}

// pageAnswer is the answer of a list.
type pageAnswer[T any] struct{ Body Page[T] }

// pageOf makes a page of rows; next is what the page after begins behind, 0 at
// the end.
func pageOf[R, T any](rows []R, next int64, body func(R) T) *pageAnswer[T] {
	items := make([]T, len(rows))
	for i, r := range rows {
		items[i] = body(r)
	}
	p := &pageAnswer[T]{Body: Page[T]{Items: items}}
	if next != 0 {
		p.Body.Next = &next
	}
	return p
}

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }
