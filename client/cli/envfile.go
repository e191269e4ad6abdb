package cli

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// environment is what --env-file and --env say together; the last word has --env, and of the files the last.
func (s *Spec) environment() (map[string]string, error) {
	if len(s.EnvFile) == 0 {
		return s.Env, nil
	}
	env := map[string]string{}
	for _, path := range s.EnvFile {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		if err := readEnv(env, path, text, os.LookupEnv); err != nil {
			return nil, err
		}
	}
	for name, value := range s.Env {
		env[name] = value
	}
	return env, nil
}

// readEnv reads lines as Docker's files of this name have them: NAME=VALUE, where the value is the rest of the
// line as it is, quotes and all; NAME, which is as it is here, if it is; nothing; or # and a remark.
func readEnv(env map[string]string, path string, text []byte, lookup func(string) (string, bool)) error {
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // a byte order mark, of editors on Windows
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return fmt.Errorf("--env-file %s, line %d: write it like NAME=VALUE, or NAME for its value here", path, number)
		}
		if !found {
			if value, found = lookup(name); !found {
				continue
			}
		}
		env[name] = value
	}
	return nil
}
