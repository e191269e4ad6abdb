package server

import "sync"

// chunkSize is the most data in one message. What a client does not read stays in memory, up to two
// messages a stream: one that gRPC has and one that waits for it. So only maxLarge buffers of this
// size are in use at a time, for all clients together, and the others are small.
const (
	chunkSize      = 512 << 10
	smallChunkSize = 16 << 10
	maxLarge       = 64
)

// Buffers that nobody uses are kept for the next one until garbage is collected. They are not
// cleared in between: each is filled from the beginning, and only what was read goes out.
var (
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }}
	smallBuffers = sync.Pool{New: func() any { b := make([]byte, smallChunkSize); return &b }}
)

// buffers are the buffers of one stream's chunks: the mem.BufferPool that gRPC gives each one back to
// when it is written, or will not be.
type buffers struct {
	large chan struct{}   // has a place for each large buffer in use, of all streams
	gone  <-chan struct{} // closed with the stream's connection

	mu    sync.Mutex
	inUse int
	ofMax int           // of these, those that have a place in large
	idle  chan struct{} // when wait waits: closed with the last one
	over  bool
}

// get returns a buffer for size bytes or less.
func (b *buffers) get(size int64) *[]byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inUse++
	if size > smallChunkSize {
		select {
		case b.large <- struct{}{}:
			b.ofMax++
			return largeBuffers.Get().(*[]byte)
		default: // many are in use; small ones do as well
		}
	}
	return smallBuffers.Get().(*[]byte)
}

// Get is never called: gRPC takes no buffers here.
func (b *buffers) Get(length int) *[]byte {
	p := make([]byte, length)
	return &p
}

// Put takes a buffer of get back.
func (b *buffers) Put(p *[]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	isLarge := cap(*p) == chunkSize
	*p = (*p)[:cap(*p)]
	if isLarge {
		largeBuffers.Put(p)
	} else {
		smallBuffers.Put(p)
	}
	if b.over {
		return
	}
	b.inUse--
	if isLarge {
		b.ofMax--
		<-b.large
	}
	if b.inUse == 0 && b.idle != nil {
		close(b.idle)
	}
}

// wait is the end of a stream. A call that has ended still has in memory what its client did not
// read; until that is gone it counts as one of the client's streams. With a connection everything on
// it goes, but gRPC gives not all of it back.
func (b *buffers) wait() {
	b.mu.Lock()
	if b.inUse > 0 {
		b.idle = make(chan struct{})
		b.mu.Unlock()
		select {
		case <-b.idle:
		case <-b.gone:
		}
		b.mu.Lock()
	}
	defer b.mu.Unlock()
	b.over = true
	for range b.ofMax {
		<-b.large
	}
}
