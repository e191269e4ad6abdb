package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// A bar says on a terminal how far a copy is. It is drawn as bytes come, and so says nothing new when none do.
type bar struct {
	out   io.Writer // nil without a terminal
	total int64     // 0 when it is not known
	began time.Time

	mu    sync.Mutex
	done  int64
	drawn time.Time
	wide  int // what is drawn
	ended bool
}

// barEvery is how often it is drawn at most.
const barEvery = 100 * time.Millisecond

func newBar(out io.Writer, quiet bool) *bar {
	b := &bar{began: time.Now()}
	if !quiet && sizeOf(out) != nil {
		b.out = out
	}
	return b
}

func (b *bar) shown() bool { return b.out != nil }

func (b *bar) add(n int) {
	if b.out == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += int64(n)
	now := time.Now()
	if b.ended || now.Sub(b.drawn) < barEvery {
		return
	}
	b.drawn = now
	b.draw(b.text(now.Sub(b.began)))
}

func (b *bar) draw(text string) {
	fmt.Fprint(b.out, "\r", text, strings.Repeat(" ", max(b.wide-len(text), 0)))
	b.wide = len(text)
}

// text is what is shown after so long: bytes, how much of all that is, and bytes a second.
func (b *bar) text(after time.Duration) string {
	text := size(uint64(b.done))
	if b.total > 0 {
		text += fmt.Sprintf(" of %s  %d%%", size(uint64(b.total)), min(100*b.done/b.total, 100))
	}
	if seconds := after.Seconds(); seconds > 0 {
		text += fmt.Sprintf("  %s/s", size(uint64(float64(b.done)/seconds)))
	}
	return text
}

// end takes it off the screen.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.wipeLocked()
}

func (b *bar) wipeLocked() {
	if b.wide > 0 {
		b.draw("")
		fmt.Fprint(b.out, "\r")
	}
}

// An aboveBar writes to the bar's screen what stays there. The bar is drawn again as it goes on.
type aboveBar struct {
	io.Writer
	bar *bar
}

func (w aboveBar) Write(p []byte) (int, error) {
	w.bar.mu.Lock()
	defer w.bar.mu.Unlock()
	w.bar.wipeLocked()
	return w.Writer.Write(p)
}

func (b *bar) reader(r io.Reader) io.Reader { return barReader{r, b} }

func (b *bar) writer(w io.Writer) io.Writer { return barWriter{w, b} }

type barReader struct {
	io.Reader
	bar *bar
}

func (r barReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bar.add(n)
	return n, err
}

type barWriter struct {
	io.Writer
	bar *bar
}

func (w barWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bar.add(n)
	return n, err
}
