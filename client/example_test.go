package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Run a command on the server that TELE_ADDR names, or on that of this machine, and have what it wrote.
func Example() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	out, err := c.Command("echo", "hello").Output()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", out)
	// Output: hello
}

// Another machine's server, as a user that `tele certs issue` made there.
func ExampleDial() {
	c, err := client.Dial(client.Options{Addr: "build.example.org:50051",
		CA: "ca.crt", Cert: "alice.crt", Key: "alice.key"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

// Show the output as it comes, with limits and an environment, and tell how it ended.
func ExampleCmd_Run() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cmd := c.Command("sh", "-c", "echo building $TARGET; exit 3")
	cmd.Env = []string{"TARGET=all"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Spec = &telev1.JobSpec{Limits: &telev1.Limits{Cpu: "2", Memory: "1G"}}
	err = cmd.Run()
	var exit *client.ExitError
	switch {
	case errors.As(err, &exit):
		fmt.Println("exit code", exit.ExitCode())
	case err != nil:
		log.Fatal(err) // it could not be started, or the connection was lost
	}
	// Output:
	// building all
	// exit code 3
}

// What a failed command wrote to its standard error is in the error.
func ExampleCmd_Output() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Command("sh", "-c", "echo 'no such target' >&2; exit 2").Output()
	var exit *client.ExitError
	if errors.As(err, &exit) {
		fmt.Printf("%d: %s", exit.ExitCode(), exit.Stderr)
	}
	// Output: 2: no such target
}

// Input from a reader.
func ExampleCmd_CombinedOutput() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cmd := c.Command("tr", "a-z", "A-Z")
	cmd.Stdin = strings.NewReader("some input\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", out)
	// Output: SOME INPUT
}

// Write to a command while it runs.
func ExampleCmd_StdinPipe() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cmd := c.Command("sort")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		log.Fatal(err)
	}
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	for _, word := range []string{"two", "one"} {
		fmt.Fprintln(stdin, word)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// one
	// two
}

// Read what a command writes while it runs. Wait comes when all is read.
func ExampleCmd_StdoutPipe() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	cmd := c.Command("seq", "3")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	all, err := io.ReadAll(stdout)
	if err != nil {
		log.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Fields(string(all)))
	// Output: [1 2 3]
}

// A command that takes too long gets time to end by itself.
func ExampleClient_CommandContext() {
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	cmd := c.CommandContext(ctx, "sleep", "1000")
	cmd.Cancel = func() error {
		_, err := c.Stop(context.Background(), cmd.Job.Id, "TERM", 2*time.Second)
		return err
	}
	err = cmd.Run()
	fmt.Println(err != nil, ctx.Err())
	// Output: true context deadline exceeded
}

// A job goes on without its client. Here one is started and its output is read by its id, which may be done
// by another program and at another time.
func ExampleClient_Start() {
	ctx := context.Background()
	c, err := client.Dial(client.Options{Addr: os.Getenv("TELE_ADDR")})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	job, err := c.Start(ctx, &telev1.JobSpec{Command: []string{"echo", "on its own"}})
	if err != nil {
		log.Fatal(err)
	}
	job, err = c.Output(ctx, job.Id, client.OutputOptions{Follow: true}, os.Stdout, os.Stderr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("exit code", job.GetExitCode())
	// Output:
	// on its own
	// exit code 0
}

// All running jobs that this client may see, each stopped with two seconds to end by itself.
func ExampleClient_Stop() {
	ctx := context.Background()
	c, err := client.Dial(client.Options{Addr: "unix:/var/lib/tele/tele.sock"})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	jobs, err := c.List(ctx, client.ListOptions{Statuses: []telev1.JobStatus{telev1.JobStatus_JOB_STATUS_RUNNING}})
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range jobs {
		job, err := c.Stop(ctx, job.Id, "TERM", 2*time.Second)
		if status.Code(err) == codes.NotFound {
			continue // removed since
		} else if err != nil {
			log.Fatal(err)
		}
		fmt.Println(job.Id, job.Reason, job.GetExitCode())
	}
}

// A job that is needed rests while something more urgent runs, and gets the time for it back.
func ExampleClient_Pause() {
	ctx := context.Background()
	c, err := client.Dial(client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Pause(ctx, "nightly"); err != nil { // by its name
		log.Fatal(err)
	}
	began := time.Now()
	if _, err := c.Run(ctx, &telev1.JobSpec{Command: []string{"make", "release"}}); err != nil {
		log.Fatal(err)
	}
	job, err := c.Resume(ctx, "nightly")
	if err != nil {
		log.Fatal(err)
	}
	timeout := job.Spec.GetTimeout().AsDuration() + time.Since(began)
	if _, err := c.Update(ctx, job.Id, nil, &timeout); err != nil {
		log.Fatal(err)
	}
}
