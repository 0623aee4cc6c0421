package httpapi

import (
	"cmp"
	"errors"

	"github.com/tunnox-net/tunnox/domain"
)

// A client's name and description have the names that they have everywhere else in the API:
// name and description. client_name and client_desc are their older names. They are
// accepted and shown for as long as there is /api/v1, because scripts send and read them.

// olderClientNames are the older names of fields, by those of now.
var olderClientNames = map[string]string{"name": "client_name", "description": "client_desc"}

// clientText is a text of a body that has an older name.
type clientText struct {
	field        string // the name of now
	given, older *string
}

// value gives the text, nil for none. Both names with two values are a fault of the request.
func (t clientText) value() (*string, error) {
	if t.given != nil && t.older != nil && *t.given != *t.older {
		return nil, invalid("body."+olderClientNames[t.field], "is the older name of "+t.field+", and says something else: send "+t.field+" alone")
	}
	return cmp.Or(t.given, t.older), nil
}

// blame has faults of the text name the field that was sent. The domain knows the older names.
func (t clientText) blame(err error) error {
	older := olderClientNames[t.field]
	e, ok := errors.AsType[*domain.Error](err)
	if !ok || t.older != nil {
		return err
	}
	moved := *e
	moved.Faults = make([]domain.Fault, len(e.Faults))
	for i, f := range e.Faults {
		if f.Field == older {
			f.Field = t.field
		}
		moved.Faults[i] = f
	}
	return &moved
}

// clientTexts gives name and description of a body, and what has faults name its fields.
func clientTexts(name, olderName, description, olderDescription *string) (named, described *string, blame func(error) error, err error) {
	n := clientText{"name", name, olderName}
	d := clientText{"description", description, olderDescription}
	if named, err = n.value(); err == nil {
		described, err = d.value()
	}
	return named, described, func(err error) error { return d.blame(n.blame(err)) }, err
}

// textOr gives the text, "" for none.
func textOr(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
