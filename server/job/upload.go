package job

import (
	"github.com/telerun/tele/initproc"
	"github.com/telerun/tele/proto/files"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file is the files that a job comes with. They come through its input (input.go), in front of what is the
// command's: so what the server has of them is not lost when it is killed, and who sends them goes on where that
// was. What unpacks them is the agent (proto/files/start.go), which then becomes the command.

const (
	// mostUploads is how many places a request may name.
	mostUploads = 16
	// uploadPids is how many processes and threads the agent takes at most.
	uploadPids = 8
)

// uploadEnds is what exit codes of an agent that did not become the command say.
var uploadEnds = map[int32]string{
	125: "the files that it was to begin with could not be unpacked, or not be read where they came from",
	126: "its command cannot be executed",
	127: "there is no such command",
}

func checkUpload(spec *telev1.JobSpec) error {
	switch n := len(spec.Upload); {
	case n == 0:
		return nil
	case n > mostUploads:
		return bad("spec.upload", "are %d places, the most is %d", n, mostUploads)
	case spec.Terminal != nil:
		return bad("spec.upload", "does not go together with a terminal, at which files cannot be typed; "+
			"start a job that waits, like sleep 1000, then: tele cp FILES JOB: and tele exec -it JOB -- COMMAND")
	}
	for _, p := range spec.Upload {
		if err := checkPlace("spec.upload", p.GetPath(), p.GetName()); err != nil {
			return err
		}
	}
	for key, value := range spec.Env {
		if len(key)+len("=")+len(value) == maxString { // files.StartEnv puts a byte before it
			return bad("spec.env", "%s and its value have %d bytes, the most is %d where files come with a job", Quote(key), maxString, maxString-1)
		}
	}
	return nil
}

// hasInput tells whether a job has something to read, be it its files alone.
func hasInput(spec *telev1.JobSpec) bool { return spec.GetStdin() || len(spec.GetUpload()) > 0 }

// takeUpload has the job's files taken before its command begins.
func takeUpload(s *initproc.Spec, spec *telev1.JobSpec) {
	if len(spec.Upload) == 0 {
		return
	}
	var to []files.Place
	for _, p := range spec.Upload {
		to = append(to, files.Place{Path: p.Path, Name: p.Name})
	}
	s.Agent, s.Env, s.Command = true, files.StartEnv(s.Env), files.StartCommand(spec.Stdin, to, s.Command)
}
