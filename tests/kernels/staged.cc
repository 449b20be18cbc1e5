// staged.cc -- copies what a call's arguments point into to the device and back.
#include "kernels/staged.h"
#include <cstring>

namespace
{
// A piece of the host's memory, and its place on the device.
struct Piece {
    char *data;
    size_t bytes, element, first; // first: the offset of the element to align
    tv_buffer buffer;
    char *there;
};

struct Stage {
    Staged *staged;
    Call *call;
    bool is_aligned;
    std::vector<Piece> pieces;
    std::vector<tv_adamw_weight> weights; // copies of lists, which lie in the host's memory
    std::vector<tv_square_sum_array> arrays;
};
thread_local Stage *stage; // of the call at hand: entries of a table get no context

template <typename T> void add_piece(std::vector<T> &memory, int64_t first)
{
    if (!memory.empty())
        stage->pieces.push_back({reinterpret_cast<char *>(memory.data()),
                                 memory.size() * sizeof(T),
                                 sizeof(T),
                                 (size_t)first * sizeof(T),
                                 {},
                                 nullptr});
}

void list_pieces()
{
    stage->pieces.clear();
    for (Tensor &tensor : stage->call->tensors) {
        add_piece(tensor.memory, Tensor::guard);
        add_piece(tensor.packed, Tensor::guard);
    }
    for (std::vector<int32_t> &ids : stage->call->ids)
        add_piece(ids, 0);
    for (std::vector<float> &room : stage->call->rooms)
        add_piece(room, 0);
    for (std::vector<double> &numbers : stage->call->doubles)
        add_piece(numbers, 0);
}

tv_status_t upload(Piece &piece)
{
    const size_t most = 32; // of padding before the piece
    TV_TRY(
        tv_buffer_create(stage->staged->device, piece.bytes + most, TV_MEM_BUFFERS, &piece.buffer));
    const size_t pad = (16 - piece.first % 16) % 16 + (stage->is_aligned ? 0 : piece.element);
    piece.there = static_cast<char *>(piece.buffer.data) + pad;
    return tv_stream_copy(stage->staged->stream, piece.there, piece.data, piece.bytes);
}

tv_status_t download(Piece &piece)
{
    if (piece.there == nullptr)
        return TV_OK;
    TV_TRY(tv_stream_copy(stage->staged->stream, piece.data, piece.there, piece.bytes));
    TV_TRY(tv_stream_synchronize(stage->staged->stream));
    tv_buffer_destroy(&piece.buffer);
    return TV_OK;
}

// Makes each pointer among the words of the arguments one to the device.
tv_status_t move_words(void *args, size_t bytes)
{
    for (size_t at = 0; at + sizeof(char *) <= bytes; at += sizeof(char *)) {
        char *word;
        std::memcpy(&word, static_cast<char *>(args) + at, sizeof(word));
        for (Piece &piece : stage->pieces) {
            if (word < piece.data || word >= piece.data + piece.bytes)
                continue;
            if (piece.there == nullptr)
                TV_TRY(upload(piece));
            word = piece.there + (word - piece.data);
            std::memcpy(static_cast<char *>(args) + at, &word, sizeof(word));
            break;
        }
    }
    return TV_OK;
}

template <typename Item>
tv_status_t move_items(int num, const Item *&items, std::vector<Item> &room)
{
    room.assign(items, items + num);
    items = room.data();
    return move_words(room.data(), room.size() * sizeof(Item));
}
tv_status_t move_list(const void *)
{
    return TV_OK;
}
tv_status_t move_list(tv_adamw_args *args)
{
    return move_items(args->num, args->of, stage->weights);
}
tv_status_t move_list(tv_square_sum_args *args)
{
    return move_items(args->num, args->of, stage->arrays);
}

template <typename Args>
tv_status_t call_staged(tv_status_t (*op)(tv_stream *, const Args *), const Args *a)
{
    Args args = *a;
    list_pieces();
    TV_TRY(move_words(&args, sizeof(args)));
    TV_TRY(move_list(&args));
    TV_TRY(op(stage->staged->stream, &args));
    TV_TRY(tv_stream_synchronize(stage->staged->stream));
    for (Piece &piece : stage->pieces)
        TV_TRY(download(piece));
    return TV_OK;
}

#define STAGED(op, type)                                                                           \
    tv_status_t op##_f32(tv_stream *, const type *a)                                               \
    {                                                                                              \
        return call_staged(stage->staged->inner(TV_F32)->op, a);                                   \
    }                                                                                              \
    tv_status_t op##_bf16(tv_stream *, const type *a)                                              \
    {                                                                                              \
        return call_staged(stage->staged->inner(TV_BF16)->op, a);                                  \
    }
TV_KERNEL_LIST(STAGED)
#define F32_ENTRY(op, type)  op##_f32,
#define BF16_ENTRY(op, type) op##_bf16,
const tv_kernels tables_of[] = {{"staged", TV_F32, TV_KERNEL_LIST(F32_ENTRY)},
                                {"staged", TV_BF16, TV_KERNEL_LIST(BF16_ENTRY)}};
} // namespace

Staged::Staged()
{
    EXPECT_EQ(tv_device_open(TV_DEVICE_CUDA, 1, &device), TV_OK) << tv_error_message();
    EXPECT_EQ(tv_stream_create(device, &stream), TV_OK);
    for (tv_dtype_t dtype : {TV_F32, TV_BF16})
        EXPECT_EQ(tv_kernels_open(device, dtype, &tables[dtype == TV_BF16]), TV_OK);
}

Staged::~Staged()
{
    tv_stream_destroy(stream);
    tv_device_close(device);
}

Call Staged::run(const Case &c, tv_dtype_t dtype, bool is_aligned)
{
    Stage here = {this, nullptr, is_aligned, {}, {}, {}};
    stage = &here;
    const auto watch = [&](Call &call) {
        here.call = &call;
        const tv_status_t status = c.call(call);
        EXPECT_EQ(status, TV_OK) << tv_error_message();
        return status;
    };
    Call call = run_case({c.op, c.shape, c.tolerance, watch}, &tables_of[dtype == TV_BF16], stream);
    stage = nullptr;
    return call;
}
