package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// tokenName is the environment variable by which a job, and its processes, are known again.
const tokenName = "CHAOS_TOKEN"

// A life is one submission: the job that came of it, and all who look at it.
type life struct {
	world  *world
	chance chance
	token  string
	kind   kind
	plan   plan

	// What became of the submission; written by the one goroutine of live.
	id      string // of the job, when it was acknowledged
	refused error  // the answer, when there is surely no job
	runs    []*process
	readers []*follower
	removed bool
	judged  *telev1.Job // as it was when it had ended

	mu sync.Mutex
	at string // where live is; empty when it is over
}

func (w *world) newLife(n int) *life {
	l := &life{world: w, chance: newChance(w.options.seed, fmt.Sprint("job ", n)), token: fmt.Sprintf("%s-%d.", w.name, n)}
	l.kind = pick(l.chance)
	l.plan = l.kind.make(l.chance)
	l.plan.spec.Env = map[string]string{tokenName: l.token}
	l.step("submit")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs[l.token] = l
	return l
}

func (l *life) step(at string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = at
}

func (l *life) where() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// wrong notes a violation of this job's.
func (l *life) wrong(format string, args ...any) {
	l.world.figures.violation("%s %s, job %s: %s", l.token, l.kind.name, l.id, fmt.Sprintf(format, args...))
}

// live submits the job, lets clients follow it, stops it where it is to be stopped, waits for its end
// and looks at it.
func (l *life) live(trouble context.Context) {
	defer l.step("")
	w := l.world
	w.figures.add("submits", 1)
	var clients sync.WaitGroup
	switch n := l.chance.IntN(100); {
	case n < 60:
		l.submit(trouble)
	case n < 75, l.plan.leaves != nil: // which `tele run` would put here
		l.submitByProcess(trouble, "start")
	default: // it stays, follows, and ends as the job does
		l.submitByProcess(trouble, "run")
	}
	switch {
	case l.refused != nil:
		w.figures.add("submits refused", 1)
		return
	case l.id == "":
		w.figures.add("submits without an answer", 1)
		return
	case l.plan.never:
		l.wrong("it was started, although its command cannot be run")
	}
	w.figures.add("submits acknowledged", 1)
	l.step("follow")
	for range l.chance.between(0, 3) {
		l.follow(trouble, &clients)
	}
	if l.chance.in(25) {
		l.process(trouble, &clients, true, "wait", l.id)
	}
	if l.plan.stop != nil {
		l.step("stop")
		l.stop(trouble)
	}
	l.step("wait")
	ended, err := w.witness.Wait(context.Background(), l.id)
	if err != nil {
		l.wrong("wait: %v", err)
		return
	}
	l.step("wait for its clients")
	for _, p := range l.runs {
		clients.Go(p.wait)
	}
	if !finished(&clients, time.Minute) {
		l.wrong("a client does not come to its end, a minute after the job")
		return
	}
	l.step("judge")
	l.judge(ended)
	if l.chance.in(80) || w.tight() {
		l.step("remove")
		l.remove()
	}
}

// remote is one of the library's clients.
func (l *life) remote() *client.Client {
	return l.world.remote[l.chance.IntN(len(l.world.remote))]
}

// submit uses the library, which repeats the request until there is an answer.
func (l *life) submit(trouble context.Context) {
	c := l.remote()
	if l.chance.in(20) {
		c = l.world.witness
	}
	job, err := c.Start(context.Background(), proto.CloneOf(l.plan.spec))
	l.answer(job.GetId(), err)
}

// answer takes down what Start said.
func (l *life) answer(id string, err error) {
	switch code := status.Code(err); {
	case err == nil:
		l.id = id
	case code == codes.Unavailable || errors.As(err, new(*client.LostError)):
		// The request may have arrived.
	default:
		l.refused = err
		l.world.figures.add("refused: "+code.String(), 1)
		if !l.plan.never && code != codes.ResourceExhausted && !l.excused(err) {
			l.wrong("refused: %v", err)
		}
	}
}

// excused: an init that was killed before its command ran fails the start.
func (l *life) excused(err error) bool {
	return l.world.figures.get("inits killed") > 0 && initGone(err.Error())
}

func initGone(text string) bool {
	return strings.Contains(text, "the sandbox's init is gone") || strings.Contains(text, "to the sandbox's init")
}

// stop stops the job, through a client that may be killed meanwhile; then another tries.
func (l *life) stop(trouble context.Context) {
	s := l.plan.stop
	pause(trouble, s.after)
	if l.chance.in(30) {
		args := []string{"stop", "--grace", s.grace.String(), l.id}
		if s.signal != "" {
			args = append(args, "--signal", s.signal)
		}
		if p := l.startProcess(trouble, false, args...); p != nil {
			if p.wait(); p.code == 0 {
				return
			}
		}
	}
	job, err := l.remote().Stop(context.Background(), l.id, s.signal, s.grace)
	if err != nil {
		l.wrong("stop: %v", err)
	} else if job.GetEndedAt() == nil {
		l.wrong("stop returned a job that has not ended: %s", brief(job))
	}
}

// remove removes the job; there must be nothing of it then.
func (l *life) remove() {
	c := l.remote()
	if _, err := c.Remove(context.Background(), l.id); err != nil {
		l.wrong("remove: %v", err)
		return
	}
	l.removed = true
	l.world.figures.add("jobs removed", 1)
	if job, err := c.Get(context.Background(), l.id); status.Code(err) != codes.NotFound {
		l.wrong("is there after it was removed: %s, %v", brief(job), err)
	}
}
