package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A Space is the room that many logs share: a maximum for the sum of all, and the disk below it.
// It counts files and index of each log by the log's directory.
//
// A drain loop that was told ErrFull waits for Freed, or for the job's end, and calls Drain again:
//
//	select {
//	case <-space.Freed():
//	case <-ended:
//	}
type Space struct {
	most int64

	mu    sync.Mutex
	used  int64
	logs  map[string]int64 // their sizes, by directory
	freed chan struct{}    // closed when there may be room; nil while nobody waits
}

// NewSpace returns a space of that many bytes, 0 for what the disk has.
func NewSpace(most int64) *Space {
	return &Space{most: most, logs: map[string]int64{}}
}

// Add counts a log that nobody writes any more, by its files. A log that is written counts itself,
// from SetSpace on.
func (s *Space) Add(dir string) error {
	var size int64
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		size += info.Size()
	}
	s.Set(dir, size)
	return nil
}

// Take reserves n bytes for a file beside the logs, which is counted by its path; Set then says how large it is.
func (s *Space) Take(path string, n int64) error {
	_, err := s.take(path, n, n)
	return err
}

// Remove forgets a log or a file that was removed, and wakes who waits for room.
func (s *Space) Remove(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= s.logs[dir]
	delete(s.logs, dir)
	s.wakeLocked()
}

// Used is how many bytes all logs have together.
func (s *Space) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Check returns ErrFull when the space is used up. It does not look at the disk.
func (s *Space) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkLocked(1)
}

func (s *Space) checkLocked(least int64) error {
	if s.most > 0 && s.most-s.used < least {
		return fmt.Errorf("%w: the output of all jobs has reached its limit of %d bytes; remove some", ErrFull, s.most)
	}
	return nil
}

// Freed returns a channel that is closed when there may be room again: a log was removed, or 1 s is
// over. The kernel tells nobody that a disk has room, so the only way is to try; and as whoever
// waits tries every second in any case, a log that is removed just before Freed is called, or a
// reservation that is given back, need no notification. One timer serves all who wait, and none
// runs while nobody does.
func (s *Space) Freed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freed == nil {
		freed := make(chan struct{})
		s.freed = freed
		time.AfterFunc(time.Second, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.freed == freed { // else it is closed
				s.wakeLocked()
			}
		})
	}
	return s.freed
}

func (s *Space) wakeLocked() {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// take reserves between least and most bytes for a log.
func (s *Space) take(dir string, least, most int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLocked(least); err != nil {
		return 0, err
	}
	if s.most > 0 {
		most = min(most, s.most-s.used)
	}
	s.used += most
	s.logs[dir] += most
	return most, nil
}

// Set says how much a log, or a file beside them, takes now. It wakes nobody: a log that fails on a full disk gives its
// reservation back each time, and all would wake each other without end.
func (s *Space) Set(dir string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += size - s.logs[dir]
	s.logs[dir] = size
}
