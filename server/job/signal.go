package job

import (
	"strconv"
	"strings"
	"syscall"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// OwnSignal stands for the signal by which the job wants to be stopped.
const OwnSignal syscall.Signal = 0

// ParseSignal reads a signal's name or number, or returns a *BadRequest about the field.
func ParseSignal(field, text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if signal := unix.SignalNum(name); signal != 0 {
		return signal, nil
	}
	return 0, bad(field, "%s is no signal; write it like TERM, SIGTERM or 15", Quote(text))
}

// stopSignal is what a job gets that is asked to end, when nobody names another.
func stopSignal(spec *telev1.JobSpec) syscall.Signal {
	if signal, err := ParseSignal("", spec.GetStopSignal()); err == nil { // it was looked at before
		return signal
	}
	return unix.SIGTERM
}

func checkSignals(spec *telev1.JobSpec) error {
	if spec.StopSignal != "" {
		if _, err := ParseSignal("spec.stop_signal", spec.StopSignal); err != nil {
			return err
		}
	}
	return checkWarning(spec)
}
