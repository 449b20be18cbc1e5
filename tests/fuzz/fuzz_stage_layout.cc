/* tests/fuzz/fuzz_stage_layout.cc -- layout strings: "LAYERS PIECES TEXT". What is read must be a
 * split, and the same one after it was written. */
#include "pipeline/partition.h"
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static void require(bool condition)
{
    if (!condition)
        std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const std::string input(reinterpret_cast<const char *>(data), size);
    char *rest;
    const long layers = std::strtol(input.c_str(), &rest, 10);
    const long pieces = std::strtol(rest, &rest, 10);
    const int num_layers = (int)std::clamp(layers, 1L, 100000L);
    const int num_pieces = (int)std::clamp(pieces, 1L, 1000L);

    std::vector<struct tv_unit_range> ranges((size_t)num_pieces, {-7, -7});
    if (tv_partition_layout(rest, num_layers, num_pieces, ranges.data()) != TV_OK) {
        require(ranges.front().first == -7 && std::strlen(tv_error_message()) > 0);
        return 0;
    }
    require(tv_partition_check(num_layers, num_pieces, ranges.data()) == TV_OK);

    std::vector<char> text(20 * (size_t)num_pieces + 20);
    require(tv_partition_format(num_layers, num_pieces, ranges.data(), text.data(), text.size()) ==
            TV_OK);
    std::vector<struct tv_unit_range> again((size_t)num_pieces);
    require(tv_partition_layout(text.data(), num_layers, num_pieces, again.data()) == TV_OK);
    for (size_t i = 0; i < again.size(); i++)
        require(again[i].first == ranges[i].first && again[i].num == ranges[i].num);
    return 0;
}
