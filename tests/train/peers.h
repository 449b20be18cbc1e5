// Token files as llm.c and Megatron-LM write them, from what their projects document.
#ifndef TV_TESTS_TRAIN_PEERS_H
#define TV_TESTS_TRAIN_PEERS_H
#include "temporary.h"
#include <vector>

template <typename T> std::string file_of(const std::vector<T> &numbers)
{
    std::string content;
    for (T number : numbers)
        content += bytes_of(number);
    return content;
}

// 256 int32, then the ids: gpt-2 has 16 bits each (magic 20240520, version 1), llama-3 has 32.
template <typename T> std::string llmc_file(const std::vector<T> &ids)
{
    std::vector<int32_t> header(256, 0);
    header[0] = sizeof(T) == 2 ? 20240520 : 20240801;
    header[1] = sizeof(T) == 2 ? 1 : 7;
    header[2] = (int32_t)ids.size();
    return file_of(header) + file_of(ids);
}

// The .idx beside a .bin whose ids have the type `code` (8: uint16, 4: int32, 1: uint8).
struct MegatronIndex {
    uint8_t code = 8;
    std::vector<int32_t> lengths;   // ids of each sequence
    std::vector<int64_t> documents; // first sequence of each, and the number of sequences
    int64_t width() const
    {
        return code == 1 ? 1 : code == 8 ? 2 : 4;
    }
    std::string text() const
    {
        std::string content("MMIDIDX\0\0", 9);
        std::vector<int64_t> pointers;
        int64_t at = 0;
        for (int32_t length : lengths) {
            pointers.push_back(at);
            at += length * width();
        }
        content += bytes_of<uint64_t>(1) + bytes_of(code) + bytes_of<uint64_t>(lengths.size()) +
                   bytes_of<uint64_t>(documents.size());
        return content + file_of(lengths) + file_of(pointers) + file_of(documents);
    }
};
#endif
