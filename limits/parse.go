package limits

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Error is a limit that cannot be accepted: which one, what was written, and what is wrong with it.
type Error struct {
	Name Name
	Text string
	Why  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %q: %s", e.Name, e.Text, e.Why)
}

// The smallest value that each limit takes. Below 1 MiB of memory not even a shell starts, and the
// kernel takes no CPU quota under 1 ms in a period of at most 1 s; 10 thousandths leave room.
var smallest = map[Name]int64{CPU: 10, Memory: 1 << 20, Swap: 0, IORead: 1, IOWrite: 1, Pids: 1, Output: 1,
	Work: 4096, Root: 4096}

// suffixes of sizes, all powers of 1024 as in the kernel's files and systemd's: K and Ki are the
// same.
var suffixes = []struct {
	text  string
	shift uint
}{{"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}}

// Parse reads text as a value for the limit called name: "max"; for sizes and rates bytes with an
// optional suffix ("500M", "1.5Gi"); for the CPU a number of CPUs ("1.5") or of thousandths
// ("1500m"); for pids a number. What it cannot accept is an *Error.
func Parse(name Name, text string) (int64, error) {
	low, known := smallest[name]
	if !known {
		return 0, &Error{name, text, "there is no such limit"}
	}
	if text == "max" {
		return Max, nil
	}
	value, ok := parseValue(name, text)
	if !ok {
		return 0, &Error{name, text, wanted(name)}
	}
	if value < low {
		return 0, &Error{name, text, "too small, the least is " + Format(name, low)}
	}
	return value, nil
}

func parseValue(name Name, text string) (int64, bool) {
	switch name {
	case CPU:
		if whole, found := strings.CutSuffix(text, "m"); found {
			return scaled(whole, 1, false)
		}
		return scaled(text, 1000, true)
	case Pids:
		return scaled(text, 1, false)
	}
	number := strings.TrimSuffix(text, "i")
	for _, s := range suffixes {
		if whole, found := strings.CutSuffix(number, s.text); found {
			return scaled(whole, 1<<s.shift, true)
		}
	}
	return scaled(text, 1, false)
}

// scaled reads plain decimal digits, with a point among them where fraction allows it, and
// multiplies. It is strict on purpose: no sign, exponent, hexadecimal or blank, all of which
// strconv.ParseFloat would take.
func scaled(text string, unit int64, fraction bool) (int64, bool) {
	whole, part, point := strings.Cut(text, ".")
	if whole == "" || !digits(whole) || point && (!fraction || part == "" || !digits(part)) {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > (math.MaxInt64-1)/unit-1 {
		return 0, false
	}
	n *= unit
	if point {
		f, err := strconv.ParseFloat("0."+part, 64)
		if err != nil {
			return 0, false
		}
		n += int64(math.Round(f * float64(unit)))
	}
	return n, true
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func wanted(name Name) string {
	switch name {
	case CPU:
		return `not a number of CPUs; write it like 1.5, 1500m or max`
	case Pids:
		return `not a number of processes; write it like 512 or max`
	}
	return `not a size; write bytes like 500M, 1.5G, 1048576 or max`
}

// Format writes value as Parse reads it, as short as it can without losing anything.
func Format(name Name, value int64) string {
	switch {
	case value == Max:
		return "max"
	case name == CPU && value%1000 == 0:
		return strconv.FormatInt(value/1000, 10)
	case name == CPU:
		return strings.TrimRight(fmt.Sprintf("%d.%03d", value/1000, value%1000), "0")
	case name == Pids || value == 0:
		return strconv.FormatInt(value, 10)
	}
	for i := len(suffixes) - 1; i >= 0; i-- {
		if s := suffixes[i]; value%(1<<s.shift) == 0 {
			return strconv.FormatInt(value>>s.shift, 10) + s.text
		}
	}
	return strconv.FormatInt(value, 10)
}
