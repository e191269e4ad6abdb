package cli

import (
	"context"
	"encoding/json"
	"time"
)

// Telerun are the commands of the symlink telerun, which answer in JSON.
type Telerun struct {
	Connection
	Start  TelerunStart  `cmd:"" help:"Start a command."`
	Status TelerunStatus `cmd:"" help:"Show a job."`
	Stop   TelerunStop   `cmd:"" help:"Stop a job."`
	Logs   TelerunLogs   `cmd:"" help:"Follow a job's output."`
}

// TelerunStart is `telerun start`.
type TelerunStart struct{ Spec }

// Run starts the command and prints its id.
func (s *TelerunStart) Run(ctx context.Context, t *Telerun, streams Streams) error {
	spec, err := s.proto(streams.In)
	if err != nil {
		return err
	}
	c, err := t.dial(ctx, streams)
	if err != nil {
		return err
	}
	secrets, err := s.secrets(streams.In, spec)
	if err != nil {
		return err
	}
	job, err := c.Start(ctx, spec, secrets...)
	if err != nil {
		return err
	}
	return json.NewEncoder(streams.Out).Encode(map[string]string{"job_id": job.Id})
}

// TelerunStatus is `telerun status`.
type TelerunStatus struct {
	ID string `arg:"" help:"The job."`
}

// Run prints the job's id, status and exit code.
func (s *TelerunStatus) Run(ctx context.Context, t *Telerun, streams Streams) error {
	c, err := t.dial(ctx, streams)
	if err != nil {
		return err
	}
	job, err := c.Get(ctx, s.ID)
	if err != nil {
		return err
	}
	return json.NewEncoder(streams.Out).Encode(struct {
		JobID    string `json:"job_id"`
		Status   string `json:"status"`
		ExitCode int32  `json:"exit_code"`
	}{job.Id, statusNames[job.Status], job.GetExitCode()})
}

// TelerunStop is `telerun stop`.
type TelerunStop struct {
	ID string `arg:"" help:"The job."`
}

// Run stops the job.
func (s *TelerunStop) Run(ctx context.Context, t *Telerun, streams Streams) error {
	stop := Stop{Connection: t.Connection, Grace: 10 * time.Second, IDs: []string{s.ID}}
	return stop.Run(ctx, Streams{Out: streams.Err, Err: streams.Err})
}

// TelerunLogs is `telerun logs`.
type TelerunLogs struct {
	ID string `arg:"" help:"The job."`
}

// Run follows the output.
func (l *TelerunLogs) Run(ctx context.Context, t *Telerun, streams Streams) error {
	logs := Logs{Connection: t.Connection, IDs: []string{l.ID}}
	return logs.Run(ctx, streams)
}
