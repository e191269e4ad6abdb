package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A judge is a running go-judge, which is a server as tele is: sandboxes are made before they are asked
// for, and used again and again. It is called over HTTP on kept connections without TLS, and has no
// stored jobs; its cgroups limit memory and processes.
type judge struct {
	cmd     *exec.Cmd
	client  *http.Client
	url     string
	request []byte
}

// startJudge starts the one on the PATH; without one it returns nothing.
func startJudge(command string) (*judge, error) {
	path, err := exec.LookPath("go-judge")
	if err != nil {
		return nil, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := listener.Addr().String()
	_ = listener.Close() // its port is what was wanted
	j := &judge{url: "http://" + addr + "/run",
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: time.Minute}}
	limits := map[string]any{"args": []string{command}, "env": []string{"PATH=/usr/bin:/bin"},
		"files":    []any{map[string]any{"content": ""}, map[string]any{"name": "stdout", "max": 10240}, map[string]any{"name": "stderr", "max": 10240}},
		"cpuLimit": 10 * time.Second, "memoryLimit": 500 << 20, "procLimit": 512}
	if j.request, err = json.Marshal(map[string]any{"cmd": []any{limits}}); err != nil {
		return nil, err
	}
	j.cmd = exec.Command(path, "-http-addr", addr, "-parallelism", "32", "-pre-fork", "1", "-silent", "-cgroup-prefix", groupName+"judge")
	j.cmd.SysProcAttr = ownGroup
	j.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := j.cmd.Start(); err != nil {
		return nil, err
	}
	for range 5000 {
		if knock("tcp", addr) {
			return j, nil
		}
		time.Sleep(time.Millisecond)
	}
	j.close()
	return nil, errors.New("go-judge does not listen")
}

func (j *judge) close() {
	j.client.CloseIdleConnections()
	_ = j.cmd.Process.Signal(syscall.SIGTERM) // gone already is as good
	_ = j.cmd.Wait()                          // it was told to
}

func (j *judge) launch() error {
	response, err := j.client.Post(j.url, "application/json", bytes.NewReader(j.request))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte(`"status":"Accepted"`)) {
		return fmt.Errorf("go-judge: %s", text)
	}
	return nil
}

// inTurn lets callers launch, in all as often as said.
func inTurn(launches, callers int, launch func() error) (batch, error) {
	b := batch{times: make([]time.Duration, launches)}
	errs := make([]error, callers)
	var group sync.WaitGroup
	began := time.Now()
	for c := range callers {
		group.Go(func() {
			for i := c; i < launches && errs[c] == nil; i += callers {
				start := time.Now()
				errs[c] = launch()
				b.times[i] = time.Since(start)
			}
		})
	}
	group.Wait()
	b.total = time.Since(began)
	return b, errors.Join(errs...)
}
