package client

import (
	"sync"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
)

// prepare has protobuf build what it needs for the messages of a run. It does so when it first sees
// one, which takes longer than the call; while a connection is made and a command line is read, there
// is time.
var prepare = sync.OnceFunc(func() {
	spec := &telev1.JobSpec{Limits: &telev1.Limits{}}
	job := &telev1.Job{Spec: spec, Limits: []*telev1.LimitStatus{{}}, Usage: &telev1.Usage{}}
	for _, message := range []proto.Message{
		&telev1.StartRequest{Spec: spec}, &telev1.StartResponse{Job: job},
		&telev1.StreamOutputRequest{}, &telev1.StreamOutputResponse{Job: job},
	} {
		_ = proto.Size(message)
	}
})
