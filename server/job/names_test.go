package job

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestCheckNames(t *testing.T) {
	name := func(text string) *telev1.JobSpec { return &telev1.JobSpec{Name: text} }
	label := func(key, value string) *telev1.JobSpec {
		return &telev1.JobSpec{Labels: map[string]string{key: value}}
	}
	host := func(text string) *telev1.JobSpec { return &telev1.JobSpec{Hostname: text} }
	for _, spec := range []*telev1.JobSpec{name("a"), name("A1._-"), label("a", ""), label("example.com/team", "red-1.0_x"),
		label("1", "2"), host("a"), host("1.example-x.org")} {
		if err := checkNames(spec); err != nil {
			t.Errorf("%v: %v", spec, err)
		}
	}
	for _, spec := range []*telev1.JobSpec{name("1a"), name("-a"), name("a b"), name("a/b"), name("é"), name("a\n"),
		label("", "a"), label("a", "b/c"), label("-a", "b"), label("a.", "b"), label("a", "b-"), label("a=b", "c"),
		label("a", "\x1b[1m"), host("-a"), host("a-"), host("a..b"), host("."), host("a_b"), host("a b")} {
		var request *BadRequest
		if err := checkNames(spec); !errors.As(err, &request) {
			t.Errorf("%v: %v", spec, err)
		}
	}
}

// Of an owner's running jobs one has a name at a time, and it finds the newest, also of old jobs and under
// the next server.
func TestNames(t *testing.T) {
	table := open(t)
	named := func(name, script string) *telev1.JobSpec {
		spec := sh(script)
		spec.Name, spec.Labels = name, map[string]string{"team": "red"}
		return spec
	}
	expect := func(name string, visible func(string) bool, want *Job) {
		t.Helper()
		if j, err := table.Get(name, visible); err != nil || j.id != want.id {
			t.Errorf("%s is %v, %v, want %s", name, j, err, want.id)
		}
	}
	first := begin(t, table, named("build.1", "sleep 1000"))
	expect("build.1", all, first)
	_, err := table.Start(t.Context(), "me", "", named("build.1", "true"))
	if taken := new(NameError); !errors.As(err, &taken) || taken.ID != first.id {
		t.Errorf("a second one: %v", err)
	}
	other, err := table.Start(t.Context(), "you", "", named("build.1", "sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	mine := func(owner string) bool { return owner == "me" }
	expect("build.1", all, other)
	expect("build.1", mine, first)
	table = reopen(t, table)
	first, other = find(t, table, first.id), find(t, table, other.id)
	if _, err := table.Start(t.Context(), "me", "", named("build.1", "true")); err == nil {
		t.Error("the next server takes a second one")
	}
	if err := first.Stop(unix.SIGKILL, 0, "me"); err != nil {
		t.Fatal(err)
	}
	wait(t, first)
	expect("build.1", mine, first)
	// A start that fails has no name.
	failing := named("build.1", "")
	failing.Command = []string{"no-such-program"}
	if _, err := table.Start(t.Context(), "me", "", failing); err == nil {
		t.Error("a program that is not there was started")
	}
	second := begin(t, table, named("build.1", "true"))
	wait(t, second)
	expect("build.1", all, second)
	second.makeThin()
	if brief := second.Brief(); brief.Spec.Name != "build.1" || brief.Spec.Labels["team"] != "red" {
		t.Errorf("brief: %v", brief)
	}
	table = reopen(t, table)
	expect("build.1", all, second)
	if err := table.Remove(find(t, table, second.id)); err != nil {
		t.Fatal(err)
	}
	expect("build.1", mine, first)
	expect("build.1", all, other)
	if _, err := table.Get("build.2", all); !errors.Is(err, ErrNotFound) {
		t.Errorf("build.2: %v", err)
	}
}

// No name can stand in for the id of another job, nor for the beginning of one.
func TestIDsComeFirst(t *testing.T) {
	table := &Table{jobs: map[string]*Job{}, index: newIndex(), keys: map[key]*Job{}}
	enter := func(id, name string, created int64) *Job {
		j := newJob(table, "", &recordv1.Record{Job: &telev1.Job{Id: id, User: "me",
			CreatedAt: timestamppb.New(time.Unix(0, created)), Spec: &telev1.JobSpec{Name: name}}})
		table.enterLocked(j)
		return j
	}
	victim := enter("abcdefgh2345", "", 1)
	enter("zzzzzzzzzzzz", "abcdefgh2345", 3)
	enter("zzzzzzzzzzzy", "abcdef", 4)
	enter("zyzzzzzzzzzy", "a", 5)
	late := enter("yyyyyyyyyyyy", "zz", 9)
	enter("yxyyyyyyyyyy", "zz", 8) // it crossed with the one before
	for text, want := range map[string]*Job{"abcdefgh2345": victim, "abcdef": victim, "a": victim, "ab": victim,
		"zz": late} {
		if got, err := table.Get(text, all); err != nil || got != want {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]error{"zzz": ErrAmbiguous, "z": ErrAmbiguous, "": ErrNotFound, "b": ErrNotFound,
		"abx": ErrNotFound, "abcdefgh23456": ErrNotFound, "\xff": ErrNotFound, "A": ErrNotFound} {
		if got, err := table.Get(text, all); !errors.Is(err, want) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, j := range table.jobs {
		table.forget(j)
	}
	if len(table.index.starts)+len(table.index.names) != 0 {
		t.Errorf("left: %v", table.index)
	}
}

// BenchmarkGet is for 100,000 jobs: no way to find one goes through all.
func BenchmarkGet(b *testing.B) {
	table := &Table{jobs: map[string]*Job{}, index: newIndex(), keys: map[key]*Job{}}
	var ids []string
	for i := range 100_000 {
		id := newID()
		ids = append(ids, id)
		table.enterLocked(newJob(table, "", &recordv1.Record{Job: &telev1.Job{Id: id, User: "me",
			CreatedAt: timestamppb.New(time.Unix(0, int64(i))), Spec: &telev1.JobSpec{Name: fmt.Sprint("job-", i)}}}))
	}
	for name, text := range map[string]func() string{
		"id":      func() string { return ids[rand.N(len(ids))] },
		"prefix":  func() string { return ids[rand.N(len(ids))][:8] },
		"name":    func() string { return fmt.Sprint("job-", rand.N(len(ids))) },
		"nothing": func() string { return strings.Repeat("a", 9) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := table.Get(text(), all); (err == nil) != (name != "nothing") {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever a request calls its job, what is found wrong with it can be shown, and what is not is safe to show.
func FuzzNames(f *testing.F) {
	f.Add("web.1", "team", "red", "web.example", "USR1", "INT", int64(60))
	f.Add("\x1b[1m", "a=b", "\xff", "-a", "0", "65", int64(-1))
	f.Fuzz(func(t *testing.T, name, key, value, hostname, stop, warn string, before int64) {
		spec := &telev1.JobSpec{Name: name, Labels: map[string]string{key: value}, Hostname: hostname, StopSignal: stop,
			WarnSignal: warn, WarnBefore: &durationpb.Duration{Seconds: before}, Timeout: &durationpb.Duration{Seconds: 1000}}
		err := checkNames(spec)
		unsafe := func(r rune) bool { return r <= ' ' || r > '~' || r == '=' }
		if err == nil && strings.ContainsFunc(name+key+value+hostname, unsafe) {
			t.Errorf("found good: %q", spec)
		}
		for _, err := range []error{err, checkSignals(spec)} {
			request := new(BadRequest)
			if err != nil && (!errors.As(err, &request) || len(err.Error()) > 1000 || !utf8.ValidString(err.Error())) {
				t.Errorf("%.200q", err)
			}
		}
	})
}
