package checkup_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tunnox-net/tunnox/checkup"
)

func TestAReportSaysWhatToDo(t *testing.T) {
	var r checkup.Report
	if r.Well("disk", "%d GB", 5); r.Err() != nil {
		t.Error("a report without failures has failed")
	}
	r.Note("clock of \x1b[2Jx", "set it\nor not", "8s\nahead")
	r.Fail("port", "end it", "in use")
	if err := r.Err(); err == nil || err.Error() != "1 check has failed" {
		t.Errorf("one failure: %v", err)
	}
	var out strings.Builder
	if err := r.Print(&out, nil); err != nil {
		t.Fatal(err)
	}
	want := "disk            ok      5 GB\n" +
		"clock of ?[2Jx  note    8s ahead\n" +
		"                do:     set it\n" +
		"                do:     or not\n" +
		"port            failed  in use\n" +
		"                do:     end it\n"
	if got := out.String(); got != want {
		t.Errorf("printed:\n%s\nwant:\n%s", got, want)
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("a foreign name moves the cursor")
	}
	out.Reset()
	if err := r.JSON(&out); err != nil {
		t.Fatal(err)
	}
	var read struct {
		OK     bool
		Checks []checkup.Finding
	}
	if err := json.Unmarshal([]byte(out.String()), &read); err != nil || read.OK || len(read.Checks) != 3 || read.Checks[2].State != checkup.Failed {
		t.Errorf("as JSON: %+v, %v", read, err)
	}
	r.Soften(2)
	if r.Err() != nil || r.Findings[2].State != checkup.Note {
		t.Errorf("softened: %+v", r.Findings)
	}
}
