package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// A world is one run.
type world struct {
	options options
	figures figures
	name    string // in the tokens of the jobs: no other run has it
	disk    string // mount point of the small file system
	state   string // state directory, on it
	group   string // name of the server's own cgroups
	addr    string // where the server listens
	log     *os.File
	server  *server // the last one
	proxy   *proxy
	mounts  []string // before anything began

	witness *client.Client   // over the unix socket, which nobody cuts
	remote  []*client.Client // through the proxy

	mu          sync.Mutex
	jobs        map[string]*life // by token
	initsKilled map[string]bool  // by id: their jobs may be lost
	full        [][2]time.Time   // when the disk was full
}

func newWorld(o options) (*world, error) {
	w := &world{options: o, name: filepath.Base(o.dir), disk: filepath.Join(o.dir, "disk"),
		jobs: map[string]*life{}, initsKilled: map[string]bool{},
		figures: figures{seed: o.seed, began: time.Now(), counts: map[string]int64{}}}
	w.state = filepath.Join(w.disk, "state")
	w.group = fmt.Sprintf("tele-%.4x", sha256.Sum256([]byte(w.state))) // as the server names it
	var err error
	if w.options.tele, err = filepath.Abs(o.tele); err != nil {
		return nil, err
	}
	if _, err := os.Stat(w.options.tele); err != nil {
		return nil, fmt.Errorf("%w (make build)", err)
	}
	if w.log, err = os.Create(filepath.Join(o.dir, "server.log")); err != nil {
		return nil, err
	}
	if w.mounts, err = mounts(); err != nil {
		return nil, err
	}
	if err := w.mountDisk(); err != nil {
		return nil, err
	}
	if w.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	w.proxy, err = newProxy(w)
	return w, err
}

// freeAddr is a loopback address below the ports that the kernel gives to clients: while the server is
// down nobody else gets it.
func freeAddr() (string, error) {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", fmt.Errorf("no free port found")
}

// run is the whole run: trouble, an end to the trouble, and a look at what is left. When ctx ends, so
// does the trouble.
func (w *world) run(ctx context.Context) error {
	fmt.Printf("seed %d, %v of trouble, %d jobs at a time, %s of %d MiB\n", w.options.seed, w.options.duration,
		w.options.atOnce, w.options.disk, w.options.size>>20)
	s, err := w.again()
	if err != nil {
		return err
	}
	if err := w.connect(); err != nil {
		return err
	}
	w.proxy.rest(false)
	trouble, end := context.WithTimeout(ctx, w.options.duration)
	defer end()
	var troubles, jobs sync.WaitGroup
	jobs.Go(func() { w.submitAll(trouble) })
	s = w.makeTrouble(trouble, &troubles, s) // returns when the time is up, with the last server
	troubles.Wait()
	w.proxy.rest(true)
	if s == nil {
		return fmt.Errorf("there is no server any more; see %s", w.log.Name())
	}
	if !finished(&jobs, 2*time.Minute) {
		w.tellStuck()
		return nil
	}
	w.drain()
	w.judgeAll()
	w.disconnect()
	if s.checkAlive(w) {
		s.terminate(w, 20*time.Second)
	}
	w.calm()
	w.lookForLeftovers()
	return w.proxy.close()
}

// finished waits, but not for ever.
func finished(group *sync.WaitGroup, most time.Duration) bool {
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(most):
		return false
	}
}

// connect makes the clients of the library.
func (w *world) connect() (err error) {
	if w.witness, err = w.dial("unix:" + filepath.Join(w.state, "tele.sock")); err != nil {
		return err
	}
	if _, err := w.witness.List(context.Background(), client.ListOptions{}); err != nil {
		return err
	}
	for range 6 {
		c, err := w.dial(w.proxy.addr())
		if err != nil {
			return err
		}
		// The first call of a client has to work; from then on it connects again.
		if _, err := c.List(context.Background(), client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_SUBMITTED}}); err != nil {
			return err
		}
		w.remote = append(w.remote, c)
	}
	return nil
}

func (w *world) dial(addr string) (*client.Client, error) {
	return client.Dial(client.Options{Addr: addr, StateDir: w.state, Reconnect: time.Hour})
}

func (w *world) disconnect() {
	for _, c := range append(w.remote, w.witness) {
		_ = c.Close() // nothing of it is under way any more
	}
	w.remote = nil
}

// submitAll submits jobs until the time is up, and returns when all of them have ended and were
// looked at.
func (w *world) submitAll(trouble context.Context) {
	c := newChance(w.options.seed, "submitter")
	places := make(chan struct{}, w.options.atOnce)
	var all sync.WaitGroup
	for n := 0; trouble.Err() == nil; n++ {
		select {
		case places <- struct{}{}:
		case <-trouble.Done():
			continue
		}
		l := w.newLife(n)
		all.Go(func() {
			l.live(trouble)
			<-places
		})
		pause(trouble, c.ms(0, 40))
	}
	all.Wait()
}

// pause waits, and tells whether the time is not yet up.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// drain ends the jobs of which nobody was told: their client was killed before the answer.
func (w *world) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	list, err := w.witness.List(ctx, client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING, telev1.JobStatus_JOB_STATUS_SUBMITTED}})
	if err != nil {
		w.figures.violation("list the running jobs: %v", err)
		return
	}
	var all sync.WaitGroup
	for _, job := range list {
		all.Go(func() {
			err := error(nil)
			if l := w.lifeOf(job); l != nil && l.plan.stop == nil {
				_, err = w.witness.Wait(ctx, job.Id)
			} else {
				_, err = w.witness.Stop(ctx, job.Id, "", 0)
			}
			if err != nil {
				w.figures.violation("job %s does not end: %v", job.Id, err)
			}
		})
	}
	all.Wait()
}

// lifeOf is the life that a job of the server belongs to; nil when nobody submitted it.
func (w *world) lifeOf(job *telev1.Job) *life {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.jobs[job.GetSpec().GetEnv()[tokenName]]
}

// tellStuck says which jobs have not come to their end.
func (w *world) tellStuck() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, l := range w.jobs {
		if at := l.where(); at != "" {
			list = append(list, fmt.Sprintf("%s (%s, job %s): %s", l.token, l.kind.name, l.id, at))
		}
	}
	slices.Sort(list)
	w.figures.violation("stuck:\n%s", strings.Join(list, "\n"))
}

// keep copies the state directory from the file system that goes with the namespace.
func (w *world) keep(to string) {
	if out, err := exec.Command("cp", "-a", w.state, to).CombinedOutput(); err != nil {
		fmt.Printf("not all of the state directory could be kept: %v\n%s", err, out)
	}
}

// sweep ends what a run that went wrong has left.
func (w *world) sweep() {
	if w.server != nil {
		_ = w.server.cmd.Process.Kill() // gone already is as good
		<-w.server.gone
	}
	for _, group := range w.groups() {
		for _, pid := range processesIn(group) {
			onProcess(group, pid, func(fd int) { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) }) // the same
		}
	}
	for _, base := range w.ownGroups() {
		inside, _ := filepath.Glob(filepath.Join(base, "*")) // the pattern is right
		for _, path := range append(inside, base) {
			_ = unix.Rmdir(path) // its files are no directories; one with processes is told below
		}
	}
	if left := w.ownGroups(); len(left) > 0 {
		fmt.Println("left behind:", left)
	}
}
