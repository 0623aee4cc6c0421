package httpapi_test

import "testing"

// A client's name is name, as everywhere else; client_name is its older name, for scripts.
func TestClientsHaveANameWithTwoNames(t *testing.T) {
	w := newWorld(t)
	user := w.user("ann")
	clients := path("clients")
	id := w.do("POST", clients, fields{"user_id": user, "name": "office", "description": "under the stairs"}).want(201).
		has(fields{"name": "office", "description": "under the stairs", "client_name": "office", "client_desc": "under the stairs"}).id("client_id")
	w.do("PUT", path("clients", id), fields{"client_name": "attic"}).want(200).has(fields{"name": "attic", "description": "under the stairs"})
	w.do("PUT", path("clients", id), fields{"name": "cellar", "client_name": "cellar"}).want(200).has(fields{"client_name": "cellar"})
	w.do("PUT", path("clients", id), fields{"description": ""}).want(200).has(fields{"client_desc": ""})

	w.do("PUT", path("clients", id), fields{"name": "a", "client_name": "b"}).fault(422, "invalid", "body.client_name")
	w.do("PUT", path("clients", id), fields{"description": "a", "client_desc": "b"}).fault(422, "invalid", "body.client_desc")
	w.do("POST", clients, fields{"user_id": user, "name": "a\nb", "description": "c\x00d"}).fault(422, "invalid", "body.name", "body.description")
	w.do("POST", clients, fields{"user_id": user}).fault(422, "invalid", "body.name")
	w.do("PUT", path("clients", id), fields{"client_name": "a\nb"}).fault(422, "invalid", "body.client_name")
}
