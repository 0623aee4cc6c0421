package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tunnox-net/tunnox/directory"
)

// nodeNumber gives the number in a node id, and 0 if the text is not a node id.
func nodeNumber(id string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(id, "node-"))
	if err != nil || directory.NodeID(n) != id {
		return 0
	}
	return n
}

// Announce implements directory.Nodes.
func (d *Directory) Announce(ctx context.Context, owner string, n directory.Node) error {
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("directory: encode node: %w", err)
	}
	done, err := announceScript.Run(ctx, d.client, []string{nodeIDs, nodeRecords},
		d.clock(), directory.TTL.Milliseconds(), owner, nodeNumber(n.ID), text).Int()
	switch {
	case err != nil:
		return fmt.Errorf("directory: announce %s: %w", n.ID, err)
	case done == 0:
		return directory.ErrNotLeased
	}
	return nil
}

// Withdraw implements directory.Nodes.
func (d *Directory) Withdraw(ctx context.Context, owner, id string) error {
	err := announceScript.Run(ctx, d.client, []string{nodeIDs, nodeRecords},
		d.clock(), directory.TTL.Milliseconds(), owner, nodeNumber(id), "").Err()
	if err != nil {
		return fmt.Errorf("directory: withdraw %s: %w", id, err)
	}
	return nil
}

// Expel implements directory.Directory.
func (d *Directory) Expel(ctx context.Context, node string) error {
	err := expelScript.Run(ctx, d.client, []string{nodeIDs, nodeOwners, nodeRecords, nodeLeases}, nodeNumber(node), node).Err()
	if err != nil {
		return fmt.Errorf("directory: expel %s: %w", node, err)
	}
	return nil
}

// Nodes implements directory.Nodes.
func (d *Directory) Nodes(ctx context.Context, ids ...string) ([]directory.Node, error) {
	pipe := d.client.Pipeline()
	clock := pipe.Time(ctx)
	var texts func() []any
	if len(ids) == 0 {
		all := pipe.HVals(ctx, nodeRecords)
		texts = func() (found []any) {
			for _, text := range all.Val() {
				found = append(found, text)
			}
			return found
		}
	} else {
		fields := make([]string, len(ids))
		for i, id := range ids {
			fields[i] = strconv.Itoa(nodeNumber(id))
		}
		texts = pipe.HMGet(ctx, nodeRecords, fields...).Val
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("directory: read nodes: %w", err)
	}
	now := clock.Val()
	if d.now != nil {
		now = d.now()
	}
	nodes := []directory.Node{}
	for _, value := range texts() {
		text, ok := value.(string)
		if !ok {
			continue // there is no such node
		}
		n, expires, err := node(text)
		if err != nil {
			return nil, fmt.Errorf("directory: read nodes: %w", err)
		}
		if expires.After(now) {
			nodes = append(nodes, n)
		}
	}
	directory.SortNodes(nodes)
	return nodes, nil
}

// Survey implements directory.Nodes. The nodes in an answer may be newer than its mark;
// then the next answer has them again.
func (d *Directory) Survey(ctx context.Context, mark string) (nodes []directory.Node, now string, err error) {
	now, err = markScript.Run(ctx, d.client, []string{nodeRecords, nodeMark}, d.clock(), markAge.Milliseconds()).Text()
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("directory: survey nodes: %w", err)
	case now == mark:
		return nil, mark, nil
	}
	nodes, err = d.Nodes(ctx)
	return nodes, now, err
}

// node reads a record: the time at which it expires in milliseconds, a space, JSON.
func node(text string) (n directory.Node, expires time.Time, err error) {
	end, body, _ := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(end, 10, 64)
	if err != nil {
		return n, expires, err
	}
	expires = time.UnixMilli(ms).UTC()
	n.Seen = expires.Add(-directory.TTL)
	return n, expires, json.Unmarshal([]byte(body), &n)
}
