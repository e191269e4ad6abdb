package server

import (
	"context"
	"io"
	"time"

	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/proto/codec"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"github.com/telerun/tele/server/access"
	"github.com/telerun/tele/server/job"
	"github.com/telerun/tele/server/output"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// service is tele.v1.JobService; the proto file says what each method does.
type service struct {
	telev1.UnimplementedJobServiceServer
	table   *job.Table
	policy  Policy
	streams *access.Counter // open, by identity
	large   chan struct{}   // taken by the large buffers that are in use
}

// caller is who makes this call; the interceptors see to it that there is one.
func caller(ctx context.Context) access.Identity {
	id, _ := access.FromContext(ctx)
	return id
}

func (s *service) Start(ctx context.Context, r *telev1.StartRequest) (*telev1.StartResponse, error) {
	spec := r.GetSpec()
	if spec == nil {
		spec = &telev1.JobSpec{}
	}
	if err := job.Check(spec, r.Secrets...); err != nil {
		return nil, toStatus(err)
	}
	if err := s.policy.allows(caller(ctx), spec); err != nil {
		return nil, err
	}
	if r.DryRun {
		plan, err := s.table.Plan(spec, r.Secrets...)
		return &telev1.StartResponse{Plan: plan}, toStatus(err)
	}
	j, err := s.table.Start(ctx, caller(ctx).Name, r.IdempotencyKey, spec, r.Secrets...)
	if err != nil {
		return nil, toStatusOfStart(err, spec)
	}
	if r.Wait {
		ended, err := j.Wait(ctx)
		return &telev1.StartResponse{Job: ended}, toStatus(err)
	}
	return &telev1.StartResponse{Job: j.Snapshot()}, nil
}

func (s *service) find(ctx context.Context, id string) (*job.Job, error) {
	j, err := s.table.Get(id, caller(ctx).Sees)
	if err != nil {
		return nil, toStatusOf(err, id)
	}
	return j, nil
}

// takeStream counts a stream of the caller's until leave.
func (s *service) takeStream(ctx context.Context) (leave func(), err error) {
	leave, ok := s.streams.Acquire(caller(ctx).Name)
	if !ok {
		return nil, status.Error(codes.ResourceExhausted, "as many streams are open as one client may have; end one")
	}
	return leave, nil
}

// controlled finds a job that the caller may do something to.
func (s *service) controlled(ctx context.Context, id, what string) (*job.Job, error) {
	j, err := s.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if who := caller(ctx); !who.Controls(j.Owner()) {
		return nil, status.Errorf(codes.PermissionDenied, "%s may see this job, but not %s", who, what)
	}
	return j, nil
}

func (s *service) Get(ctx context.Context, r *telev1.GetRequest) (*telev1.GetResponse, error) {
	j, err := s.find(ctx, r.JobId)
	if err != nil {
		return nil, err
	}
	if r.Explain {
		now, cause := j.Explain()
		return &telev1.GetResponse{Job: now, Cause: cause}, nil
	}
	if r.LiveUsage {
		return &telev1.GetResponse{Job: j.Live(false)}, nil
	}
	return &telev1.GetResponse{Job: j.Snapshot()}, nil
}

func (s *service) List(ctx context.Context, r *telev1.ListRequest) (*telev1.ListResponse, error) {
	size := int(r.PageSize)
	if size == 0 {
		size = 100
	}
	if size < 0 || size > 1000 {
		return nil, toStatus(&job.BadRequest{Field: "page_size", Why: "must be from 0 to 1000"})
	}
	filter := job.Filter{Statuses: r.Statuses, Labels: r.Labels, Name: r.Name, Owner: r.User,
		Since: r.Since.AsDuration(), Command: r.Command}
	if err := filter.Check(); err != nil {
		return nil, toStatus(err)
	}
	list, next, err := s.table.List(caller(ctx).Sees, job.Page{Filter: filter, Brief: r.Brief, Live: r.LiveUsage, After: r.PageToken, Size: size})
	return &telev1.ListResponse{Jobs: list, NextPageToken: next}, toStatus(err)
}

func (s *service) Stop(ctx context.Context, r *telev1.StopRequest) (*telev1.StopResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "stop it")
	if err != nil {
		return nil, err
	}
	signal := job.OwnSignal
	if r.Signal != "" {
		if signal, err = job.ParseSignal("signal", r.Signal); err != nil {
			return nil, toStatus(err)
		}
	}
	grace := 10 * time.Second
	if r.Grace != nil {
		if err := job.CheckDuration("grace", r.Grace); err != nil {
			return nil, toStatus(err)
		}
		grace = r.Grace.AsDuration()
	}
	if err := j.Stop(signal, grace, caller(ctx).Name); err != nil {
		return nil, toStatus(err)
	}
	ended, err := j.Wait(ctx)
	return &telev1.StopResponse{Job: ended}, toStatus(err)
}

func (s *service) Signal(ctx context.Context, r *telev1.SignalRequest) (*telev1.SignalResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "send it signals")
	if err != nil {
		return nil, err
	}
	signal, err := job.ParseSignal("signal", r.Signal)
	if err != nil {
		return nil, toStatus(err)
	}
	if _, known := telev1.SignalTarget_name[int32(r.Target)]; !known {
		return nil, toStatus(&job.BadRequest{Field: "target", Why: "is unknown"})
	}
	if err := j.Signal(signal, r.Target, caller(ctx).Name); err != nil {
		return nil, toStatus(err)
	}
	return &telev1.SignalResponse{Job: j.Snapshot()}, nil
}

func (s *service) Resize(ctx context.Context, r *telev1.ResizeRequest) (*telev1.ResizeResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "resize its terminal")
	if err != nil {
		return nil, err
	}
	if err := job.CheckSize("size", r.Size); err != nil {
		return nil, toStatus(err)
	}
	return &telev1.ResizeResponse{}, toStatus(j.Resize(r.Size))
}

func (s *service) Wait(ctx context.Context, r *telev1.WaitRequest) (*telev1.WaitResponse, error) {
	j, err := s.find(ctx, r.JobId)
	if err != nil {
		return nil, err
	}
	ended, err := j.Wait(ctx)
	return &telev1.WaitResponse{Job: ended}, toStatus(err)
}

func (s *service) Remove(ctx context.Context, r *telev1.RemoveRequest) (*telev1.RemoveResponse, error) {
	j, err := s.controlled(ctx, r.JobId, "remove it")
	if err != nil {
		return nil, err
	}
	was := j.Snapshot() // what there is of it may be on disk
	if err := s.table.Remove(j); err != nil {
		return nil, toStatusOf(err, r.JobId)
	}
	return &telev1.RemoveResponse{Job: was}, nil
}

func (s *service) Prune(ctx context.Context, r *telev1.PruneRequest) (*telev1.PruneResponse, error) {
	age := r.OlderThan.AsDuration()
	if age < 0 {
		return nil, toStatus(&job.BadRequest{Field: "older_than", Why: "is negative"})
	}
	removed, err := s.table.Prune(caller(ctx).Controls, age)
	response := &telev1.PruneResponse{}
	for _, j := range removed {
		response.JobIds = append(response.JobIds, j.Id)
		if !j.OutputRemoved {
			response.OutputBytes += j.StdoutBytes + j.StderrBytes
		}
	}
	return response, toStatus(err)
}

func (s *service) Diff(ctx context.Context, r *telev1.DiffRequest) (*telev1.DiffResponse, error) {
	j, err := s.find(ctx, r.JobId)
	if err != nil {
		return nil, err
	}
	diff, err := j.Diff()
	return diff, toStatus(err)
}

func (s *service) ListTimings(context.Context, *telev1.ListTimingsRequest) (*telev1.ListTimingsResponse, error) {
	response := &telev1.ListTimingsResponse{EarlyEntry: initproc.EarlyEntry(),
		Warm: uint32(s.table.WarmSize()), WarmReady: uint32(len(s.table.Warm()))}
	for _, t := range s.table.Timings() {
		timing := &telev1.Timing{JobId: t.ID, BeganAt: timestamppb.New(t.Began), Cold: string(t.Cold), Template: t.Template}
		for _, m := range t.Marks {
			timing.Marks = append(timing.Marks, &telev1.Mark{Step: m.Step, After: durationpb.New(m.After)})
		}
		response.Timings = append(response.Timings, timing)
	}
	return response, nil
}

func (s *service) StreamOutput(r *telev1.StreamOutputRequest,
	stream grpc.ServerStreamingServer[telev1.StreamOutputResponse]) error {
	ctx, cancel := s.table.With(stream.Context())
	defer cancel()
	j, err := s.find(ctx, r.JobId)
	if err != nil {
		return err
	}
	leave, err := s.takeStream(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if r.TailLines != nil && r.Offset != 0 {
		return toStatus(&job.BadRequest{Field: "tail_lines", Why: "does not go together with offset"})
	}
	if r.Stream < 0 || r.Stream > telev1.OutputStream_OUTPUT_STREAM_STDERR {
		return toStatus(&job.BadRequest{Field: "stream", Why: "is unknown"})
	}
	options := output.ReadOptions{Stream: output.Stream(r.Stream), Offset: int64(r.Offset),
		Tail: int(r.GetTailLines()), Follow: r.Follow, KeepChunks: r.KeepChunks}
	if r.Since != nil {
		if err := r.Since.CheckValid(); err != nil {
			return toStatus(&job.BadRequest{Field: "since", Why: "is no time"})
		}
		options.Since = r.Since.AsTime()
	}
	reader, err := j.Output(options)
	if err != nil {
		return toStatus(err)
	}
	defer reader.Close()
	if r.Follow && caller(ctx).Controls(j.Owner()) {
		defer j.Follow()()
	}
	buffers := &buffers{large: s.large, gone: access.Gone(ctx)}
	defer buffers.wait()
	return send(ctx, j, reader, stream, buffers)
}

func send(ctx context.Context, j *job.Job, reader *output.Reader,
	stream grpc.ServerStreamingServer[telev1.StreamOutputResponse], buffers *buffers) error {
	for {
		err := sendNext(ctx, reader, stream, buffers)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if !reader.Complete() {
		return nil
	}
	ended, err := j.Wait(ctx)
	if err != nil {
		return toStatus(err)
	}
	if ended.Reason == telev1.Reason_REASON_OUTPUT_LIMIT {
		err := stream.Send(&telev1.StreamOutputResponse{Offset: uint64(reader.Offset()),
			Event: telev1.OutputEvent_OUTPUT_EVENT_LIMIT_REACHED})
		if err != nil {
			return err
		}
	}
	return stream.Send(&telev1.StreamOutputResponse{Job: ended})
}

// sendNext sends one chunk, or returns io.EOF.
func sendNext(ctx context.Context, reader *output.Reader,
	stream grpc.ServerStreamingServer[telev1.StreamOutputResponse], buffers *buffers) error {
	size, err := reader.Await(ctx)
	if err == io.EOF {
		return err
	}
	if err != nil {
		return toStatus(err)
	}
	buf := buffers.get(size)
	read, err := reader.Next(ctx, *buf)
	if err != nil {
		buffers.Put(buf)
		return toStatus(err)
	}
	*buf = read.Data
	chunk := &codec.Chunk{Data: mem.BufferSlice{mem.NewBuffer(buf, buffers)},
		Message: &telev1.StreamOutputResponse{Stream: telev1.OutputStream(read.Stream),
			Offset: uint64(read.Offset), Time: timestamppb.New(read.Time)}}
	defer chunk.Free()
	return stream.SendMsg(chunk)
}
