package files

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Somebody punches a hole and fills it again while a file is looked through: what is behind it is still data.
func TestHoleRace(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/f")
	must(t, err)
	defer f.Close()
	const size = 1 << 20
	last := int64(size - page)
	_, err = f.WriteAt([]byte("data"), last)
	must(t, err)
	must(t, f.Truncate(size))
	var done atomic.Bool
	var racer sync.WaitGroup
	racer.Go(func() {
		for !done.Load() {
			_, _ = f.WriteAt([]byte("x"), 64<<10) // what there is in the end is not looked at
			_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 64<<10, page)
		}
	})
	other, err := os.Open(f.Name())
	must(t, err)
	defer other.Close()
	for i := range 100_000 {
		list, err := extents(other, size)
		if n := len(list); err != nil || n == 0 || list[n-1].offset+list[n-1].size < last+4 {
			t.Errorf("look %d: %v, %v", i, list, err)
			break
		}
	}
	done.Store(true)
	racer.Wait()
}
