package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkCommand is what a user waits for: `tele run -- true` as a command, by the socket and over
// TLS, in turn with `tele version`, which is no more than the program's start, and with bubblewrap when
// it is there. It reports medians, and those of tele as ratios to bubblewrap's.
//
//	go test -run '^$' -bench Command -benchtime 100x .
func BenchmarkCommand(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	program, addr := buildForEntry(b, runtime.GOARCH), freeAddr(b)
	state := filepath.Join(b.TempDir(), "state")
	b.Setenv("TELE_STATE_DIR", state)
	b.Setenv("TELE_ADDR", "")
	serveFor(b, program, addr)
	commands := []struct {
		name string
		args []string
	}{
		{"bwrap", strings.Fields("bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev -- true")},
		{"start", []string{program, "version"}},
		{"socket", []string{program, "run", "--", "true"}},
		{"tls", []string{program, "run", "--addr", addr, "--", "true"}},
	}
	if _, err := exec.LookPath("bwrap"); err != nil {
		commands = commands[1:]
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, c := range commands {
			began := time.Now()
			if out, err := exec.Command(c.args[0], c.args[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%v: %v\n%s", c.args, err, out)
			}
			took[c.name] = append(took[c.name], time.Since(began))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return took[name][len(took[name])/2].Seconds()
	}
	for _, c := range commands {
		b.ReportMetric(median(c.name)*1e3, c.name+"-ms")
		if took["bwrap"] != nil && c.name != "bwrap" {
			b.ReportMetric(median(c.name)/median("bwrap"), c.name+"/bwrap")
		}
	}
	b.ReportMetric(0, "ns/op") // of all together, of no use
}

// serveFor starts a server of the program's and ends it with the benchmark.
func serveFor(b *testing.B, program, addr string) {
	server := exec.Command(program, "serve", "--addr", addr, "--stop-jobs-on-exit")
	stderr, err := server.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	ended := make(chan struct{})
	b.Cleanup(func() {
		_ = server.Process.Signal(os.Interrupt) // gone already is as good
		<-ended
		_ = server.Wait() // what it did is no part of this
	})
	listening := false
	for !listening && lines.Scan() {
		listening = strings.Contains(lines.Text(), `"layout"`)
	}
	go func() {
		defer close(ended)
		for lines.Scan() { // or the pipe would fill
		}
	}()
	if !listening {
		b.Fatal("the server did not start")
	}
}
