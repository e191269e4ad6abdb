package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A contender is something that launches commands. Those of one table take turns.
type contender struct {
	name  string
	run   func(launches, callers int) (batch, error)
	close func()
	slow  bool
}

// The contenders that goals are about.
const (
	nameBare     = "the kernel: bare"
	nameFull     = "the kernel: full"
	nameTemplate = "the kernel: full, from a template"
	nameFilter   = "the kernel: full, with a filter"
	nameCall     = "the command alone, by a call"
	nameCold     = "tele, cold"
	nameWarm     = "tele, warm"
	namePlain    = "bubblewrap"
	nameSame     = "bubblewrap, tele's isolation"
)

// gather makes the contenders of the launch tables, and leaves out whoever fails.
func (b *bench) gather(command string) error {
	command = "/bin/" + command
	anchor := filepath.Join(b.dir, "root")
	if err := os.Mkdir(anchor, 0o700); err != nil {
		return err
	}
	full := append(b.sandbox.limitOptions(anchor), command)
	for _, l := range []struct {
		name string
		args []string
	}{
		{"the command alone", []string{"exec", command}},
		{nameBare, []string{"bare", command}},
		{nameFull, append([]string{"full"}, full...)},
		{nameFilter, append([]string{"full", "-s"}, full...)},
		{nameTemplate, append([]string{"template"}, full...)},
	} {
		if err := b.contend(l.name, false, l.args...); err != nil {
			return err
		}
	}
	call, err := startCall(filepath.Join(b.cold.dir, "certs"), command)
	if err != nil {
		return err
	}
	b.contenders = append(b.contenders, &contender{name: nameCall, close: call.close,
		run: func(launches, callers int) (batch, error) { return inTurn(launches, callers, call.launch) }})
	b.contenders = append(b.contenders, &contender{name: nameCold, run: b.cold.run, close: func() {}})
	if b.warm != nil {
		b.contenders = append(b.contenders, &contender{name: nameWarm, run: b.warm.run, close: func() {}})
	}
	var working []peer
	for _, p := range b.peers {
		line, err := p.command(b.dir, b.shm, command)
		if err != nil {
			return err
		}
		err = boxes(p.init, int(slices.Max(callerCounts)))
		if err == nil {
			err = b.contend(p.name, p.slow, p.limitArgs(line)...)
		}
		if err != nil {
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s: %v", p.name, err))
			continue
		}
		working = append(working, p)
	}
	b.peers = working
	judge, err := startJudge(command)
	if judge == nil && err == nil {
		err = errors.New("not on the PATH")
	}
	if err == nil {
		if err = judge.launch(); err != nil {
			judge.close()
		}
	}
	if err != nil {
		b.results.Missing = append(b.results.Missing, fmt.Sprintf("go-judge: %v", err))
		return nil
	}
	b.contenders = append(b.contenders, &contender{name: "go-judge", close: judge.close,
		run: func(launches, callers int) (batch, error) { return inTurn(launches, callers, judge.launch) }})
	b.results.Versions = append(b.results.Versions, b.version("go-judge", []string{judge.cmd.Path, "-version"}, judge.cmd.Args))
	return nil
}

// contend adds a contender that limit.c runs, once it has shown that it works.
func (b *bench) contend(name string, slow bool, args ...string) error {
	l, err := startLimit(b.limit, nil, args...)
	if err != nil {
		return err
	}
	if _, err := l.run(2, 1); err != nil {
		return err
	}
	b.contenders = append(b.contenders, &contender{name: name, run: l.run, close: l.close, slow: slow})
	return nil
}

// turns lets contenders launch in turn, round by round, and returns all samples by name.
func turns(contenders []*contender, rounds, launches, callers int, between func()) (map[string]*samples, error) {
	all := map[string]*samples{}
	for round := range rounds {
		// Nobody always comes after the same one.
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			if c.slow && round%4 != 0 {
				continue
			}
			if all[c.name] == nil {
				all[c.name] = &samples{}
			}
			between()
			got, err := c.run(launches, callers)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			all[c.name].add(got)
		}
	}
	return all, nil
}

// settle leaves the kernel and the servers time for what they do after a batch: namespaces to take
// down, a pool to fill. It is to be nobody else's loss.
func settle() { time.Sleep(25 * time.Millisecond) }

// apart returns when this much time has gone since it last did.
func apart(space time.Duration) func() {
	next := time.Now()
	return func() {
		time.Sleep(time.Until(next))
		next = time.Now().Add(space)
	}
}

// table makes one of the samples, in the order of the contenders.
func table(title string, contenders []*contender, all map[string]*samples) Table {
	t := Table{Title: title}
	for _, c := range contenders {
		if s := all[c.name]; s != nil {
			t.Rows = append(t.Rows, s.row(c.name))
		}
	}
	return t
}

// launches are one after another: as fast as it goes, and 20 ms apart, which shows what the kernel
// does at leisure.
func (b *bench) launches() error {
	close, err := turns(b.contenders, b.many(30, 2), b.many(20, 5), 1, settle)
	if err != nil {
		return err
	}
	b.results.BackToBack = table("back to back", b.contenders, close)
	spaced, err := turns(b.contenders, b.many(500, 8), 1, 1, apart(20*time.Millisecond))
	if err != nil {
		return err
	}
	b.results.Spaced = table("20 ms apart", b.contenders, spaced)

	goal := func(what, must, aim string, all map[string]*samples, above, below string, part float64) {
		if all[above] == nil || all[below] == nil {
			b.results.goal(what, must, aim, Ratio{})
			return
		}
		b.results.goal(what, must, aim, ratio(all[above].times, all[below].times, part))
	}
	goal("launch and wait, cold ÷ the full limit", "≤ 1.6", "≤ 1.25", close, nameCold, nameFull, 0.5)
	goal("the same ÷ the full limit from a template", "", "", close, nameCold, nameTemplate, 0.5)
	goal("a command by a call, no sandbox ÷ the bare limit", "", "", close, nameCall, nameBare, 0.5)
	goal("launch and wait, warm ÷ the bare limit", "≤ 1.4", "≤ 1.1", close, nameWarm, nameBare, 0.5)
	goal("cold ÷ bubblewrap with the same isolation", "≤ 0.7", "≤ 0.5", close, nameCold, nameSame, 0.5)
	goal("warm ÷ bubblewrap with the same isolation", "≤ 0.5", "≤ 0.33", close, nameWarm, nameSame, 0.5)
	goal("cold ÷ plain bubblewrap", "", "", close, nameCold, namePlain, 0.5)
	goal("p99, 20 ms apart, cold ÷ the full limit's", "≤ 1.5", "≤ 1.1", spaced, nameCold, nameFull, 0.99)
	goal("p99, 20 ms apart, warm ÷ the full limit's", "≤ 1.5", "≤ 1.1", spaced, nameWarm, nameFull, 0.99)
	goal("p50, 20 ms apart, cold ÷ the full limit's", "", "", spaced, nameCold, nameFull, 0.5)
	goal("p50, 20 ms apart, warm ÷ the full limit's", "", "", spaced, nameWarm, nameFull, 0.5)
	return nil
}

var callerCounts = []float64{1, 2, 8, 32}

// callers launch at the same time, each one after another.
func (b *bench) callers() error {
	for _, count := range callerCounts {
		callers := int(count)
		launches := b.many(96, 32)
		all, err := turns(b.contenders, b.many(4, 1), launches, callers, settle)
		if err != nil {
			return err
		}
		t := table(fmt.Sprintf("%d callers", callers), b.contenders, all)
		b.results.Callers = append(b.results.Callers, t)
		if callers == 8 {
			for _, name := range []string{nameCold, nameWarm} {
				b.results.goal("jobs/s at 8 callers, "+name[6:]+" ÷ the full limit's", "≥ 0.6", "≥ 0.8",
					of(t.perSecond(name), t.perSecond(nameFull)))
			}
		}
	}
	return nil
}

// commands are what people type: the client's start is part of it.
func (b *bench) commands() error {
	var contenders []*contender
	defer func() {
		for _, c := range contenders {
			c.close()
		}
	}()
	s := b.cold
	if b.warm != nil {
		s = b.warm // as the server is without flags
	}
	env := []string{"HOME=/root", "TELE_STATE_DIR=" + s.dir}
	const socket, overTLS = "tele run, local socket", "tele run, mutual TLS"
	add := func(name string, args ...string) error {
		l, err := startLimit(b.limit, env, append([]string{"exec"}, args...)...)
		if err != nil {
			return err
		}
		contenders = append(contenders, &contender{name: name, run: l.run, close: l.close})
		_, err = l.run(2, 1)
		return err
	}
	for _, c := range [][]string{
		{"/bin/true alone", "/bin/true"},
		{socket, b.tele, "run", "--addr", s.socket(), "--", "true"},
		{overTLS, b.tele, "run", "--addr", s.addr, "--", "true"},
		{"tele version", b.tele, "version"},
	} {
		if err := add(c[0], c[1:]...); err != nil {
			return err
		}
	}
	for _, p := range b.peers {
		if p.bundle || p.slow {
			continue
		}
		line, err := p.command(b.dir, b.shm, "/bin/true")
		if err != nil {
			return err
		}
		if err := add(p.name, line...); err != nil {
			return err
		}
	}
	all, err := turns(contenders, b.many(20, 2), b.many(15, 5), 1, settle)
	if err != nil {
		return err
	}
	b.results.Commands = table("as a command", contenders, all)
	if all[namePlain] == nil {
		return nil
	}
	b.results.goal("tele run -- true, local socket ÷ bwrap as a command", "≤ 1.2", "≤ 0.9", ratio(all[socket].times, all[namePlain].times, 0.5))
	b.results.goal("the same ÷ bwrap with the same isolation", "", "", ratio(all[socket].times, all[nameSame].times, 0.5))
	b.results.goal("tele run -- true, mutual TLS ÷ bwrap as a command", "", "", ratio(all[overTLS].times, all[namePlain].times, 0.5))
	return nil
}
