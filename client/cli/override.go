package cli

import (
	"strings"

	"github.com/alecthomas/kong"
	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// AfterApply is called by kong with all flags set. What was given beside a job file goes before it, also where
// it is what a flag has by default.
func (s *Spec) AfterApply(parsed *kong.Context) error {
	if s.File == "" {
		return nil
	}
	s.given = nil
	for _, part := range parsed.Path {
		if part.Flag != nil {
			s.given = append(s.given, part.Flag.Name)
		}
	}
	return nil
}

// over is the job of the file with what the flags say on top: of maps and lists both, else what was given.
func (s *Spec) over(file, flags *telev1.JobSpec) *telev1.JobSpec {
	limits := file.Limits
	if limits == nil {
		limits = &telev1.Limits{}
	}
	for _, flag := range s.given {
		names := []string{strings.ReplaceAll(flag, "-", "_")}
		switch flag {
		case "interactive":
			names = []string{"stdin"}
		case "tty":
			names = []string{"terminal"}
		case "net":
			names = []string{"network"}
		case "warn":
			names = []string{"warn_signal", "warn_before"}
		case "kill-on-disconnect":
			names = []string{"stop_when_left"}
		}
		for _, name := range names {
			forget(file.ProtoReflect(), name)
			forget(limits.ProtoReflect(), name)
		}
	}
	if len(flags.Command) > 0 {
		file.Command = nil
	}
	proto.Merge(file, flags)
	return file
}

// forget clears a field of m that has one value.
func forget(m protoreflect.Message, name string) {
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd != nil && !fd.IsList() && !fd.IsMap() {
		m.Clear(fd)
	}
}
