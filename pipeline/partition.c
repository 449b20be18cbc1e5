/* pipeline/partition.c -- contiguous ranges of units for the stages. */
#include "pipeline/partition.h"

tv_status_t tv_partition_uniform(int num_layers, int num_pieces, struct tv_unit_range *ranges_out)
{
    if (num_pieces < 1 || num_layers < num_pieces)
        return TV_ERR(
            TV_INVALID,
            "%d layers cannot be split uniformly over %d stages: at most %d stages, or more layers",
            num_layers, num_pieces, num_layers);
    int unit = 0;
    for (int i = 0; i < num_pieces; i++) {
        int num = num_layers / num_pieces + (i < num_layers % num_pieces);
        num += i == 0;              /* embedding */
        num += i == num_pieces - 1; /* head */
        ranges_out[i] = (struct tv_unit_range){unit, num};
        unit += num;
    }
    return TV_OK;
}

tv_status_t tv_partition_check(int num_layers, int num_pieces, const struct tv_unit_range *ranges)
{
    int unit = 0;
    for (int i = 0; i < num_pieces; i++) {
        if (ranges[i].first != unit || ranges[i].num < 1)
            return TV_ERR(
                TV_INVALID,
                "stage %d holds units %d..%d, expected to begin at %d and hold at least one", i,
                ranges[i].first, ranges[i].first + ranges[i].num - 1, unit);
        unit += ranges[i].num;
    }
    if (unit != num_layers + 2)
        return TV_ERR(TV_INVALID, "the stages hold %d units, the model has %d", unit,
                      num_layers + 2);
    return TV_OK;
}
