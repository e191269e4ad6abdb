package job

import (
	"os"

	"github.com/telerun/tele/initproc"
	telev1 "github.com/telerun/tele/proto/tele/v1"
)

// This file is what a job is given to know in secret (initproc/secrets.go). The record has no more of it than
// that there is something, and the server keeps it until the job runs.

// What secrets a request may have at most. MaxSecrets is for all of them together, in bytes.
const (
	MaxSecrets  = 256 << 10
	maxSecret   = 64 << 10
	mostSecrets = 64
	// maxSecretName is how long a name may be.
	maxSecretName = 64
)

// CheckSecrets finds what is wrong with the secrets of a request. What it says of them are names and sizes.
func CheckSecrets(secrets []*telev1.Secret) error {
	if len(secrets) > mostSecrets {
		return bad("secrets", "are %d, the most is %d", len(secrets), mostSecrets)
	}
	total, seen := 0, map[string]bool(nil)
	for _, s := range secrets {
		name, size := s.GetName(), len(s.GetData())
		switch {
		case name == "" || len(name) > maxSecretName || !made(name, "._-") || name == "." || name == "..":
			return bad("secrets", "%s is no name of a secret: it has 1 to %d letters, digits, points, underscores and "+
				"hyphens, and is neither . nor ..", Quote(name), maxSecretName)
		case seen[name]:
			return bad("secrets", "%s is there twice", name)
		case size > maxSecret:
			return bad("secrets", "%s has %d bytes, the most is %d", name, size, maxSecret)
		}
		if total += size; total > MaxSecrets {
			return bad("secrets", "have more than %d bytes together", MaxSecrets)
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[name] = true
	}
	return nil
}

// secretsEnv tells a job where its secrets are.
const secretsEnv = "TELE_SECRETS"

// secretsOf are the secrets as the plan has them: without what is in them.
func secretsOf(secrets []*telev1.Secret) (list []initproc.Secret) {
	for _, s := range secrets {
		list = append(list, initproc.Secret{Name: s.Name, Size: len(s.Data)})
	}
	return list
}

// secretsFile is what init is to have of the secrets; nothing where there are none.
func secretsFile(secrets []*telev1.Secret) (files []*os.File, err error) {
	if len(secrets) == 0 {
		return nil, nil
	}
	var data [][]byte
	for _, s := range secrets {
		data = append(data, s.Data)
	}
	f, err := initproc.SecretsFile(data)
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
}

// forgetSecrets overwrites secrets that nobody needs any more.
func forgetSecrets(secrets []*telev1.Secret) {
	for _, s := range secrets {
		clear(s.Data)
	}
}
