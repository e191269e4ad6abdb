package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"golang.org/x/sys/unix"
)

// mountDisk mounts the small file system that the state directory lies on, in the mount namespace of
// this program, which ends with it.
func (w *world) mountDisk() error {
	if err := os.Mkdir(w.disk, 0o700); err != nil {
		return err
	}
	switch w.options.disk {
	case "tmpfs":
		return unix.Mount("chaos", w.disk, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", w.options.size))
	case "ext4":
		image := filepath.Join(w.options.dir, "image")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			return err
		}
		if err := os.Truncate(image, w.options.size); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"mkfs.ext4", "-q", "-F", "-m", "0", image},
			{"mount", "-t", "ext4", "-o", "loop", image, w.disk},
		} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%q: %w\n%s", args, err, out)
			}
		}
		return nil
	}
	return fmt.Errorf("--disk %s: tmpfs or ext4", w.options.disk)
}

func (w *world) filler() string { return filepath.Join(w.disk, "fill") }

// fillDisk takes all the room that the disk has now.
func (w *world) fillDisk() error {
	f, err := os.OpenFile(w.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size > 0; {
		_, err := f.Write(block[:size])
		switch {
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case err != nil:
			return err
		}
	}
	return nil
}

// noteFull notes that the disk is full, or that it is not any more.
func (w *world) noteFull(now bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now {
		w.full = append(w.full, [2]time.Time{time.Now(), time.Now().Add(time.Hour)})
	} else {
		w.full[len(w.full)-1][1] = time.Now()
	}
}

// wasFull tells whether the disk was full at some moment of a job's life.
func (w *world) wasFull(job *telev1.Job) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.full, func(t [2]time.Time) bool {
		return job.EndedAt.AsTime().After(t[0]) && job.StartedAt.AsTime().Before(t[1])
	})
}

// freeDisk gives the room back.
func (w *world) freeDisk() error {
	if err := os.Remove(w.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// tight tells whether the disk has little room even without the filler: jobs that were kept take it.
func (w *world) tight() bool {
	var s unix.Statfs_t
	if err := unix.Statfs(w.disk, &s); err != nil {
		return false
	}
	free := int64(s.Bavail) * s.Bsize
	if info, err := os.Stat(w.filler()); err == nil {
		free += info.Size()
	}
	return free < w.options.size/2
}
