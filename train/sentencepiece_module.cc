// train/sentencepiece_module.cc -- SentencePiece's C++ as functions of C. No exception leaves it.
#include "train/sentencepiece_module.h"
#include <cstdio>
#include <exception>
#include <memory>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

using sentencepiece::SentencePieceProcessor;

static const SentencePieceProcessor &processor_of(const void *model)
{
    return *static_cast<const SentencePieceProcessor *>(model);
}

static void *open_model(const char *path, char *message, size_t message_bytes)
{
    try {
        auto processor = std::make_unique<SentencePieceProcessor>();
        const auto status = processor->Load(path);
        if (status.ok())
            return processor.release();
        std::snprintf(message, message_bytes, "%s", status.ToString().c_str());
    } catch (const std::exception &failure) {
        std::snprintf(message, message_bytes, "%s", failure.what());
    }
    return nullptr;
}

static void close_model(void *model)
{
    delete static_cast<SentencePieceProcessor *>(model);
}

static int vocab_size(const void *model)
{
    return processor_of(model).GetPieceSize();
}

static int find_piece(const void *model, const char *piece)
{
    const int id = processor_of(model).PieceToId(piece);
    return processor_of(model).IsUnknown(id) ? -1 : id;
}

static int encode(const void *model, const char *text, size_t bytes, int (*add)(void *, int),
                  void *context)
{
    try {
        std::vector<int> ids;
        if (!processor_of(model).Encode({text, bytes}, &ids).ok())
            return -1;
        for (const int id : ids) {
            const int stop = add(context, id);
            if (stop != 0)
                return stop;
        }
        return 0;
    } catch (const std::exception &) {
        return -1;
    }
}

const struct tv_sentencepiece *tv_sentencepiece_functions()
{
    static const tv_sentencepiece functions = {TV_SENTENCEPIECE_ABI, open_model, close_model,
                                               vocab_size,           find_piece, encode};
    return &functions;
}
