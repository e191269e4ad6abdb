package job

import (
	"path"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What a request may ask for at most. Where the kernel has a limit of its own, a job that is over it
// could not begin; here it costs nothing to say so.
const (
	// MaxStrings is for the command and the environment together: each string with its closing NUL
	// and its pointer, as execve(2) counts them.
	MaxStrings = 1 << 20
	pointer    = 8
	// maxString is the kernel's MAX_ARG_STRLEN without the NUL. Of the environment it is for
	// NAME=VALUE.
	maxString = 128<<10 - 1
	// maxPath is PATH_MAX without the NUL, maxName is NAME_MAX.
	maxPath = unix.PathMax - 1
	maxName = 255
	// maxSearch is how many directories PATH may name: each is a step of the plan.
	maxSearch = 1024
	// maxLimitText is the length of a limit as text. The longest number has 19 digits.
	maxLimitText = 64
	// maxDuration is no more than a bound: 100 years. Go's own is 292 years, protobuf's 10,000.
	maxDuration = 100 * 365 * 24 * time.Hour
)

// checkSpec finds what is wrong with a request before anything is made.
func checkSpec(spec *telev1.JobSpec) error {
	if len(spec.GetCommand()) == 0 || spec.Command[0] == "" {
		return bad("spec.command", "the command is empty; say what to run: tele run -- COMMAND [ARG…]")
	}
	if err := checkStrings(spec); err != nil {
		return err
	}
	if err := checkProgram(spec); err != nil {
		return err
	}
	if spec.Cwd != "" && !isPath(spec.Cwd) {
		return bad("spec.cwd", "%s is no absolute path of at most %d bytes", Quote(spec.Cwd), maxPath)
	}
	if err := checkPlaces(spec); err != nil {
		return err
	}
	if size := spec.Terminal; size != nil {
		if err := CheckSize("spec.terminal", size); err != nil {
			return err
		}
	}
	if _, known := telev1.Network_name[int32(spec.Network)]; !known {
		return bad("spec.network", "%d is unknown", spec.Network)
	}
	if err := checkNames(spec); err != nil {
		return err
	}
	if err := checkTimeout("spec.timeout", spec.Timeout); err != nil {
		return err
	}
	if err := checkRestart(spec); err != nil {
		return err
	}
	if err := checkDownload(spec); err != nil {
		return err
	}
	if err := checkUpload(spec); err != nil {
		return err
	}
	return checkSignals(spec)
}

func checkTimeout(field string, d *durationpb.Duration) error {
	if d == nil {
		return nil
	}
	if err := CheckDuration(field, d); err != nil {
		return err
	}
	if d := d.AsDuration(); d != 0 && d < time.Millisecond {
		return bad(field, "%s is too short, the least is 1ms", d)
	}
	return nil
}

// checkStrings looks at the command and the environment as execve(2) will. A string that is not
// UTF-8 cannot come over the wire; this is for those that come another way.
func checkStrings(spec *telev1.JobSpec) error {
	total := 0
	for i, arg := range spec.Command {
		switch {
		case len(arg) > maxString:
			return bad("spec.command", "argument %d has %d bytes, the most is %d", i, len(arg), maxString)
		case strings.Contains(arg, "\x00"):
			return bad("spec.command", "argument %d, %s, has a NUL in it", i, Quote(arg))
		case !utf8.ValidString(arg):
			return bad("spec.command", "argument %d, %s, is not UTF-8", i, Quote(arg))
		}
		total += len(arg) + 1 + pointer
	}
	for key, value := range spec.Env {
		size := len(key) + len("=") + len(value)
		switch {
		case size > maxString:
			return bad("spec.env", "%s and its value have %d bytes, the most is %d", Quote(key), size, maxString)
		case key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(value, "\x00"):
			return bad("spec.env", "%s=%s is no environment variable", Quote(key), Quote(value))
		case !utf8.ValidString(key) || !utf8.ValidString(value):
			return bad("spec.env", "%s=%s is not UTF-8", Quote(key), Quote(value))
		}
		total += size + 1 + pointer
	}
	if total > MaxStrings {
		return bad("spec.command", "%d arguments and %d environment variables take %d bytes, the most is %d; "+
			"give large data in a file", len(spec.Command), len(spec.Env), total, MaxStrings)
	}
	return nil
}

// checkProgram bounds the search for the program, which is a step for each directory of PATH.
func checkProgram(spec *telev1.JobSpec) error {
	program := spec.Command[0]
	if strings.Contains(program, "/") {
		if len(program) > maxPath {
			return bad("spec.command", "the program's path has %d bytes, the most is %d", len(program), maxPath)
		}
		return nil
	}
	if len(program) > maxName {
		return bad("spec.command", "the program's name has %d bytes, the most is %d", len(program), maxName)
	}
	if n := strings.Count(spec.Env["PATH"], ":") + 1; n > maxSearch {
		return bad("spec.env", "PATH names %d directories, the most is %d", n, maxSearch)
	}
	return nil
}

func isPath(text string) bool {
	return path.IsAbs(text) && len(text) <= maxPath && !strings.Contains(text, "\x00") && utf8.ValidString(text)
}

// CheckDuration returns a *BadRequest for a duration of a request that is negative or beyond all
// reason.
func CheckDuration(field string, d *durationpb.Duration) error {
	if err := d.CheckValid(); err != nil {
		return bad(field, "%v", err)
	}
	switch value := d.AsDuration(); {
	case value < 0:
		return bad(field, "%s is negative", value)
	case value > maxDuration:
		return bad(field, "%s is too long, the most is %s", value, maxDuration)
	}
	return nil
}

// Quote is text in quotes and without what a terminal would obey, cut where it gets long: what a
// message says of a request must not be as long as the request.
func Quote(text string) string {
	const most = 64
	if len(text) <= most {
		return strconv.Quote(text)
	}
	return strconv.Quote(text[:most]) + "…"
}
