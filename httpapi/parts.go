package httpapi

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tunnox-net/tunnox/domain"
)

// The parts of a mapping have their names, documentation and bounds in the tags of
// the domain's structs, for requests. Here are the two other forms: what an answer
// shows, and what a change takes.

// Protocol is a protocol in a body or a query. The document offers those that this
// version carries.
type Protocol string

// Schema implements [huma.SchemaProvider].
func (Protocol) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, p := range domain.Protocols() {
		s.Enum = append(s.Enum, string(p))
	}
	return s
}

// ports is a domain.PortRange in the document: a number or a text, as
// the domain reads and writes it.
type ports domain.PortRange

// Schema implements [huma.SchemaProvider].
func (ports) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, 65535.0
	return &huma.Schema{OneOf: []*huma.Schema{
		{Type: huma.TypeInteger, Minimum: &least, Maximum: &most},
		{Type: huma.TypeString, Pattern: `^[0-9]{1,5}(-[0-9]{1,5})?$`},
	}}
}

// answers makes a schema of requests that of an answer: nothing of a part is missing
// there, and bounds are not the reader's matter.
func answers(s *huma.Schema, parts ...any) *huma.Schema {
	for _, part := range parts {
		for _, field := range domain.Fields(part) {
			p := s.Properties[field.Name]
			p.Minimum, p.Maximum, p.MinLength, p.MaxLength = nil, nil, nil, nil
			if always(field) && !slices.Contains(s.Required, field.Name) {
				s.Required = append(s.Required, field.Name)
			}
		}
	}
	s.PrecomputeMessages()
	return s
}

// always reports whether a field stands in every answer. What has no meaning when
// nobody has set it is left out.
func always(field domain.Field) bool {
	return !field.Optional || field.Unset != ""
}

// TransformSchema implements [huma.SchemaTransformer].
func (Mapping) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return answers(s, domain.Origin{}, domain.Service{}, domain.Options{})
}

// TransformSchema implements [huma.SchemaTransformer].
func (Share) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s = answers(s, domain.Service{}, domain.Options{})
	delete(s.Properties, lastPort)
	return s
}

// lastPort is the field of a service that needs a range of public ports.
const lastPort = "target_port_last"

// TransformSchema implements [huma.SchemaTransformer]: a share is redeemed for a listener,
// which is one port.
func (CreateShareBody) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	delete(s.Properties, lastPort)
	s.PrecomputeMessages()
	return s
}

// ChangeMappingBody is the body of PUT /mappings/{id}; what is left out or null
// stays. Its fields are for the document: what was sent is in patch, so that a field
// of a part is written nowhere here.
type ChangeMappingBody struct {
	MappingID      *int64         `json:"mapping_id,omitempty" doc:"May be sent, but cannot be changed" example:"1001"`
	UserID         *int64         `json:"user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000001"`
	SourceClientID *int64         `json:"source_client_id,omitempty" doc:"May be sent, but cannot be changed" example:"600000000"`
	TargetClientID *int64         `json:"target_client_id,omitempty" doc:"May be sent, but cannot be changed" example:"600000001"`
	SourceUserID   *int64         `json:"source_user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000002"`
	TargetUserID   *int64         `json:"target_user_id,omitempty" doc:"May be sent, but cannot be changed" example:"100000002"`
	ShareID        *int64         `json:"share_id,omitempty" doc:"May be sent, but cannot be changed" example:"1234567890123"`
	Protocol       *Protocol      `json:"protocol,omitempty" doc:"May be sent, but cannot be changed" example:"tcp"`
	PublicAddress  *string        `json:"public_address,omitempty" doc:"May be sent, but is derived from public_port" example:"192.0.2.10:20000"`
	PublicURL      *string        `json:"public_url,omitempty" doc:"May be sent, but is derived from public_host and public_path" example:"http://brave-otter.t.example.org/"`
	Health         []TargetHealth `json:"health,omitempty" doc:"May be sent, but is what the health check has found" example:"[{\"client_id\":600000001,\"target\":\"127.0.0.1:3000\",\"state\":\"up\"}]"`
	domain.Parts

	patch domain.Patch
}

// TransformSchema implements [huma.SchemaTransformer]: a change may leave out
// everything.
func (ChangeMappingBody) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Required = nil
	// A public mapping shows 0, and may be sent back as it was read.
	none := 0.0
	s.Properties["local_port"].Minimum = &none
	s.PrecomputeMessages()
	return s
}

// TransformSchema implements [huma.SchemaTransformer]: a share is redeemed by a client
// that listens.
func (RedeemBody) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	for _, name := range []string{"public_port", "public_host", "public_path"} {
		delete(s.Properties, name)
	}
	s.Required = append(s.Required, "local_port")
	s.PrecomputeMessages()
	return s
}

// UnmarshalJSON implements [json.Unmarshaler].
func (b *ChangeMappingBody) UnmarshalJSON(text []byte) error {
	var sent struct {
		MappingID *int64 `json:"mapping_id"`
	}
	err := errors.Join(json.Unmarshal(text, &sent), json.Unmarshal(text, &b.patch))
	b.MappingID = sent.MappingID
	return err
}

// MarshalJSON implements [json.Marshaler]: it tells requests with one key apart.
func (b ChangeMappingBody) MarshalJSON() ([]byte, error) { return json.Marshal(b.patch) }
