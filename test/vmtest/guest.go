package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// guest is this program in the machine: it runs the test binaries of the listed packages.
func guest(list string) (int, error) {
	data, err := os.ReadFile(list)
	if err != nil {
		return 0, err
	}
	var packages []testPackage
	if err := json.Unmarshal(data, &packages); err != nil {
		return 0, fmt.Errorf("read %s: %w", list, err)
	}
	passed, failed, skipped := 0, 0, 0
	for _, p := range packages {
		r, err := p.run()
		if err != nil {
			return 0, fmt.Errorf("run the tests of %s: %w", p.Name, err)
		}
		passed, failed, skipped = passed+r.passed, failed+r.failed, skipped+len(r.skips)
	}
	if skipped > 0 {
		fmt.Printf("%d skipped\n", skipped)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1, nil
	}
	return 0, nil
}

// run runs the tests of one package and prints how it went.
func (p testPackage) run() (results, error) {
	output, err := os.CreateTemp("", "vmtest-")
	if err != nil {
		return results{}, err
	}
	defer os.Remove(output.Name())
	defer output.Close()
	start := time.Now()
	ok, err := p.execute(output)
	if err != nil {
		return results{}, err
	}
	took := time.Since(start)
	text, err := os.ReadFile(output.Name())
	if err != nil {
		return results{}, err
	}
	r := readResults(string(text), ok)
	r.print(p.Name, took, string(text))
	return r, nil
}

// execute reports whether the test binary was content. Its output goes to a file: of a pipe, one
// would wait for the end until the last process that a test left behind has closed it.
func (p testPackage) execute(output *os.File) (bool, error) {
	cmd := exec.Command(p.Binary,
		"-test.v=test2json", // verbose, with a mark before each line that is not a test's own
		"-test.paniconexit0",
		"-test.run="+os.Getenv("VM_RUN"),
		"-test.timeout="+cmp.Or(os.Getenv("VM_TIMEOUT"), "15m"))
	cmd.Dir = p.Dir
	cmd.Stdout, cmd.Stderr = output, output
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		fmt.Fprintf(output, "%s: %v\n", p.Name, err)
		return false, nil
	}
	return err == nil, err
}
