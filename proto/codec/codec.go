// Package codec passes output through gRPC without copying it: on the wire there is the same
// StreamOutputResponse as ever, but its data stays in the buffers that it was read into.
//
//	server := grpc.NewServer(grpc.ForceServerCodecV2(codec.Codec{}))
//	…
//	err := stream.SendMsg(&codec.Chunk{Message: message, Data: data})
//
//	stream, err := jobs.StreamOutput(ctx, request, grpc.ForceCodecV2(codec.Codec{}))
//	…
//	var c codec.Chunk
//	err := stream.RecvMsg(&c)
//	…
//	c.Free()
//
// Only a Chunk is treated so. All other messages, and a StreamOutputResponse itself, go the way of
// gRPC's own codec; nothing is registered, so whoever else uses gRPC in the process has that one.
package codec

import (
	"fmt"

	telev1 "github.com/telerun/tele/proto/tele/v1"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto" // registers gRPC's own
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// dataField is the number of StreamOutputResponse.data.
const dataField = 4

// A Chunk is a StreamOutputResponse with its data apart.
type Chunk struct {
	Message *telev1.StreamOutputResponse // without data
	Data    mem.BufferSlice
}

// Free gives the data back. Who fills a Chunk, by hand or with RecvMsg, calls it when done with the
// bytes; gRPC holds references of its own while it sends.
func (c *Chunk) Free() {
	c.Data.Free()
	c.Data = nil
}

// Whole returns the message with a copy of the data, which may be kept.
func (c *Chunk) Whole() *telev1.StreamOutputResponse {
	c.Message.Data = c.Data.Materialize()
	return c.Message
}

// Codec is an encoding.CodecV2 named "proto". It has no state.
type Codec struct{}

// Name returns the name of gRPC's own codec: on the wire they are the same.
func (Codec) Name() string { return grpcproto.Name }

// Marshal writes a Chunk's data last and adds a reference to it, whatever the order of the fields'
// numbers: protobuf takes them in any.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	c, ok := v.(*Chunk)
	if !ok {
		return encoding.GetCodecV2(grpcproto.Name).Marshal(v)
	}
	if len(c.Message.GetData()) > 0 {
		return nil, fmt.Errorf("a chunk's message has %d bytes of data of its own", len(c.Message.Data))
	}
	head, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 0, 64), c.Message)
	if err != nil {
		return nil, err
	}
	n := c.Data.Len()
	if n == 0 {
		return mem.BufferSlice{mem.SliceBuffer(head)}, nil
	}
	head = protowire.AppendTag(head, dataField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(n))
	c.Data.Ref()
	wire := append(make(mem.BufferSlice, 0, 1+len(c.Data)), mem.SliceBuffer(head))
	return append(wire, c.Data...), nil
}

// Unmarshal sets a Chunk, which must hold no data. Where the data comes last, as Marshal writes it,
// it stays in the buffers; where not, it is copied.
func (Codec) Unmarshal(wire mem.BufferSlice, v any) error {
	c, ok := v.(*Chunk)
	if !ok {
		return encoding.GetCodecV2(grpcproto.Name).Unmarshal(wire, v)
	}
	message := &telev1.StreamOutputResponse{}
	head, from, found := split(wire)
	if found {
		if err := proto.Unmarshal(head, message); err != nil {
			return err
		}
		c.Message, c.Data = message, cut(wire, from)
		return nil
	}
	if err := proto.Unmarshal(wire.Materialize(), message); err != nil {
		return err
	}
	c.Message, c.Data = message, nil
	if len(message.Data) > 0 {
		c.Data = mem.BufferSlice{mem.SliceBuffer(message.Data)}
		message.Data = nil
	}
	return nil
}

// split finds, in the first buffer, the fields before the data and where the data begins, if it is
// all of the rest. Whatever else there is, or is wrong, is not for it.
func split(wire mem.BufferSlice) (head []byte, from int, found bool) {
	if len(wire) == 0 {
		return nil, 0, false
	}
	first, total := wire[0].ReadOnlyData(), wire.Len()
	for at := 0; at < len(first); {
		number, kind, n := protowire.ConsumeTag(first[at:])
		if n < 0 {
			return nil, 0, false
		}
		if number == dataField && kind == protowire.BytesType {
			size, m := protowire.ConsumeVarint(first[at+n:])
			from = at + n + m
			return first[:at], from, m > 0 && size == uint64(total-from)
		}
		m := protowire.ConsumeFieldValue(number, kind, first[at+n:])
		if m < 0 {
			return nil, 0, false
		}
		at += n + m
	}
	return nil, 0, false
}

// cut returns references to the bytes of wire from there on.
func cut(wire mem.BufferSlice, from int) mem.BufferSlice {
	data := make(mem.BufferSlice, 0, len(wire))
	for _, b := range wire {
		if n := b.Len(); from < n {
			data = append(data, b.Slice(from, n))
			from = 0
		} else {
			from -= n
		}
	}
	return data
}
