package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"time"

	"github.com/tunnox-net/tunnox/domain"
)

// Local is the State service's commands for the forwarder of the same process,
// which needs no certificate to talk to itself.
type Local struct {
	node  string
	state *state
}

// NewLocal gives the commands of agents at the node.
func NewLocal(node string, log Log, head func(context.Context) (domain.Position, error), executor Executor,
	public func(context.Context) func(*domain.Mapping) string, proofs Proofs) *Local {
	server := &Server{sealing: newSealing(), config: ServerConfig{Log: log, Head: head, Executor: executor, Public: public, Proofs: proofs, Now: time.Now}, folds: newFolds(log)}
	return &Local{node: node, state: &state{Server: server}}
}

// Execute has a client's command decided and executed, as [Client.Execute] does.
func (l *Local) Execute(ctx context.Context, command domain.ClientCommand) (domain.ClientResult, error) {
	command.Key = cmp.Or(command.Key, rand.Text())
	return l.state.execute(ctx, l.node, command)
}

// IngressView gives what comes in at an ingress, folded from the log as it is now.
func (l *Local) IngressView(ctx context.Context, what domain.Ingress) (domain.IngressView, error) {
	head, err := l.state.config.Head(ctx)
	if err != nil {
		return domain.IngressView{}, err
	}
	return l.state.folds.ingress(ctx, what, head)
}
