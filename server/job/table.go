// Package job is one job's life, from the request to its record, and the table of them all.
//
// OpenStateDir locks a state directory; Open reads its records and takes over the jobs that an
// earlier server left running; Start makes a job and returns when its command runs; Get and List
// find jobs; a Job tells how it is (Snapshot), waits (Wait), is stopped (Stop) and gives its output
// (Output). At the end Leave lets go of the running jobs, or Stop stops them.
//
// # What is on disk
//
// A directory a job, DIR/jobs/ID: record (what is known of it), stdout, stderr and index (its
// output), work (its work directory, where that is on disk), changes (what it changed in its root, an
// overlay). The record is written before init gets its plan, when the command runs, before a stop is carried out, and at the end; what is not in it yet when a server is
// killed is still in init's socket, its pipes, or the cgroup, and the next server finds it there.
package job

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/limits"
	"github.com/telerun/tele/limits/cgroup"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/output"
)

// ErrNotFound is returned for an id that fits no job in sight, ErrAmbiguous for one that fits
// several, ErrClosing when the server is on its way out, ErrTooMany when one client's jobs are as
// many as may run, ErrFiles when the server has no descriptors for one more.
var (
	ErrNotFound  = errors.New("no such job")
	ErrAmbiguous = errors.New("the id fits several jobs; give more of it")
	ErrClosing   = errors.New("the server is shutting down")
	ErrTooMany   = errors.New("as many of your jobs are running as may; wait for one to end or stop one")
	ErrFiles     = errors.New("as many jobs are running as the server may have files open for: its limit, LimitNOFILE= of its unit or ulimit -n, is to be raised")
)

// Options are what Open needs.
type Options struct {
	StateDir     string // absolute; made when it is missing
	Cgroups      *cgroup.Manager
	MaxJobs      int           // running jobs of one owner, 0 is no limit
	Files        int           // descriptors of all running jobs, 0 is no limit
	Most         limits.Limits // what a job may ask for
	MostOutput   int64         // the same for its output, in bytes; 0 is no limit
	Work         Work          // where work directories are; empty is WorkAuto
	MostWork     int64         // the most that a job may ask for its work directory on disk, in bytes; 0 is no limit
	StopWhenFull bool          // stop a job whose output finds no room, instead of letting it wait
	Retention    Retention
	// FirstUID and the UIDs-1 after it are the users, and groups, that jobs run as, each one job's alone
	// while it lives; UIDs 0 is the default range.
	FirstUID, UIDs uint32
	Hide           []string // directories of the host that jobs see empty
	Warm           int      // sandboxes that are kept ready for jobs to come
	EventFile      uint64   // how large a file of events gets, in bytes, of which there are two; 0 is 8 MiB
	// Log gets a line for each job that ends, or is taken over from an earlier server.
	Log zerolog.Logger
}

// A Table holds all jobs of a state directory.
type Table struct {
	options Options
	hide    []string
	ownDir  string // the state directory, by the path that no link is on
	mounts  mountWatch
	usual   request // what a job asks for that asks for nothing
	common  common
	warm    pool
	timings timings
	events  *events
	root    bool
	work    Work   // never WorkAuto
	whyWork string // in words

	devices, readDevices   []cgroup.Device // the disks behind what jobs write, and what they only read
	noDevice, noReadDevice string          // why there are none

	life      context.Context // ends with the server; for With
	leave     context.CancelCauseFunc
	leftGrace time.Duration     // as the constant; shorter in tests
	at        func(step string) // called between the steps of a start and an end; for tests
	running   sync.WaitGroup    // of what holdLocked counts and release takes back
	space     *output.Space     // for the output of all jobs
	poll      *poller           // waits for what running jobs do
	tidy      chan struct{}     // wakes the keeper
	keeper    sync.WaitGroup

	mu      sync.Mutex
	closing bool
	jobs    map[string]*Job
	order   []*Job         // the same, oldest first
	index   index          // the same, by names and beginnings of ids
	shelf   shelf          // those that have ended
	keys    map[key]*Job   // by idempotency key, made or being made
	uids    map[uint32]int // how many jobs run as each user
	nextUID uint32         // where the search for the next begins, counted from FirstUID
	owners  map[string]int // how many jobs of each owner run
	files   int            // how many descriptors all of them have
}

// A key is an owner's idempotency key, or name of a job.
type key struct{ owner, key string }

// DefaultFirstUID and the DefaultUIDs-1 after it are the users that jobs run as when nothing else is
// said. The range is far from those of people, services and containers.
const (
	DefaultFirstUID = 0x70000000
	DefaultUIDs     = 1 << 16
)

// Open reads what is in the state directory, and takes over the jobs that an earlier server left.
// Nobody else may have it open (OpenStateDir).
func Open(o Options) (_ *Table, err error) {
	t := &Table{options: o, root: os.Geteuid() == 0, at: func(string) {}, leftGrace: leftGrace,
		jobs: map[string]*Job{}, index: newIndex(), keys: map[key]*Job{}, uids: map[uint32]int{}, owners: map[string]int{},
		space: output.NewSpace(o.Retention.Output), tidy: make(chan struct{}, 1),
		warm: pool{size: o.Warm, wake: make(chan struct{}, 1)}}
	if o.Warm < 0 || o.Warm > maxWarm {
		return nil, fmt.Errorf("%d warm sandboxes: at least 0 and at most %d are kept", o.Warm, maxWarm)
	}
	if o.UIDs == 0 {
		t.options.FirstUID, t.options.UIDs = DefaultFirstUID, DefaultUIDs
	}
	if t.poll, err = newPoller(); err != nil {
		return nil, err
	}
	t.life, t.leave = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			t.Leave() // jobs that were taken over already
		}
	}()
	for _, dir := range []string{t.jobsDir(), t.anchor()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := initproc.CheckDevices(); err != nil {
		return nil, err
	}
	if err := t.chooseWork(); err != nil {
		return nil, err
	}
	ownDir, err := filepath.EvalSymlinks(o.StateDir)
	if err != nil {
		return nil, err
	}
	t.ownDir = ownDir
	t.hide = hidden(o.StateDir, o.Hide)
	t.devices, t.noDevice = cgroup.FindDevices(t.jobsDir())
	t.readDevices, t.noReadDevice = cgroup.FindDevices("/")
	if t.usual, err = t.check(&telev1.JobSpec{Command: []string{"true"}}); err != nil {
		return nil, err
	}
	if err := t.openEvents(); err != nil {
		return nil, err
	}
	if err := t.recover(); err != nil {
		return nil, err
	}
	t.keeper.Go(t.keep)
	switch {
	case t.fromTemplate(t.usual):
		t.renewTemplate()
		t.warm.done.Go(t.tendPool)
	case o.Warm > 0:
		t.warm.size = 0
		t.options.Log.Info().Msg("no sandbox is kept ready: that takes a server that runs as root, with work directories in memory")
	}
	return t, nil
}

func (t *Table) jobsDir() string { return filepath.Join(t.options.StateDir, "jobs") }

func (t *Table) jobDir(id string) string { return filepath.Join(t.jobsDir(), id) }

func (t *Table) eventsDir() string { return filepath.Join(t.options.StateDir, "events") }

func (t *Table) anchor() string { return filepath.Join(t.options.StateDir, "root") }

// hidden are the private places of this host that jobs see empty: those that are configured, and
// the server's own. A link is followed to where it leads; what is not there needs no hiding, nor
// does what is covered anyway.
func hidden(stateDir string, configured []string) []string {
	var list []string
	covered := slices.Clone(covered)
	for _, path := range append([]string{stateDir}, configured...) {
		dir, err := filepath.EvalSymlinks(path)
		if err != nil {
			continue
		}
		if info, err := os.Lstat(dir); err == nil && info.IsDir() && !inside(dir, covered) && dir != "/" {
			list, covered = append(list, dir), append(covered, dir)
		}
	}
	slices.Sort(list) // what holds another is covered after it
	slices.Reverse(list)
	return list
}

// Get returns a job by its id, a beginning of it that fits no other, or its name, the newest of those, among
// those that visible lets through. Nobody can hide a job by a name: ids come first.
func (t *Table) Get(text string, visible func(owner string) bool) (*Job, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if j := t.jobs[text]; j != nil && visible(j.owner) {
		return j, nil
	}
	fits := func(j *Job) bool { return visible(j.owner) }
	found, several := t.index.begins(text, fits)
	if found != nil && !several {
		return found, nil
	}
	if named := t.index.named(text, fits); named != nil {
		return named, nil
	}
	if several {
		return nil, ErrAmbiguous
	}
	return nil, ErrNotFound
}

// A Page says which jobs List returns.
type Page struct {
	Filter
	Brief bool   // as Job.Brief has them
	Live  bool   // with what they use now
	After string // Next of the page before; empty is the first
	Size  int
}

// List returns a page of the visible jobs, newest first, and what the next page comes after; empty
// when there is none. A job that has gone since is no gap: the page begins where it was.
func (t *Table) List(visible func(owner string) bool, p Page) (list []*telev1.Job, next string, err error) {
	var from *place
	if p.After != "" {
		if from, err = parsePlace(p.After); err != nil {
			return nil, "", err
		}
	}
	// What is looked at is copied: a page must not hold up those that start and end jobs.
	t.mu.Lock()
	end := len(t.order)
	if from != nil {
		end, _ = slices.BinarySearchFunc(t.order, *from, comparePlace)
	}
	jobs := slices.Clone(t.order[:end])
	t.mu.Unlock()
	f := p.prepare(time.Now())
	for _, j := range slices.Backward(jobs) {
		if f.tooOld(j) {
			break
		}
		if !visible(j.owner) || !f.fits(j) {
			continue
		}
		if len(list) == p.Size {
			return list, next, nil
		}
		switch {
		case p.Live:
			list = append(list, j.Live(p.Brief))
		case p.Brief:
			list = append(list, j.Brief())
		default:
			list = append(list, j.Snapshot())
		}
		next = j.place().String()
	}
	return list, "", nil
}

// A place is where a job is in the order of all.
type place struct {
	created int64 // nanoseconds since 1970
	id      string
}

func (j *Job) place() place { return place{j.created, j.id} }

func (p place) String() string { return fmt.Sprintf("%d.%s", p.created, p.id) }

func parsePlace(text string) (*place, error) {
	created, id, found := strings.Cut(text, ".")
	n, err := strconv.ParseInt(created, 10, 64)
	if !found || err != nil {
		return nil, bad("page_token", "%q is not from an earlier page", text)
	}
	return &place{n, id}, nil
}

func comparePlace(j *Job, p place) int {
	return cmp.Or(cmp.Compare(j.created, p.created), strings.Compare(j.id, p.id))
}

// enterLocked shows a job.
func (t *Table) enterLocked(j *Job) {
	t.jobs[j.id] = j
	at, _ := slices.BinarySearchFunc(t.order, j.place(), comparePlace)
	t.order = slices.Insert(t.order, at, j) // nearly always at the end
	t.index.add(j)
}

// Stop refuses new jobs, stops those that run, and returns when all of them have ended. One that
// cannot end, since there is no room for what it wrote, is left to the next server.
func (t *Table) Stop() {
	jobs := t.close()
	shutDown := func() {
		for _, j := range jobs {
			j.shutDown()
		}
	}
	shutDown()
	// The second time it is for what collects the files of those that were stopped, as the first one is not.
	again := time.AfterFunc(closeGrace*3/2, shutDown)
	defer again.Stop()
	timer := time.AfterFunc(2*closeGrace, func() { t.leave(ErrClosing) })
	defer timer.Stop()
	t.wait()
}

// Leave refuses new jobs, lets go of those that run, and returns when nothing is under way any
// more. The jobs go on; the next server takes them over.
func (t *Table) Leave() {
	jobs := t.close()
	t.leave(ErrClosing)
	for _, j := range jobs {
		j.interrupt()
	}
	t.wait()
}

func (t *Table) wait() {
	t.running.Wait()
	t.leave(ErrClosing)
	t.keeper.Wait()
	t.warm.done.Wait()
	t.mounts.close()
	t.poll.close()
	if t.events != nil {
		t.events.close()
	}
}

// close refuses new jobs and returns those that there are.
func (t *Table) close() []*Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closing = true
	return slices.Collect(maps.Values(t.jobs))
}

// closeGrace is how long jobs have when the server ends and they with it.
const closeGrace = 5 * time.Second

func (j *Job) shutDown() {
	err := j.stop(OwnSignal, closeGrace, telev1.Reason_REASON_STOPPED, "stopped because the server was shut down")
	if err != nil {
		j.table.options.Log.Err(err).Str("job", j.id).Msg("stop at shutdown")
	}
}

// reserve enters a job that is about to be made in s, unless its key belongs to another: then it returns
// that one.
func (t *Table) reserve(j *Job, s *sandbox) (earlier *Job, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if earlier := t.keys[key{j.owner, j.key}]; earlier != nil {
		return earlier, nil
	}
	if t.closing {
		return nil, ErrClosing
	}
	if other := t.index.running[key{j.owner, j.name}]; other != nil {
		return nil, &NameError{j.name, other.id}
	}
	if err := t.space.Check(); err != nil {
		t.tidyUp()
		return nil, err
	}
	if t.options.MaxJobs > 0 && t.owners[j.owner] >= t.options.MaxJobs {
		return nil, ErrTooMany
	}
	if t.options.Files > 0 && t.files+j.files() > t.options.Files {
		return nil, ErrFiles
	}
	switch {
	case j.namedUser:
		t.uids[s.uid]++
	case !s.warm:
		if err := t.takeUIDLocked(s); err != nil {
			return nil, err
		}
	}
	j.record.Uid = s.uid
	t.holdLocked(j)
	return nil, nil
}

// takeUID gives a sandbox a user id that no other has, until dropUIDLocked.
func (t *Table) takeUID(s *sandbox) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing {
		return ErrClosing
	}
	return t.takeUIDLocked(s)
}

func (t *Table) takeUIDLocked(s *sandbox) error {
	if !t.root {
		s.uid = uint32(os.Getuid())
		t.uids[s.uid]++
		return nil
	}
	for range t.options.UIDs {
		uid := t.options.FirstUID + t.nextUID
		t.nextUID = (t.nextUID + 1) % t.options.UIDs
		if t.uids[uid] == 0 {
			s.uid = uid
			t.uids[uid]++
			return nil
		}
	}
	return fmt.Errorf("all %d user ids for jobs are in use", t.options.UIDs)
}

func (t *Table) dropUIDLocked(uid uint32) {
	if t.uids[uid]--; t.uids[uid] == 0 {
		delete(t.uids, uid)
	}
}

// holdLocked counts a job among those that run, until release. Its user is counted already.
func (t *Table) holdLocked(j *Job) {
	j.uid = j.record.Uid
	t.owners[j.owner]++
	t.files += j.files()
	if j.name != "" {
		t.index.running[key{j.owner, j.name}] = j
	}
	t.enterKeyLocked(j)
	t.running.Add(1)
}

func (t *Table) enterKeyLocked(j *Job) {
	if j.key != "" {
		t.keys[key{j.owner, j.key}] = j
	}
}

// release gives back what holdLocked took, but for its place in running.
func (t *Table) release(j *Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropUIDLocked(j.uid)
	t.files -= j.files()
	if j.name != "" {
		delete(t.index.running, key{j.owner, j.name})
	}
	if t.owners[j.owner]--; t.owners[j.owner] == 0 {
		delete(t.owners, j.owner)
	}
}

// add shows a job that runs. One that began before the server's end and runs only now is treated
// like the rest.
func (t *Table) add(j *Job) {
	t.mu.Lock()
	t.enterLocked(j)
	t.mu.Unlock()
	t.heed(j)
}

// heed does with a job what is done with all when the server is about to end.
func (t *Table) heed(j *Job) {
	t.mu.Lock()
	closing := t.closing
	t.mu.Unlock()
	if !closing {
		return
	}
	if t.life.Err() != nil {
		j.interrupt()
	} else {
		j.shutDown()
	}
}

// With returns a context that also ends, with ErrClosing, when the server does. The caller calls
// cancel when it needs it no more.
func (t *Table) With(ctx context.Context) (_ context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(t.life, func() { end(ErrClosing) })
	return ctx, func() { stop(); end(nil) }
}

func (t *Table) has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jobs[id] != nil
}

// forget takes a job out of sight.
func (t *Table) forget(j *Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.jobs[j.id] == j {
		delete(t.jobs, j.id)
		if at, found := slices.BinarySearchFunc(t.order, j.place(), comparePlace); found {
			t.order = without(t.order, at)
		}
		t.index.remove(j)
	}
	if k := (key{j.owner, j.key}); t.keys[k] == j {
		delete(t.keys, k)
	}
}

func (t *Table) logEnd(job *telev1.Job, err error) {
	event := t.options.Log.Info()
	if err != nil {
		event = t.options.Log.Error().Err(err)
	}
	event.Str("job", job.Id).Str("user", job.User).Str("reason", job.Message).Msg("job ended")
}

func newID() string {
	var p [8]byte
	_, _ = rand.Read(p[:]) // never fails, crypto/rand
	return strings.ToLower(base32.StdEncoding.EncodeToString(p[:]))[:12]
}
