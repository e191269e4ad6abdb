package job

import (
	"errors"
	"slices"
	"testing"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// Each filter lets through what it should, of running, ended and old jobs, also from page to page.
func TestFilter(t *testing.T) {
	table := open(t)
	make := func(owner, name string, labels map[string]string, script string) string {
		spec := sh(script)
		spec.Name, spec.Labels = name, labels
		j, err := table.Start(t.Context(), owner, "", spec)
		if err != nil {
			t.Fatal(err)
		}
		if script != "sleep 1000" {
			wait(t, j)
		}
		return j.id
	}
	red, blue := map[string]string{"team": "red", "tier": ""}, map[string]string{"team": "blue"}
	one := make("me", "web", red, "exit 0")
	two := make("me", "web", blue, "exit 3")
	three := make("you", "", red, "sleep 1000")
	four := make("me", "", nil, "sleep 1000")
	old := find(t, table, one)
	old.makeThin()
	for _, test := range []struct {
		name   string
		filter Filter
		want   []string // newest first
	}{
		{"all", Filter{}, []string{four, three, two, one}},
		{"name", Filter{Name: "web"}, []string{two, one}},
		{"owner", Filter{Owner: "you"}, []string{three}},
		{"label", Filter{Labels: []string{"team=red"}}, []string{three, one}},
		{"any value", Filter{Labels: []string{"team"}}, []string{three, two, one}},
		{"empty value", Filter{Labels: []string{"tier="}}, []string{three, one}},
		{"labels", Filter{Labels: []string{"team=red", "tier=1"}}, nil},
		{"command", Filter{Command: "-c exit"}, []string{two, one}},
		{"status", Filter{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_FAILED}}, []string{two}},
		{"together", Filter{Labels: []string{"team"}, Owner: "me", Command: "exit 0"}, []string{one}},
		{"age", Filter{Since: time.Hour}, []string{four, three, two, one}},
		{"less than no age", Filter{Since: 1}, nil},
	} {
		var got []string
		for page := (Page{Filter: test.filter, Brief: true, Size: 1}); ; {
			jobs, next, err := table.List(all, page)
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range jobs {
				got = append(got, j.Id)
			}
			if page.After = next; next == "" {
				break
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
	// What was made before a moment, and what comes before it, is not looked at.
	table.mu.Lock()
	f := (&Filter{Since: time.Minute}).prepare(time.Unix(0, table.order[2].created).Add(time.Minute))
	var tooOld []bool
	for _, j := range table.order {
		tooOld = append(tooOld, f.tooOld(j))
	}
	table.mu.Unlock()
	if !slices.Equal(tooOld, []bool{true, true, false, false}) {
		t.Errorf("too old: %v", tooOld)
	}
}

func TestFilterBounds(t *testing.T) {
	for field, f := range map[string]Filter{"labels": {Labels: make([]string, maxLabels+1)}, "since": {Since: -1},
		"statuses": {Statuses: make([]telev1.JobStatus, 100)}} {
		var request *BadRequest
		if err := f.Check(); !errors.As(err, &request) || request.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := (&Filter{Labels: make([]string, maxLabels)}).Check(); err != nil {
		t.Error(err)
	}
}
