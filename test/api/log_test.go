package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/tunnox-net/tunnox/test/apiclient"
	"github.com/tunnox-net/tunnox/test/programs"
)

// log is about the events: searched, followed, proven and reverted.
func (s *story) log() {
	t, c := s.T, s.admin
	made := call(c.CreateUserWithResponse(s.ctx, nil, apiclient.CreateUserBody{Username: "logged", Email: "logged@example.org"})).want(t, 201).JSON201
	subject := fmt.Sprintf("user-%d", made.UserId)
	changed := call(c.ChangeUserWithResponse(s.ctx, made.UserId, nil, apiclient.ChangeUserBody{Username: ptr("renamed")})).want(t, 200)

	// The whole log, in pages, as lines and as a stream that ends.
	var all []apiclient.Event
	for after := int64(0); ; {
		page := call(c.ListEventsWithResponse(s.ctx, &apiclient.ListEventsParams{After: &after, Limit: ptr(int64(20))})).want(t, 200).JSON200
		all = append(all, page.Items...)
		if page.Next.IsNull() {
			break
		}
		after = page.Next.MustGet()
	}
	for i, e := range all {
		if e.Position != int64(i+1) {
			t.Fatalf("event %d has position %d", i, e.Position)
		}
	}
	ends := all[len(all)-1].Recorded.Add(time.Microsecond)
	// Lines are for readers that read them one by one. The generated client's plain
	// method does this; the other method would read them all as one JSON value.
	lines, err := c.Audit(s.ctx, &apiclient.AuditParams{Format: ptr(apiclient.Ndjson), To: &ends})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lines.Body.Close() }()
	is(t, "the number of lines to come", lines.Header.Get("X-Total-Count"), fmt.Sprint(len(all)))
	is(t, "the lines", decoded[apiclient.Event](s, lines.Body, ""), all)
	stream := call(c.StreamEventsWithResponse(s.ctx, &apiclient.StreamEventsParams{After: ptr(int64(0)), To: &ends})).want(t, 200)
	is(t, "the stream", decoded[apiclient.Event](s, bytes.NewReader(stream.Body), "data: "), all)
	found := call(c.AuditWithResponse(s.ctx, &apiclient.AuditParams{Subject: &subject, Order: ptr(apiclient.Newest)})).want(t, 200).JSON200.Items
	is(t, "the history by search", namesOf(found), []string{"user_changed", "user_created"})
	byActor := call(c.AuditWithResponse(s.ctx, &apiclient.AuditParams{Actor: ptr("key:nobody")})).want(t, 200).JSON200.Items
	is(t, "what nobody did", len(byActor), 0)
	renames := call(c.AuditWithResponse(s.ctx, &apiclient.AuditParams{Type: &[]string{"user_changed", "user_deleted"}, From: &found[0].Recorded})).want(t, 200).JSON200.Items
	is(t, "what changed since", namesOf(renames), []string{"user_changed"})

	s.proofs(found[0].Position)

	// A change is reverted, once.
	position := *changed.Headers200.XPosition
	reverted := call(c.RevertEventWithResponse(s.ctx, position, nil)).want(t, 200)
	is(t, "the command that did it", reverted.JSON200.Command, "change_user")
	is(t, "its cause", *reverted.JSON200.Events[0].Meta.Cause, fmt.Sprint("event:", position))
	is(t, "the name as it was", call(c.GetUserWithResponse(s.ctx, made.UserId, nil)).want(t, 200).JSON200.Username, "logged")
	s.problem(call(c.RevertEventWithResponse(s.ctx, position, nil)).want(t, 409).ApplicationproblemJSON409, 409, "moved_on", "")

	s.drain()
}

// proofs checks the API's proofs with a Merkle tree of other authors.
func (s *story) proofs(position int64) {
	t, c := s.T, s.admin
	signed := call(c.GetCheckpointWithResponse(s.ctx)).want(t, 200).JSON200
	if signed.Size < position || !strings.Contains(signed.Checkpoint, fmt.Sprintf("\n%d\n", signed.Size)) {
		t.Errorf("checkpoint %+v", signed)
	}
	in := call(c.ProveInclusionWithResponse(s.ctx, &apiclient.ProveInclusionParams{Position: position, Size: &signed.Size})).want(t, 200).JSON200
	root := tlog.Hash(signed.RootHash)
	if err := tlog.CheckRecord(hashes(in.Hashes), signed.Size, root, position-1, tlog.Hash(in.LeafHash)); err != nil {
		t.Errorf("the proof of record %d: %v", position, err)
	}
	grown := call(c.ProveConsistencyWithResponse(s.ctx, &apiclient.ProveConsistencyParams{From: position, To: &signed.Size})).want(t, 200).JSON200
	if err := tlog.CheckTree(hashes(grown.Hashes), signed.Size, root, position, tlog.Hash(grown.FromRootHash)); err != nil {
		t.Errorf("the proof that the log only grew: %v", err)
	}
	is(t, "the root of both proofs", grown.ToRootHash, in.RootHash)
}

// drain moves the agents of a node away. Afterwards the node has no agents.
func (s *story) drain() {
	nodes := call(s.admin.ListNodesWithResponse(s.ctx)).want(s.T, 200).JSON200.Items
	i := slices.IndexFunc(nodes, func(n apiclient.Node) bool { return slices.Contains(n.Roles, "forwarder") })
	if i < 0 {
		s.Fatalf("no forwarder among %+v", nodes)
	}
	is(s.T, "what was asked", call(s.admin.DrainNodeWithResponse(s.ctx, nodes[i].NodeId, nil)).want(s.T, 200).JSON200.State, apiclient.DrainedStateDraining)
	asked := call(s.admin.AuditWithResponse(s.ctx, &apiclient.AuditParams{Subject: &nodes[i].NodeId})).want(s.T, 200).JSON200.Items
	asks := slices.DeleteFunc(namesOf(asked), func(name string) bool { return name == "node_certified" })
	is(s.T, "what the log has of it", asks, []string{"node_drain_requested"})
	gone := call(s.admin.RevokeNodeWithResponse(s.ctx, "node-399", nil)).want(s.T, 200).JSON200
	is(s.T, "what became of a node", gone.State, apiclient.RevokedStateRevoked)
	programs.Eventually(s.T, 10*time.Second, func() error {
		if node := call(s.admin.GetNodeWithResponse(s.ctx, nodes[i].NodeId)).want(s.T, 200).JSON200; node.State != apiclient.NodeStateDraining {
			return fmt.Errorf("the node is %s", node.State)
		}
		return nil
	})
}

func hashes(b [][]byte) []tlog.Hash {
	var all []tlog.Hash
	for _, h := range b {
		all = append(all, tlog.Hash(h))
	}
	return all
}

// decoded reads the lines that begin with a prefix.
func decoded[T any](s *story, text io.Reader, prefix string) []T {
	var all []T
	for lines := bufio.NewScanner(text); lines.Scan(); {
		line, ok := bytes.CutPrefix(lines.Bytes(), []byte(prefix))
		if !ok {
			continue
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			s.Fatalf("line %q: %v", line, err)
		}
		all = append(all, v)
	}
	return all
}
