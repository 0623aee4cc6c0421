package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/spf13/cobra"
)

// auditCommand has the commands for auditors: signed checkpoints of the log, and proofs
// that lead to them.
func auditCommand(api *apiFlags) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Get signed checkpoints of the log, and proofs",
		Long: `Get what proves the log: checkpoints, signed, and proofs that lead to them. Keep
checkpoints where nobody who runs the server can change them; "tunnoxd audit verify"
compares a whole log, or an export of it, with them. What was done, when and by whom
is shown by "tunnox events".`}
	cmd.AddCommand(checkpointCommand(api),
		proofCommand(api, "inclusion POSITION", "Prove the place of one event", "position", "size", "events in the tree (default: those of the last checkpoint)"),
		proofCommand(api, "consistency FROM", "Prove that the first FROM events are unchanged", "from", "to", "events in the newer tree (default: those of the last checkpoint)"))
	return cmd
}

func checkpointCommand(api *apiFlags) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "checkpoint", Short: "Sign the present log", Args: cobra.NoArgs}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, _ []string) error {
		b, err := c.call(ctx, http.MethodGet, "/api/v1/audit/checkpoint", nil)
		if err != nil {
			return err
		}
		if file != "" {
			return writeNew(file, append(b, '\n'))
		}
		if api.json {
			return printJSON(out, b)
		}
		o, err := parseObject(b)
		if err != nil {
			return err
		}
		note, ok := o["checkpoint"].(string)
		if !ok {
			return errors.New("read the API's answer: it has no checkpoint")
		}
		_, err = io.WriteString(out, eachLine(note)) // the signed lines; of a server that is ours they are unchanged
		return err
	})
	cmd.Flags().StringVar(&file, "out", "", "write the API's answer to this new `file`, for tunnoxd audit verify --checkpoint")
	return cmd
}

// writeNew writes a file that must not exist, so that nothing kept is lost.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

// proofCommand asks for one kind of proof about its argument. more is the name of a
// second number that this kind has.
func proofCommand(api *apiFlags, use, short, of, more, about string) *cobra.Command {
	var size int64
	cmd := &cobra.Command{Use: use, Short: short, Args: oneID}
	cmd.RunE = api.do(func(ctx context.Context, c *restClient, out io.Writer, args []string) error {
		query := url.Values{of: {args[0]}}
		if size != 0 {
			query.Set(more, strconv.FormatInt(size, 10))
		}
		return api.ask(ctx, c, out, http.MethodGet, "/api/v1/audit/proof/"+cmd.Name()+"?"+query.Encode(), nil)
	})
	cmd.Flags().Int64Var(&size, more, 0, "`number` of "+about)
	return cmd
}
