package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// maxSecret is how much a secret may have; the server looks at all else.
const maxSecret = 64 << 10

// secrets reads what --secret names.
func (s *Spec) secrets(in io.Reader, spec *telev1.JobSpec) (list []*telev1.Secret, err error) {
	fromStdin := ""
	if s.File == "-" {
		fromStdin = "the job file"
	}
	for _, text := range s.Secret {
		name, path, found := strings.Cut(text, "=")
		if !found || name == "" || path == "" {
			return nil, fmt.Errorf("--secret %s: write it like NAME=FILE, or NAME=- for standard input", name)
		}
		from := in
		switch {
		case path == "-" && spec.Stdin:
			return nil, fmt.Errorf("--secret %s=-: standard input is the command's with -i; give a file", name)
		case path == "-" && fromStdin != "":
			return nil, fmt.Errorf("--secret %s=-: standard input is %s already; give a file", name, fromStdin)
		case path == "-":
			fromStdin = name
		default:
			f, err := os.Open(path)
			if err != nil {
				return nil, fmt.Errorf("--secret %s: %w", name, err)
			}
			defer f.Close()
			from = f
		}
		data, err := readSecret(from)
		if err != nil {
			return nil, fmt.Errorf("--secret %s=%s: %w", name, path, err)
		}
		list = append(list, &telev1.Secret{Name: name, Data: data})
	}
	return list, nil
}

// readSecret reads no more than there may be: a device has no end.
func readSecret(from io.Reader) ([]byte, error) {
	if from == nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(from, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = fmt.Errorf("there is more in it than the %d bytes that a secret may have", maxSecret)
	}
	return data, err
}
