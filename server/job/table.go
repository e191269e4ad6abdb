// Package job is one job's life, from the request to its record, and the table of them all.
//
// Open reads the records of a state directory; Start makes a job and returns when its command runs;
// Get and List find jobs; a Job tells how it is (Snapshot), waits (Wait), is stopped (Stop) and
// gives its output (Output). Close stops every job.
package job

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	recordv1 "github.com/telerun/tele/proto/tele/record/v1"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ErrNotFound is returned for an id that fits no job in sight, ErrAmbiguous for one that fits
// several, ErrClosing when the server is on its way out, ErrTooMany when one client's jobs are as
// many as may run.
var (
	ErrNotFound  = errors.New("no such job")
	ErrAmbiguous = errors.New("the id fits several jobs; give more of it")
	ErrClosing   = errors.New("the server is shutting down")
	ErrTooMany   = errors.New("as many of your jobs are running as may; wait for one to end or stop one")
)

// Options are what Open needs.
type Options struct {
	StateDir string // absolute; made when it is missing
	Cgroups  *cgroup.Manager
	MaxJobs  int           // running jobs of one owner, 0 is no limit
	Most     limits.Limits // what a job may ask for
	// Ended is called when a job has ended or could not be kept; it must not block.
	Ended func(job *telev1.Job, err error)
}

// A Table holds all jobs of a state directory.
type Table struct {
	options  Options
	hide     []string
	devices  []cgroup.Device
	noDevice string
	root     bool

	mu      sync.Mutex
	closing bool
	jobs    map[string]*Job
	slots   map[uint32]bool // user ids in use, counted from firstUID
	owners  map[string]int  // how many jobs of each owner run
	running sync.WaitGroup
}

// firstUID to firstUID+maxUIDs are the users that jobs run as, each one job's alone while it
// lives. The range is far from those of people, services and containers.
const (
	firstUID = 0x70000000
	maxUIDs  = 1 << 16
)

// Open reads what is in the state directory. Jobs that ran when the last server ended are over.
func Open(o Options) (*Table, error) {
	t := &Table{options: o, jobs: map[string]*Job{}, slots: map[uint32]bool{}, owners: map[string]int{},
		root: os.Geteuid() == 0}
	for _, dir := range []string{o.StateDir, t.jobsDir(), t.anchor()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	t.hide = hidden(o.StateDir)
	t.devices, t.noDevice = cgroup.FindDevices(t.jobsDir(), "/")
	if err := t.load(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Table) jobsDir() string { return filepath.Join(t.options.StateDir, "jobs") }
func (t *Table) anchor() string  { return filepath.Join(t.options.StateDir, "root") }

// hidden are the private places of this host that jobs see empty. /tmp and /home are covered
// anyway.
func hidden(stateDir string) []string {
	var list []string
	covered := []string{"/tmp", "/home", "/dev", "/proc"}
	for _, dir := range []string{"/root", "/run", stateDir} {
		inside := slices.ContainsFunc(covered, func(c string) bool {
			return dir == c || strings.HasPrefix(dir, c+"/")
		})
		info, err := os.Lstat(dir)
		if !inside && err == nil && info.IsDir() {
			list, covered = append(list, dir), append(covered, dir)
		}
	}
	return list
}

// load reads all records, and ends what cannot go on.
func (t *Table) load() error {
	entries, err := os.ReadDir(t.jobsDir())
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(t.jobsDir(), e.Name())
		rec, err := readRecord(dir)
		if errors.Is(err, os.ErrNotExist) { // a start that was cut off
			t.removeGroup(e.Name())
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		j := &Job{table: t, dir: dir, record: rec, done: make(chan struct{})}
		if !j.ended() {
			t.removeGroup(rec.Job.Id)
			j.finishLost()
		}
		close(j.done)
		t.jobs[rec.Job.Id] = j
	}
	for _, id := range t.options.Cgroups.List() {
		t.removeGroup(id)
	}
	return nil
}

// removeGroup ends what an earlier server left running.
func (t *Table) removeGroup(id string) {
	group := t.options.Cgroups.Adopt(id)
	_ = group.Kill() // gone already is as good; what stays is seen by Delete
	ctx, cancel := contextFor(10 * time.Second)
	defer cancel()
	_ = group.WaitEmpty(ctx)
	_ = group.Delete()
}

// Get returns the job whose id begins with prefix, among those that visible lets through.
func (t *Table) Get(prefix string, visible func(owner string) bool) (*Job, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if j := t.jobs[prefix]; j != nil && visible(j.Owner()) {
		return j, nil
	}
	var found *Job
	for id, j := range t.jobs {
		if prefix == "" || !strings.HasPrefix(id, prefix) || !visible(j.Owner()) {
			continue
		}
		if found != nil {
			return nil, ErrAmbiguous
		}
		found = j
	}
	if found == nil {
		return nil, ErrNotFound
	}
	return found, nil
}

// List returns the visible jobs, newest first.
func (t *Table) List(visible func(owner string) bool) []*telev1.Job {
	t.mu.Lock()
	jobs := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		if visible(j.Owner()) {
			jobs = append(jobs, j)
		}
	}
	t.mu.Unlock()
	list := make([]*telev1.Job, len(jobs))
	for i, j := range jobs {
		list[i] = j.Snapshot()
	}
	slices.SortFunc(list, func(a, b *telev1.Job) int {
		if c := b.CreatedAt.AsTime().Compare(a.CreatedAt.AsTime()); c != 0 {
			return c
		}
		return strings.Compare(a.Id, b.Id)
	})
	return list
}

// Close refuses new jobs, stops those that run, and returns when all of them have ended.
func (t *Table) Close() {
	t.mu.Lock()
	t.closing = true
	jobs := make([]*Job, 0, len(t.jobs))
	for _, j := range t.jobs {
		jobs = append(jobs, j)
	}
	t.mu.Unlock()
	for _, j := range jobs {
		j.stop(shutdown())
	}
	t.running.Wait()
}

func shutdown() stopRequest {
	return stopRequest{signal: unix.SIGTERM, grace: closeGrace, message: "stopped because the server was shut down"}
}

// closeGrace is how long jobs have when the server ends.
const closeGrace = 5 * time.Second

// reserve enters a job that is about to be made.
func (t *Table) reserve(j *Job) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return ErrClosing
	}
	if t.options.MaxJobs > 0 && t.owners[j.Owner()] >= t.options.MaxJobs {
		return ErrTooMany
	}
	for slot := range uint32(maxUIDs) {
		if t.slots[slot] {
			continue
		}
		t.slots[slot] = true
		t.owners[j.Owner()]++
		j.slot, j.record.Uid = slot, firstUID+slot
		if !t.root {
			j.record.Uid = uint32(os.Getuid())
		}
		t.running.Add(1)
		return nil
	}
	return fmt.Errorf("all %d user ids for jobs are in use", maxUIDs)
}

// release gives back what reserve took.
func (t *Table) release(j *Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.slots, j.slot)
	if t.owners[j.Owner()]--; t.owners[j.Owner()] == 0 {
		delete(t.owners, j.Owner())
	}
	t.running.Done()
}

// add shows a job that runs. One that began before Close and runs only now is stopped like the rest.
func (t *Table) add(j *Job) {
	t.mu.Lock()
	t.jobs[j.record.Job.Id] = j
	closing := t.closing
	t.mu.Unlock()
	if closing {
		j.stop(shutdown())
	}
}

func newID() string {
	var p [8]byte
	_, _ = rand.Read(p[:]) // never fails, crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(p[:]))[:12]
}

const recordVersion = 1

func readRecord(dir string) (*recordv1.Record, error) {
	path := filepath.Join(dir, "record")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r recordv1.Record
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if r.Version != recordVersion || r.Job == nil {
		return nil, fmt.Errorf("%s is of version %d, this server knows %d: use the server that wrote it",
			path, r.Version, recordVersion)
	}
	return &r, nil
}

// writeRecord replaces the record as a whole.
func writeRecord(dir string, r *recordv1.Record) error {
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, "record.new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, "record"))
}

func now() *timestamppb.Timestamp { return timestamppb.New(time.Now()) }
