package codec

import (
	"bytes"
	"math/rand/v2"
	"testing"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var standard = encoding.GetCodecV2("proto")

// messages have each of the fields, alone and together, and unknown ones.
func messages() (list []*telev1.StreamOutputResponse) {
	unknown := protowire.AppendTag(nil, 999, protowire.BytesType)
	unknown = protowire.AppendString(unknown, "from the future")
	unknown = protowire.AppendTag(unknown, dataField, protowire.VarintType) // no data, whatever its number says
	unknown = protowire.AppendVarint(unknown, 7)
	large := make([]byte, 300_000)
	for i := range large {
		large[i] = byte(i * i)
	}
	for set := range 1 << 7 {
		m := &telev1.StreamOutputResponse{}
		for i, f := range []func(){
			func() { m.Stream = telev1.OutputStream_OUTPUT_STREAM_STDERR },
			func() { m.Offset = 1<<64 - 1 },
			func() { m.Time = &timestamppb.Timestamp{Seconds: 1 << 40, Nanos: 999_999_999} },
			func() { m.Data = large[:1+(set*997)%len(large)] },
			func() { m.Job = &telev1.Job{Id: "abcdefghijkl", Message: "näh", ExitCode: proto.Int32(3)} },
			func() { m.Event = telev1.OutputEvent_OUTPUT_EVENT_LIMIT_REACHED },
			func() { m.ProtoReflect().SetUnknown(unknown) },
		} {
			if set>>i&1 == 1 {
				f()
			}
		}
		list = append(list, m)
	}
	return list
}

// pieces is p in buffers as a network would cut it.
func pieces(p []byte, random *rand.Rand) (list mem.BufferSlice) {
	for len(p) > 0 {
		n := 1 + random.IntN(len(p))
		if random.IntN(2) == 0 {
			n = 1 + random.IntN(min(len(p), 20))
		}
		list = append(list, mem.Copy(p[:n], mem.DefaultBufferPool()))
		p = p[n:]
	}
	return list
}

// apart is the message as a Chunk.
func apart(m *telev1.StreamOutputResponse, random *rand.Rand) *Chunk {
	m = proto.CloneOf(m)
	c := &Chunk{Message: m, Data: pieces(m.Data, random)}
	m.Data = nil
	return c
}

// What this codec writes the standard one reads, and the other way round, however it is cut.
func TestSameOnTheWire(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, m := range messages() {
		c := apart(m, random)
		wire, err := Codec{}.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		c.Free() // what is under way does not need it
		cut := pieces(wire.Materialize(), random)
		got := &telev1.StreamOutputResponse{}
		if err := standard.Unmarshal(wire, got); err != nil {
			t.Fatal(err)
		}
		same(t, "the standard codec reads", m, got)
		for _, wire := range []mem.BufferSlice{wire, cut} {
			read(t, m, wire)
			wire.Free()
		}
		wire, err = standard.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		cut = pieces(wire.Materialize(), random)
		for _, wire := range []mem.BufferSlice{wire, cut} {
			read(t, m, wire)
			wire.Free()
		}
	}
}

// read reads a Chunk; its data must outlive the wire's buffers.
func read(t *testing.T, want *telev1.StreamOutputResponse, wire mem.BufferSlice) {
	t.Helper()
	var c Chunk
	wire.Ref()
	err := Codec{}.Unmarshal(wire, &c)
	wire.Free()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Message.Data) > 0 {
		t.Error("the message has data of its own")
	}
	same(t, "this codec reads", want, c.Whole())
	c.Free()
}

func same(t *testing.T, what string, want, got *telev1.StreamOutputResponse) {
	t.Helper()
	if !proto.Equal(want, got) {
		t.Errorf("%s %.300s, want %.300s", what, got, want)
	}
}

// Other messages are gRPC's own codec's.
func TestOtherMessages(t *testing.T) {
	for _, m := range []proto.Message{&telev1.GetRequest{JobId: "x"}, &telev1.StreamOutputResponse{Data: []byte("x")}} {
		wire, err := Codec{}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got := m.ProtoReflect().New().Interface()
		if err := (Codec{}).Unmarshal(wire, got); err != nil || !proto.Equal(m, got) {
			t.Errorf("%v became %v, %v", m, got, err)
		}
	}
	if _, err := (Codec{}).Marshal("no message"); err == nil {
		t.Error("a string was marshalled")
	}
	if err := (Codec{}).Unmarshal(nil, "no message"); err == nil {
		t.Error("a string was unmarshalled")
	}
	twice := &Chunk{Message: &telev1.StreamOutputResponse{Data: []byte("x")}}
	if _, err := (Codec{}).Marshal(twice); err == nil {
		t.Error("a chunk with data in its message was marshalled")
	}
}

// A pool counts what is out of it.
type pool struct{ out int }

func (p *pool) Get(n int) *[]byte { p.out++; b := make([]byte, n); return &b }
func (p *pool) Put(*[]byte)       { p.out-- }

// Every buffer comes back once everybody has freed what they have, and not before. Nothing is copied.
func TestReferences(t *testing.T) {
	p := &pool{}
	data := mem.NewBuffer(p.Get(100_000), p)
	sent := &Chunk{Message: &telev1.StreamOutputResponse{Offset: 5}, Data: mem.BufferSlice{data}}
	wire, err := Codec{}.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	sent.Free()
	var got Chunk
	if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire.Materialize())}, &got); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() {
		wire, _ := Codec{}.Marshal(&got)
		wire.Free()
	}); n > 3 {
		t.Errorf("%v allocations to marshal", n)
	}
	if err := (Codec{}).Unmarshal(wire, &got); err != nil {
		t.Fatal(err)
	}
	if &got.Data[0].ReadOnlyData()[0] != &data.ReadOnlyData()[0] {
		t.Error("the data was copied")
	}
	wire.Free()
	if p.out != 1 {
		t.Errorf("%d buffers are out while one is read", p.out)
	}
	got.Free()
	if p.out != 0 {
		t.Errorf("%d buffers are out", p.out)
	}
}

// FuzzUnmarshal takes anything as the standard codec does, and wherever it is cut.
func FuzzUnmarshal(f *testing.F) {
	for _, m := range messages() {
		if len(m.Data) > 1000 {
			m.Data = m.Data[:1000]
		}
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, uint64(len(wire)))
	}
	f.Add([]byte{dataField<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(0))
	f.Add([]byte{dataField<<3 | 2, 1, 'a', dataField<<3 | 2, 1, 'b'}, uint64(0)) // the last one counts
	f.Fuzz(func(t *testing.T, wire []byte, seed uint64) {
		want := &telev1.StreamOutputResponse{}
		wantErr := proto.Unmarshal(wire, want)
		for _, buffers := range []mem.BufferSlice{{mem.SliceBuffer(wire)}, pieces(wire, rand.New(rand.NewPCG(seed, 0)))} {
			var c Chunk
			err := Codec{}.Unmarshal(buffers, &c)
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("error %v, want %v", err, wantErr)
			}
			if err != nil {
				continue
			}
			again, err := Codec{}.Marshal(&c)
			if err != nil {
				t.Fatal(err)
			}
			got := &telev1.StreamOutputResponse{}
			if err := proto.Unmarshal(again.Materialize(), got); err != nil || !bytes.Equal(got.Data, want.Data) ||
				!proto.Equal(got, want) {
				t.Fatalf("got %v, %v; want %v", got, err, want)
			}
		}
	})
}
