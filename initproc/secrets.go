package initproc

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// This file is the files that a job with Spec.Secrets finds in SecretsDir. What is in them comes to init with
// the rest of the plan, as one file in memory, and goes on from there with sendfile(2): it is never in the
// plan, nor in init's own memory. Init writes them, so they are counted in the job's memory limit.

// A Secret is the name and the size of such a file.
type Secret struct {
	Name string // a file's name, not a path
	Size int
}

// SecretsDir is where they are, in a file system of their own.
const SecretsDir = "/dev/shm/secrets"

// secretUnit is what a file takes at least, where pages are largest.
const secretUnit = 64 << 10

// SecretsFile is a file in memory of all that the secrets hold, in the order of Spec.Secrets, for Run. The
// caller closes it.
func SecretsFile(data [][]byte) (*os.File, error) {
	f, err := memory("secrets", nil)
	if err != nil {
		return nil, err
	}
	for _, d := range data {
		if _, err := f.Write(d); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if _, err := f.Seek(0, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// placeSecrets makes the files, which nobody can change afterwards. fd is what SecretsFile made. It comes
// before the command's process, which must not have that, and after mountTmp.
func placeSecrets(b *builder, s Spec, fd arg) {
	if len(s.Secrets) == 0 {
		return
	}
	dir, size := relative(SecretsDir), 0
	for _, secret := range s.Secrets {
		size += (secret.Size/secretUnit + 1) * secretUnit
	}
	owner := "" // in a user namespace its one user
	if !s.UserNamespace {
		owner = fmt.Sprintf(",uid=%d,gid=%d", s.UID, s.GID)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	b.step("make "+SecretsDir, unix.SYS_MKDIRAT, cwdFD, b.string(dir), number(0o755))
	b.mount("mount "+SecretsDir, "tmpfs", dir, flags, fmt.Sprintf("mode=500,size=%d,nr_inodes=%d%s", size, len(s.Secrets)+1, owner))
	for _, secret := range s.Secrets {
		placeSecret(b, s, secret, fd)
	}
	b.step("make "+SecretsDir+" read-only", unix.SYS_MOUNT, number(0), b.string(dir), number(0),
		number(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags), number(0))
	b.step("close what the secrets came in", unix.SYS_CLOSE, fd)
}

// placeSecret makes one of them. There is room for all of it before anything is written: sendfile(2) would
// write a part.
func placeSecret(b *builder, s Spec, secret Secret, fd arg) {
	name := fmt.Sprintf("place the secret %s, %d bytes", secret.Name, secret.Size)
	file := b.stepResult(name, unix.SYS_OPENAT, cwdFD, b.string(relative(SecretsDir)+"/"+secret.Name),
		number(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC), number(0o400))
	if secret.Size > 0 {
		b.step(name, unix.SYS_FALLOCATE, file, number(0), number(0), number(secret.Size))
		b.step(name, unix.SYS_SENDFILE, file, fd, number(0), number(secret.Size))
	}
	if !s.UserNamespace {
		b.step(name, unix.SYS_FCHOWN, file, number(s.UID), number(s.GID))
	}
	b.step(name, unix.SYS_CLOSE, file)
}

// checkSecrets is a part of Spec.check.
func (s *Spec) checkSecrets() error {
	for _, secret := range s.Secrets {
		if secret.Name == "" || secret.Name == "." || secret.Name == ".." || secret.Size < 0 || strings.ContainsAny(secret.Name, "/\x00") {
			return fmt.Errorf("%q, %d bytes, is no secret", secret.Name, secret.Size)
		}
	}
	return nil
}
