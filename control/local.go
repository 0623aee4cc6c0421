package control

import (
	"context"
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
func NewLocal(node string, log Log, head func(context.Context) (domain.Position, error), executor Executor) *Local {
	server := &Server{config: ServerConfig{Log: log, Head: head, Executor: executor, Now: time.Now}, folds: newFolds(log)}
	return &Local{node: node, state: &state{Server: server}}
}

// Execute has an agent's command decided and executed, as [Client.Execute] does.
func (l *Local) Execute(ctx context.Context, command Command) (Result, error) {
	answer, err := l.state.execute(ctx, l.node, requestOf(command))
	if err != nil {
		return Result{}, err
	}
	return resultOf(answer), nil
}
