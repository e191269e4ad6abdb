package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// An account is a job's output as the server gives it after the end: all of it in the order of its
// arrival, and each stream.
type account struct {
	all   []byte
	parts [3][]byte
	marks []mark
}

// A mark says that so many bytes of one stream come next.
type mark struct {
	stream telev1.OutputStream
	size   int
}

// account reads a job's output once more, and compares it with the files.
func (l *life) account(id string) (account, error) {
	var a account
	_, err := l.world.witness.Output(context.Background(), id, client.OutputOptions{Follow: true,
		Chunk: func(r *telev1.StreamOutputResponse) error {
			a.all = append(a.all, r.Data...)
			a.parts[r.Stream] = append(a.parts[r.Stream], r.Data...)
			a.marks = append(a.marks, mark{r.Stream, len(r.Data)})
			return nil
		}}, nil, nil)
	if err != nil {
		return a, err
	}
	for stream, name := range map[telev1.OutputStream]string{1: "stdout", 2: "stderr"} {
		onDisk, err := os.ReadFile(filepath.Join(l.world.state, "jobs", id, name))
		if err != nil && !(errors.Is(err, os.ErrNotExist) && len(a.all) == 0) {
			return a, err
		}
		if !bytes.Equal(onDisk, a.parts[stream]) {
			return a, fmt.Errorf("the file %s has %d bytes, the server gives %d, or they differ", name, len(onDisk), len(a.parts[stream]))
		}
	}
	return a, nil
}

// judge checks all that must be true of a job that has ended, and of what its clients saw.
func (l *life) judge(job *telev1.Job) {
	l.judged = job
	w := l.world
	w.figures.add("ended: "+reasonName(job), 1)
	a, err := l.account(job.Id)
	if err != nil {
		l.wrong("read its output: %v", err)
		return
	}
	w.figures.add("bytes compared", int64(len(a.all)))
	l.judgeEvents(job)
	if job.StdoutBytes != uint64(len(a.parts[1])) || job.StderrBytes != uint64(len(a.parts[2])) {
		l.wrong("the record says %d and %d bytes, there are %d and %d", job.StdoutBytes, job.StderrBytes, len(a.parts[1]), len(a.parts[2]))
	}
	if l.judgeEnd(job) {
		l.judgeOutput(job, a)
		l.judgeFiles(job)
	}
	for _, f := range l.readers {
		l.judgeFollower(job, f, a)
	}
	for _, p := range l.runs {
		l.judgeProcess(job, p, a)
	}
}

// brief is a job for people: what the server says of its end.
func brief(job *telev1.Job) string {
	if job == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %v %v (%s), code %d, started %s, ended %s, %d and %d bytes", job.Id, job.Status, job.Reason, job.Message,
		job.GetExitCode(), job.StartedAt.AsTime().Format(time.StampMilli), job.EndedAt.AsTime().Format(time.StampMilli),
		job.StdoutBytes, job.StderrBytes)
}

func reasonName(job *telev1.Job) string { return job.Reason.String()[len("REASON_"):] }

// judgeEnd checks the verdict, and tells whether the job came to the end of its script.
func (l *life) judgeEnd(job *telev1.Job) bool {
	w := l.world
	if job.EndedAt.AsTime().Before(job.StartedAt.AsTime()) || job.StartedAt.AsTime().Before(job.CreatedAt.AsTime()) {
		l.wrong("times are not in order: %s", brief(job))
	}
	if job.Reason == telev1.Reason_REASON_LOST {
		w.mu.Lock()
		killed := w.initsKilled[job.Id]
		w.mu.Unlock()
		if !killed {
			l.wrong("lost, although nobody killed its init: %s", job.Message)
		}
		if job.ExitCode != nil || job.Status != telev1.JobStatus_JOB_STATUS_FAILED {
			l.wrong("lost, with an exit code or another status: %s", brief(job))
		}
		return false
	}
	if job.Reason == telev1.Reason_REASON_START_FAILED && job.Spec.GetRestart() != nil && initGone(job.Message) {
		w.figures.add("tries whose init was killed as they began", 1)
		return false
	}
	if l.unrecordedStop(job) {
		w.figures.add("stops of which the disk was too full to take note", 1)
	} else if job.Reason != l.plan.reason || job.ExitCode == nil || !slices.Contains(l.plan.codes, job.GetExitCode()) {
		l.wrong("ended as %v with code %d (%s); it should have been %v with one of %d", job.Reason, job.GetExitCode(),
			job.Message, l.plan.reason, l.plan.codes)
	}
	want := telev1.JobStatus_JOB_STATUS_FAILED
	switch {
	case job.Reason == telev1.Reason_REASON_STOPPED:
		want = telev1.JobStatus_JOB_STATUS_KILLED
	case job.Reason == telev1.Reason_REASON_EXITED && job.GetExitCode() == 0:
		want = telev1.JobStatus_JOB_STATUS_SUCCESS
	}
	if job.Status != want {
		l.wrong("has status %v, it should be %v", job.Status, want)
	}
	return true
}

// unrecordedStop: where the disk has no room for the record that says why a job is stopped, it is
// stopped all the same; when that server is killed before the end, the next one sees how the job ended,
// and not why.
func (l *life) unrecordedStop(job *telev1.Job) bool {
	asked := l.plan.reason != telev1.Reason_REASON_EXITED && l.plan.reason != telev1.Reason_REASON_SIGNALED
	plain := job.Reason == telev1.Reason_REASON_EXITED || job.Reason == telev1.Reason_REASON_SIGNALED
	return asked && plain && job.ExitCode != nil && slices.Contains(l.plan.codes, job.GetExitCode()) && l.world.wasFull(job)
}

func (l *life) judgeOutput(job *telev1.Job, a account) {
	for stream, want := range map[telev1.OutputStream][]byte{1: l.plan.stdout, 2: l.plan.stderr} {
		if want != nil && !bytes.Equal(a.parts[stream], want) {
			l.wrong("%s", difference(fmt.Sprint("stream ", stream), a.parts[stream], want))
		}
	}
	if l.plan.check != nil {
		if text := l.plan.check(a.parts[1], a.parts[2]); text != "" {
			l.wrong("output: %s", text)
		}
	}
}

// judgeFiles checks what is kept of a job that leaves a file. Whose init is killed meanwhile leaves none.
func (l *life) judgeFiles(job *telev1.Job) {
	w := l.world
	if l.plan.leaves == nil {
		return
	}
	w.mu.Lock()
	killed := w.initsKilled[job.Id]
	w.mu.Unlock()
	if job.Files.GetError() != "" && killed {
		w.figures.add("files lost with an init that was killed", 1)
		return
	}
	var stream bytes.Buffer
	err := w.witness.KeptFiles(context.Background(), job.Id, &stream)
	files := tar.NewReader(bytes.NewReader(stream.Bytes()))
	var left []byte
	if err == nil {
		if _, err = files.Next(); err == nil {
			left, err = io.ReadAll(files)
		}
	}
	switch {
	case err != nil || job.Files.GetError() != "" || int(job.Files.GetBytes()) != stream.Len():
		l.wrong("the file that it leaves: %v; the record says %v, there are %d bytes", err, job.Files, stream.Len())
	case !bytes.Equal(left, l.plan.leaves):
		l.wrong("%s", difference("the file that it leaves", left, l.plan.leaves))
	}
	w.figures.add("files compared", 1)
}

// difference says where two things that should be the same are not.
func difference(name string, got, want []byte) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	end := func(b []byte) []byte { return b[at:min(at+60, len(b))] }
	return fmt.Sprintf("%s has %d bytes, should have %d, and differs from byte %d on: %q, should be %q", name, len(got), len(want), at,
		end(got), end(want))
}

func (l *life) judgeFollower(job *telev1.Job, f *follower, a account) {
	l.world.figures.add("bytes compared", int64(f.all.Len()))
	name := fmt.Sprintf("a follower of stream %d from %d", f.stream, f.from)
	if f.ended == nil {
		return // said already
	}
	if !proto.Equal(f.ended, job) {
		l.wrong("%s was told another end: %s; not: %s", name, brief(f.ended), brief(job))
	}
	whole := a.all
	if f.stream != 0 {
		whole = a.parts[f.stream]
	}
	if f.from > uint64(len(whole)) {
		l.wrong("%s began behind the end, %d", name, len(whole))
		return
	}
	if want := whole[f.from:]; !bytes.Equal(f.all.Bytes(), want) {
		l.wrong("%s", difference(name, f.all.Bytes(), want))
	}
	if f.stream != 0 {
		return
	}
	// And each byte in the stream that it was written to.
	skip := a.before(f.from)
	for _, stream := range []telev1.OutputStream{1, 2} {
		if want := a.parts[stream][skip[stream]:]; !bytes.Equal(f.parts[stream].Bytes(), want) {
			l.wrong("%s", difference(fmt.Sprintf("%s, of that stream %d", name, stream), f.parts[stream].Bytes(), want))
		}
	}
}

// before is how much of each stream is in front of a place.
func (a account) before(place uint64) (n [3]int) {
	left := int(place)
	for _, m := range a.marks {
		n[m.stream] += min(m.size, left)
		left -= min(m.size, left)
	}
	return n
}

// judgeProcess checks what `tele run`, `tele logs` or `tele wait` wrote and how it ended.
func (l *life) judgeProcess(job *telev1.Job, p *process, a account) {
	stdout, stderr := p.stdout.Bytes(), p.err.Bytes()
	what := fmt.Sprintf("tele %s", p.args[0])
	if !p.wasKilled() {
		want := 0
		if p.reported {
			want = exitCode(job)
		}
		l.world.figures.add("exit codes compared", 1)
		if p.code != want {
			if p.code == 125 && unreached(string(stderr)) {
				return // the server was not there at the first try, which is the end of it
			}
			l.wrong("%s ended with %d, not %d: %s", what, p.code, want, stderr)
		}
	}
	if p.args[0] == "wait" {
		return
	}
	l.world.figures.add("bytes compared", int64(len(stdout)))
	wantOut, wantErr := a.parts[1], a.parts[2]
	if slices.Contains(p.args, "--stdout") {
		wantErr = nil
	}
	if p.wasKilled() {
		if !bytes.HasPrefix(wantOut, stdout) {
			l.wrong("%s", difference(what+", killed,", stdout, wantOut[:min(len(stdout), len(wantOut))]))
		}
		return
	}
	if !bytes.Equal(stdout, wantOut) {
		l.wrong("%s", difference(what, stdout, wantOut))
	}
	if stderr = notices.ReplaceAll(stderr, nil); !bytes.Equal(stderr, wantErr) {
		l.wrong("%s", difference(what+" on standard error", stderr, wantErr))
	}
}

// exitCode is how `tele run` and `tele wait` end for a job.
func exitCode(job *telev1.Job) int {
	if code := job.GetExitCode(); code != 0 || job.Status != telev1.JobStatus_JOB_STATUS_FAILED {
		return int(code)
	}
	return 125
}

// judgeAll compares what the server has, after all, with what was submitted.
func (w *world) judgeAll() {
	list, err := w.witness.List(context.Background(), client.ListOptions{})
	if err != nil {
		w.figures.violation("list: %v", err)
		return
	}
	byToken := map[string][]*telev1.Job{}
	for _, job := range list {
		l := w.lifeOf(job)
		if l == nil {
			w.figures.violation("there is a job that nobody submitted: %s", brief(job))
			continue
		}
		byToken[l.token] = append(byToken[l.token], job)
	}
	w.mu.Lock()
	lives := make([]*life, 0, len(w.jobs))
	for _, l := range w.jobs {
		lives = append(lives, l)
	}
	w.mu.Unlock()
	for _, l := range lives {
		l.judgeCount(byToken[l.token])
	}
	w.figures.add("jobs kept to the end", int64(len(list)))
}

// judgeCount checks that a submission made as many jobs as it says.
func (l *life) judgeCount(jobs []*telev1.Job) {
	switch {
	case len(jobs) > 1:
		l.wrong("made %d jobs: %v", len(jobs), jobs)
	case len(jobs) == 1 && l.plan.never:
		l.wrong("made a job, although its command cannot be run: %s", brief(jobs[0]))
	case len(jobs) == 1 && l.refused != nil:
		l.wrong("was refused (%v), and there is a job: %s", l.refused, brief(jobs[0]))
	case len(jobs) == 1 && l.removed:
		l.wrong("is there again after it was removed: %s", brief(jobs[0]))
	case len(jobs) == 0 && l.id != "" && !l.removed:
		l.wrong("the job is not there any more")
	case len(jobs) == 1 && l.judged != nil && !proto.Equal(l.judged, jobs[0]):
		l.wrong("its record has changed after its end: %s; it was: %s", brief(jobs[0]), brief(l.judged))
	case len(jobs) == 1 && l.judged == nil && jobs[0].EndedAt == nil:
		l.wrong("has not ended: %s", brief(jobs[0]))
	case len(jobs) == 1 && l.judged == nil:
		l.judge(jobs[0])
	}
}
