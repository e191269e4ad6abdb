package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A plan is one job before it is submitted: what it does, what is done to it, and how it must end.
type plan struct {
	spec *telev1.JobSpec

	stop  *stopping // somebody stops it; it does not end without
	never bool      // its command cannot be run: Start must say so

	// How it must end: with this reason and one of these codes, and this output. A nil output is
	// not known; check looks at it.
	reason         telev1.Reason
	codes          []int32
	stdout, stderr []byte
	check          func(stdout, stderr []byte) string
	// leaves is what the file is that it leaves; nil for none.
	leaves []byte
}

// stopping is how a job is stopped.
type stopping struct {
	after, grace time.Duration
	signal       string
}

// A kind makes plans of one kind; weight is how often, compared with the others.
type kind struct {
	name   string
	weight int
	make   func(c chance) plan
}

var kinds = []kind{
	{"short", 14, short},
	{"lines", 18, lines},
	{"stream", 8, stream},
	{"binary", 10, binary},
	{"sleeper", 8, sleeper},
	{"signal", 3, signaled},
	{"files", 4, files},
	{"stopped", 6, stopped},
	{"stopped, politely", 4, stoppedPolitely},
	{"stopped, deaf", 4, stoppedDeaf},
	{"timeout", 6, timeout},
	{"timeout, deaf", 1, timeoutDeaf},
	{"oom", 4, oom},
	{"fork bomb", 2, forkBomb},
	{"orphans", 6, orphans},
	{"output limit", 5, outputLimit},
	{"tried again", 6, triedAgain},
	{"leaves a file", 6, leaves},
	{"no command", 5, noCommand},
	{"no cwd", 2, noCwd},
}

// pick chooses a kind.
func pick(c chance) kind {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := c.IntN(sum)
	at := slices.IndexFunc(kinds, func(k kind) bool { n -= k.weight; return n < 0 })
	return kinds[at]
}

// exits is a shell script that exits by itself with code.
func exits(code int, script string, args ...any) plan {
	text := fmt.Sprintf(script, args...) + fmt.Sprintf("\nexit %d", code)
	return plan{spec: &telev1.JobSpec{Command: []string{"sh", "-c", text}},
		reason: telev1.Reason_REASON_EXITED, codes: []int32{int32(code)}, stdout: []byte{}, stderr: []byte{}}
}

func short(c chance) plan {
	p := exits(c.between(0, 3)*c.between(0, 30), "echo out; echo err >&2")
	p.stdout, p.stderr = []byte("out\n"), []byte("err\n")
	return p
}

// numbered is what a writer of numbered lines writes.
func numbered(prefix string, n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "%s %d\n", prefix, i+1)
	}
	return b.Bytes()
}

// lines writes numbered lines to both streams, with pauses, for up to some seconds.
func lines(c chance) plan {
	n, burst := c.between(1, 4000), c.between(20, 400)
	p := exits(c.between(0, 1)*7, `i=0
while [ $i -lt %d ]; do
	i=$((i+1)); echo "out $i"; echo "err $i" >&2
	[ $((i %% %d)) -ne 0 ] || sleep 0.0%d
done`, n, burst, c.between(1, 9))
	p.stdout, p.stderr = numbered("out", n), numbered("err", n)
	return p
}

// stream writes numbered lines to one stream as fast as it can.
func stream(c chance) plan {
	n := c.between(1000, 150_000)
	p := exits(0, "exec seq -f 'out %%.0f' 1 %d", n)
	p.stdout = numbered("out", n)
	return p
}

// binary writes bytes of all kinds, in pieces, and their hash to the other stream.
func binary(c chance) plan {
	size, block := c.between(1, 2<<20), 1<<c.between(9, 18)
	p := exits(0, `head -c %d /dev/urandom >/tmp/data
dd if=/tmp/data bs=%d status=none; sleep 0.%d; sha256sum </tmp/data >&2`, size, block, c.between(0, 9))
	p.stdout, p.stderr = nil, nil
	p.check = func(stdout, stderr []byte) string {
		if want := fmt.Sprintf("%x  -\n", sha256.Sum256(stdout)); len(stdout) != size || string(stderr) != want {
			return fmt.Sprintf("%d bytes instead of %d, with hash %q; it said %q", len(stdout), size, want, stderr)
		}
		return ""
	}
	return p
}

func sleeper(c chance) plan {
	return exits(c.between(0, 1)*9, "sleep %.2f", float64(c.between(0, 300))/100)
}

func signaled(c chance) plan {
	p := exits(0, "kill -SEGV $$; sleep 10")
	p.reason, p.codes = telev1.Reason_REASON_SIGNALED, []int32{139}
	return p
}

// files leaves files in its work directory, if there is room for them.
func files(c chance) plan {
	p := exits(0, "mkdir -p a/b && head -c %d /dev/zero >a/b/c && ln -s /etc/passwd a/d && chmod 0 a/b || exit 9", c.between(1, 300_000))
	p.codes, p.stderr = []int32{0, 9}, nil
	return p
}

const forever = "echo ready; while :; do sleep 1000; done"

func stopped(c chance) plan {
	p := exits(0, forever)
	p.stop = &stopping{c.ms(0, 1500), c.ms(500, 8000), ""}
	p.reason, p.codes = telev1.Reason_REASON_STOPPED, []int32{143, 137}
	p.stdout, p.stderr = nil, nil // the shell may say that something was terminated
	if c.in(20) {
		p.stop.grace = 0
	}
	p.check = began
	return p
}

// began: a job that is stopped may not have come to its first line.
func began(stdout, _ []byte) string {
	if text := string(stdout); text != "" && text != "ready\n" && text != "ready\nbye\n" {
		return fmt.Sprintf("wrote %q", text)
	}
	return ""
}

func stoppedPolitely(c chance) plan {
	p := stopped(c)
	p.spec.Command[2] = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
	p.codes = []int32{3, 143, 137}
	return p
}

func stoppedDeaf(c chance) plan {
	p := stopped(c)
	p.spec.Command[2] = "trap '' TERM; " + forever
	p.stop.grace = c.ms(50, 600)
	if c.in(30) {
		p.stop.signal = "INT"
		p.codes = []int32{130, 137}
	}
	return p
}

func timeout(c chance) plan {
	p := exits(0, forever)
	p.spec.Timeout = durationpb.New(c.ms(100, 2000))
	p.reason, p.codes = telev1.Reason_REASON_TIMED_OUT, []int32{143, 137}
	p.stdout, p.stderr, p.check = nil, nil, began
	return p
}

func timeoutDeaf(c chance) plan {
	p := timeout(c)
	p.spec.Command[2] = "trap '' TERM; " + forever
	return p
}

// oom holds memory in tail, which keeps the last line until it knows that no other follows.
func oom(c chance) plan {
	p := exits(0, "head -c 100M /dev/zero | tail")
	p.spec.Command[2] = "head -c 100M /dev/zero | tail"
	p.spec.Limits = &telev1.Limits{Memory: "16M"}
	p.reason, p.codes, p.stdout, p.stderr = telev1.Reason_REASON_OOM_KILLED, []int32{137}, nil, nil
	return p
}

// forkBomb: the shell says that it cannot fork, and exits with 2 when that happens to itself.
func forkBomb(c chance) plan {
	p := exits(0, "bomb() { bomb | bomb & }; bomb; sleep 0.%d", c.between(1, 9))
	p.spec.Limits = &telev1.Limits{Pids: "24"}
	p.codes, p.stderr = []int32{0, 2}, nil
	return p
}

func orphans(c chance) plan {
	p := exits(5, `for i in 1 2 3; do setsid sh -c "trap '' TERM HUP; sleep 1000" & done; (sleep 1000 &); echo left; sleep 0.0%d`, c.between(1, 9))
	p.stdout = []byte("left\n")
	return p
}

func outputLimit(c chance) plan {
	limit := c.between(1, 300)
	p := exits(0, "exec yes")
	p.spec.OutputLimit = fmt.Sprintf("%dK", limit)
	p.reason, p.codes = telev1.Reason_REASON_OUTPUT_LIMIT, []int32{143, 137, 141}
	p.stdout = []byte(strings.Repeat("y\n", limit<<9))
	return p
}

// triedAgain fails at every try, as many as there are.
func triedAgain(c chance) plan {
	retries := c.between(1, 4)
	p := exits(c.between(1, 9), "echo try; sleep 0.0%d", c.between(1, 9))
	p.spec.Restart = &telev1.Restart{MaxRetries: uint32(retries), Backoff: durationpb.New(c.ms(10, 300))}
	p.stdout = nil
	p.check = func(stdout, _ []byte) string {
		n := strings.Count(string(stdout), "try\n") // of a try that could not be started, nothing is there
		if n < 1 || n > retries+1 || len(stdout) != n*len("try\n") {
			return fmt.Sprintf("%d tries at most, and it wrote %q", retries+1, stdout)
		}
		return ""
	}
	return p
}

// leaves leaves a file to be downloaded.
func leaves(c chance) plan {
	n := c.between(1, 500)
	p := exits(c.between(0, 1)*9, "yes | head -c %dK >left; sleep 0.0%d", n, c.between(1, 9))
	p.spec.Download = []string{"left"}
	p.leaves = []byte(strings.Repeat("y\n", n<<9))
	return p
}

func noCommand(chance) plan {
	return plan{never: true, spec: &telev1.JobSpec{Command: []string{"/usr/bin/no-such-command"}}}
}

func noCwd(chance) plan {
	return plan{never: true, spec: &telev1.JobSpec{Command: []string{"true"}, Cwd: "/no/such/directory"}}
}
