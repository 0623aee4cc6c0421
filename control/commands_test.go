package control

import (
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/domain"
)

// TestCommands: an agent has connections led to its own client and to those that let it,
// and the agent of a client with none has nothing but the list of its mappings.
func TestCommands(t *testing.T) {
	p := newPlane(t)
	user := p.user(domain.Limits{})
	laptop, server := p.client(user), p.client(user)
	set := func(client int64, c domain.Commands) { p.submit(domain.ChangeClient{ID: client, Commands: &c}) }
	set(laptop, domain.CommandsOwn)
	client := p.dial([]string{p.serve("").address})
	refused := func(name string, code domain.Code, c domain.ClientCommand) {
		t.Helper()
		if _, err := client.Execute(t.Context(), c); domain.CodeOf(err) != code {
			t.Errorf("%s: %v, want %q", name, err, code)
		}
	}
	toServer := func(port int) domain.ClientCommand {
		return domain.ClientCommand{ClientID: laptop, Create: create(laptop, server, port)}
	}

	set(server, domain.CommandsOwn)
	refused("to a client with own", domain.CodeCommandsRefused, toServer(8000))
	further := create(laptop, laptop, 8000)
	further.Targets = []domain.Target{{ClientID: laptop, Target: "127.0.0.1:80"}, {ClientID: server, Target: "127.0.0.1:80"}}
	further.Service = domain.Service{}
	refused("to a client with own, as a further target", domain.CodeCommandsRefused, domain.ClientCommand{ClientID: laptop, Create: further})
	refused("to itself", "", domain.ClientCommand{ClientID: laptop, Create: create(laptop, laptop, 8001)})
	set(server, domain.CommandsAll)
	refused("to a client with all", "", toServer(8002))
	set(server, domain.CommandsNone)
	refused("to a client with none", domain.CodeCommandsRefused, toServer(8003))

	made, err := client.Execute(t.Context(), domain.ClientCommand{ClientID: laptop, List: &domain.MappingPage{}})
	must(t, err)
	id := made.Mappings[0].State.ID
	set(laptop, domain.CommandsNone)
	sharing := domain.ClientCommand{ClientID: laptop, Share: &domain.Sharing{Random: strings.Repeat("A", domain.ShareCodeLength),
		Share: domain.CreateShare{Protocol: domain.ProtocolTCP, Service: domain.Service{TargetHost: "127.0.0.1", TargetPort: 1}, MaxUses: 1}}}
	for name, c := range map[string]domain.ClientCommand{
		"create": {ClientID: laptop, Create: create(laptop, laptop, 8004)},
		"delete": {ClientID: laptop, Delete: &domain.DeleteMapping{ID: id}},
		"share":  sharing,
		"revoke": {ClientID: laptop, Revoke: &domain.RevokeShare{ID: 1}},
		"redeem": {ClientID: laptop, Redeem: &domain.Redemption{Code: domain.ShareCode(1, strings.Repeat("A", domain.ShareCodeLength))}},
		"names":  {ClientID: laptop, Clients: &domain.ClientPage{}},
	} {
		refused("the agent of a client with none: "+name, domain.CodeCommandsRefused, c)
	}
	refused("the agent of a client with none: its mappings", "", domain.ClientCommand{ClientID: laptop, List: &domain.MappingPage{}})
}
