package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/telerun/tele/client"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Run a command on the server of this machine, show its output as it comes, and end as it ended.
func Example() {
	ctx := context.Background()
	c, err := client.Dial(client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	job, err := c.Start(ctx, &telev1.JobSpec{
		Command: []string{"make", "test"},
		Limits:  &telev1.Limits{Cpu: "2", Memory: "1G"},
	})
	if err != nil {
		log.Fatal(err)
	}
	job, err = c.Output(ctx, job.Id, client.OutputOptions{Follow: true}, os.Stdout, os.Stderr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(job.Message, job.GetExitCode())
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
