package job

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
	"google.golang.org/protobuf/proto"
)

// A job of which little is in memory looks as it did before.
func TestThin(t *testing.T) {
	table := open(t)
	spec := sh("echo out; exit 3")
	spec.Env = map[string]string{"A": "b"}
	job, _ := run(t, table, spec)
	j := find(t, table, job.Id)
	whole, short := j.Snapshot(), j.Brief()
	j.makeThin()
	if got := j.Snapshot(); !proto.Equal(got, whole) {
		t.Errorf("got %v\nwant %v", got, whole)
	}
	if got := j.Brief(); !proto.Equal(got, short) || got.Limits != nil {
		t.Errorf("got %v\nwant %v", got, short)
	}
	if got := read(t, j); got != "out\n" {
		t.Errorf("its output is %q", got)
	}
	if got := wait(t, j); !proto.Equal(got, whole) {
		t.Errorf("Wait returned %v", got)
	}
	if got := j.status(); got != whole.Status {
		t.Errorf("status %v", got)
	}
	if err := j.removeOutput(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Output(output.ReadOptions{}); err != ErrOutputRemoved {
		t.Errorf("got %v", err)
	}
	record, err := readRecord(j.dir)
	if err != nil || !record.Job.OutputRemoved || len(record.Job.Limits) == 0 {
		t.Errorf("the record is %v, %v", record, err)
	}
	if !j.Brief().OutputRemoved || !j.Snapshot().OutputRemoved {
		t.Error("it does not say that its output was removed")
	}
	// What is left without its record is what lists show.
	if err := os.Remove(filepath.Join(j.dir, "record")); err != nil {
		t.Fatal(err)
	}
	if got := j.Snapshot(); got.Id != job.Id || got.GetExitCode() != 3 || !got.OutputRemoved {
		t.Errorf("got %v", got)
	}
}

// Many old jobs come back in the order in which they were made.
func TestOldJobsComeBack(t *testing.T) {
	table := open(t)
	run(t, table, sh("echo out"))
	last := list(t, table)[0]
	record, err := readRecord(table.jobDir(last.Id))
	if err != nil {
		t.Fatal(err)
	}
	const jobs = 2 * keptRecords
	for i := range jobs {
		record.Job.Id = fmt.Sprintf("%03x%09d", i*2654435761>>8&0xfff, i)
		record.Job.CreatedAt.Nanos = int32(i)
		if err := os.Mkdir(table.jobDir(record.Job.Id), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeRecord(table.jobDir(record.Job.Id), record); err != nil {
			t.Fatal(err)
		}
	}
	table = reopen(t, table)
	got := list(t, table)
	if len(got) != jobs+1 {
		t.Fatalf("%d jobs", len(got))
	}
	if !slices.IsSortedFunc(got[1:], func(a, b *telev1.Job) int { return int(b.CreatedAt.Nanos - a.CreatedAt.Nanos) }) {
		t.Error("they are in another order")
	}
	if record := find(t, table, got[1].Id).record; record != nil {
		t.Error("an old job's record is in memory")
	}
}

func TestWithout(t *testing.T) {
	const n = 7
	for at := range n {
		var jobs, want []*Job
		for i := range n {
			jobs = append(jobs, &Job{uid: uint32(i)})
		}
		want = slices.Delete(slices.Clone(jobs), at, at+1)
		if got := without(jobs, at); !slices.Equal(got, want) {
			t.Errorf("without %d: %v", at, got)
		}
	}
}

// Output that is being removed just now is not there in part, nor is it none; a job without any has none.
func TestOutputIsBeingRemoved(t *testing.T) {
	table := open(t)
	silent, _ := run(t, table, sh("true"))
	writer, _ := run(t, table, sh("echo text"))
	for _, thin := range []bool{false, true} {
		table = reopen(t, table)
		j, none := find(t, table, writer.Id), find(t, table, silent.Id)
		if thin {
			j.makeThin()
			none.makeThin()
		}
		if got := read(t, none); got != "" {
			t.Errorf("thin %v: got %q", thin, got)
		}
		rename := func(from, to string) {
			for _, name := range []string{"index", "stdout", "stderr"} {
				if err := os.Rename(filepath.Join(j.dir, name+from), filepath.Join(j.dir, name+to)); err != nil {
					t.Fatal(err)
				}
			}
		}
		rename("", ".away")
		if _, err := j.Output(output.ReadOptions{}); err != ErrOutputRemoved {
			t.Errorf("thin %v: got %v", thin, err)
		}
		rename(".away", "")
		if got := read(t, j); got != "text\n" {
			t.Errorf("thin %v: got %q", thin, got)
		}
	}
}
