package httpapi_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestEveryPartIsInTheDocument: what the domain has of a mapping is in every body of
// the API that makes, changes or shows one, and no answer leaves out what was not
// optional.
func TestEveryPartIsInTheDocument(t *testing.T) {
	text, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for schema, parts := range map[string][]any{
		"CreateMappingBody": {domain.Origin{}, domain.Service{}, domain.Options{}},
		"ChangeMappingBody": {domain.Parts{}},
		"Mapping":           {domain.Origin{}, domain.Service{}, domain.Options{}},
		"CreateShareBody":   {domain.Service{}, domain.Options{}},
		"Share":             {domain.Service{}, domain.Options{}},
		"NewShare":          {domain.Service{}, domain.Options{}},
		"RedeemBody":        {domain.Origin{}},
	} {
		body := doc.Components.Schemas[schema]
		answer := slices.Contains([]string{"Mapping", "Share", "NewShare"}, schema)
		for _, part := range parts {
			for _, field := range domain.Fields(part) {
				property := body.Properties[field.Name]
				if schema == "RedeemBody" && strings.HasPrefix(field.Name, "public_") {
					continue // whoever redeems a share listens
				}
				if strings.Contains(schema, "Share") && field.Name == "target_port_last" {
					if property != nil {
						t.Errorf("%s has %s, and is redeemed for one port", schema, field.Name)
					}
					continue
				}
				if property == nil {
					t.Errorf("%s has no %s", schema, field.Name)
				}
				required := slices.Contains(body.Required, field.Name)
				switch {
				case schema == "ChangeMappingBody" && required, !answer && field.Optional && required:
					t.Errorf("%s must have %s", schema, field.Name)
				case answer && (!field.Optional || field.Unset != "") && !required:
					t.Errorf("%s may be without %s", schema, field.Name)
				case answer && (property["maximum"] != nil || property["maxLength"] != nil):
					t.Errorf("%s bounds %s", schema, field.Name)
				}
			}
		}
	}
}

// TestOfferedProtocolsWork: what the document offers is what the domain carries.
func TestOfferedProtocolsWork(t *testing.T) {
	text, err := os.ReadFile("testdata/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, p := range domain.Protocols() {
		want = append(want, string(p))
	}
	seen := 0
	for name, schema := range doc.Components.Schemas {
		if p, ok := schema.Properties["protocol"]; ok {
			seen++
			if !slices.Equal(p.Enum, want) {
				t.Errorf("%s offers %v, the domain carries %v", name, p.Enum, want)
			}
		}
	}
	if seen < 6 {
		t.Errorf("%d bodies have a protocol", seen)
	}
}
