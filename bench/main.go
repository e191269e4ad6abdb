// Bench measures tele against the kernel's own limit and against other tools, all of them in turn in
// one run, prints the ratios that tele is to reach, and writes docs/PERFORMANCE.md with its charts.
//
//	make bench                    all of it, about ten minutes on an idle machine
//	make bench QUICK=1            few samples of each, writes nothing
//	make bench ROWS=launch,memory only these, writes nothing
//	make bench ROWS=scale         scale-ended, scale-idle and scale-followers; some minutes, 4 GiB
//
// It needs root and a C compiler. What it starts has state of its own in a new directory under
// /var/lib, as a real server has, and is gone afterwards. A ratio that is missed is printed as such
// and is no failure.
package main

import (
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed limit.c
var limitSource []byte

func main() {
	beOther()
	var o options
	flag.StringVar(&o.tele, "tele", "../bin/tele", "the `program` to measure")
	flag.BoolVar(&o.quick, "quick", false, "few samples of each")
	flag.StringVar(&o.rows, "rows", "", "only these of "+strings.Join(rowNames(), ",")+" (`LIST`)")
	flag.StringVar(&o.docs, "docs", "", "write PERFORMANCE.md and perf/*.svg into this `directory`")
	flag.StringVar(&o.results, "results", "", "write the results to this `file`, or with -render read them from it")
	flag.BoolVar(&o.render, "render", false, "measure nothing; write -docs from -results")
	flag.BoolVar(&o.install, "install", false, "install the peers that Debian has, and do nothing else")
	flag.Parse()
	if err := o.main(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	tele, rows, docs, results string
	quick, render, install    bool
}

func (o options) main() error {
	if o.install {
		return install()
	}
	var r *Results
	if o.render {
		text, err := os.ReadFile(o.results)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
	} else {
		var err error
		if r, err = measure(o); err != nil {
			return err
		}
		if err := o.keep(r); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	if o.docs == "" {
		return nil
	}
	return r.write(o.docs)
}

func (o options) keep(r *Results) error {
	if o.results == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(o.results, text, 0o644)
}

// A part is one table or more of the results, and can be asked for by its name.
type part struct {
	name string
	run  func(*bench) error
}

var parts = []part{
	{"launch", (*bench).launches},
	{"callers", (*bench).callers},
	{"command", (*bench).commands},
	{"memory", (*bench).memory},
	{"output", (*bench).output},
	{"growth", (*bench).growth},
	{"scale-ended", (*bench).ended},
	{"scale-idle", (*bench).idling},
	{"scale-followers", (*bench).following},
}

// asked tells whether one of rows is the part, or the first word of its name.
func (p part) asked(rows []string) bool {
	first, _, _ := strings.Cut(p.name, "-")
	return slices.Contains(rows, p.name) || slices.Contains(rows, first)
}

func rowNames() (names []string) {
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

// A bench is one run.
type bench struct {
	quick      bool
	tele       string
	dir        string // gone afterwards; jobs see it, but for the state directories
	shm        string // the same in memory
	limit      string // the program
	cold, warm *server
	sandbox    isolation
	peers      []peer
	contenders []*contender
	results    *Results

	mu      sync.Mutex
	servers []*server // all that were started
}

// measure runs the parts that were asked for.
func measure(o options) (*Results, error) {
	b, err := newBench(o.tele, o.quick)
	if err != nil {
		return nil, err
	}
	defer b.close()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() { // for as long as there is something to clean up
		<-interrupted
		b.close()
		os.Exit(130)
	}()
	for _, p := range parts {
		if o.rows != "" && !p.asked(strings.Split(o.rows, ",")) {
			continue
		}
		began := time.Now()
		if err := p.run(b); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %v\n", p.name, time.Since(began).Round(time.Second))
	}
	for i, m := range b.results.Missing {
		b.results.Missing[i] = strings.ReplaceAll(m, b.dir, "DIR")
	}
	b.results.Took = time.Since(b.results.Date).Round(time.Second)
	return b.results, nil
}

// newBench starts the servers and finds the peers.
func newBench(tele string, quick bool) (_ *bench, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("needs root: it compares sandboxes with every limit on")
	}
	if tele, err = filepath.Abs(tele); err != nil {
		return nil, err
	}
	// What outlives its parent comes to this process, so that close finds it.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	b := &bench{quick: quick, tele: tele}
	if b.dir, err = os.MkdirTemp("/var/lib", "tele-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.shm, err = os.MkdirTemp("/dev/shm", "tele-bench-"); err != nil {
		return nil, err
	}
	// The jobs' users are to reach limit and tele in it.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.limit, err = buildLimit(b.dir); err != nil {
		return nil, err
	}
	var off []string
	warm := hasFlag(tele, "--warm")
	if warm {
		off = []string{"--warm", "0"}
	}
	if b.cold, err = b.serve("cold", off...); err != nil {
		return nil, err
	}
	if warm {
		if b.warm, err = b.serve("warm"); err != nil {
			return nil, err
		}
	}
	if b.sandbox, err = b.cold.isolation(); err != nil {
		return nil, err
	}
	b.results = newResults(tele, b.sandbox)
	b.peers, b.results.Missing = peers(b.sandbox)
	if b.warm == nil {
		b.results.Missing = append(b.results.Missing, "tele warm: this tele has no --warm")
	}
	for _, p := range b.peers {
		b.results.Versions = append(b.results.Versions, b.version(p.name, p.version, p.options))
	}
	return b, b.gather("true")
}

// serve starts a server, which is stopped by b.close if not before.
func (b *bench) serve(name string, flags ...string) (*server, error) {
	return b.serveLimited(0, name, flags...)
}

// serveLimited is serve for a server that may have that many files open, 0 for as many as this process.
func (b *bench) serveLimited(files int, name string, flags ...string) (*server, error) {
	s, err := newServer(b.tele, filepath.Join(b.dir, name), flags...)
	if err != nil {
		return nil, err
	}
	s.files = files
	b.mu.Lock()
	b.servers = append(b.servers, s)
	b.mu.Unlock()
	return s, s.start()
}

// close ends all that was started. It may be called at any moment.
func (b *bench) close() {
	endIdle(os.Getpid())
	for _, c := range b.contenders {
		c.close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.servers {
		s.stop()
	}
	killUnder(os.Getpid())
	removeGroups()
	for _, p := range b.peers {
		_ = boxes(p.cleanup, int(slices.Max(callerCounts))) // a box that is not there needs none
	}
	_ = os.RemoveAll(b.dir) // what is left there is nobody's
	_ = os.RemoveAll(b.shm)
}

// version is how a tool is named and called, without the places that are this run's alone.
func (b *bench) version(name string, asked, command []string) Version {
	line := strings.Join(append([]string{filepath.Base(command[0])}, command[1:]...), " ")
	return Version{name, versionOf(asked), strings.NewReplacer(b.dir, "DIR", b.shm, "DIR", groupName, "tele-bench-").Replace(line)}
}

// many is how often something is done: in a quick run less often.
func (b *bench) many(n, quick int) int {
	if b.quick {
		return quick
	}
	return n
}
