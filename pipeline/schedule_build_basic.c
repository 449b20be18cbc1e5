/* pipeline/schedule_build_basic.c -- one chunk per stage, the backward in one part.
 *
 * Costs here and in the other builders: F = I = W = 1, so B = 2; messages take no time.
 *
 * naive: one micro-batch at a time. Makespan 3Pm, bubble (P-1)/P, 1 slot.
 * gpipe (Huang et al. 2019, arXiv:1811.06965): all forwards, then all backwards; m slots.
 * 1f1b (Narayanan et al. 2019, PipeDream; the flushed form of Narayanan et al. 2021,
 * arXiv:2104.04473): stage r does w = min(P-1-r, m) forwards, then m - w times a forward and a
 * backward, then w backwards; min(P-r, m) slots.
 * Both: makespan 3(m+P-1), bubble (P-1)/(m+P-1), stage r waits 3(P-1-r) in its own window. */
#include "pipeline/schedule_build_internal.h"

struct tv_list_choice tv_choose_all(const struct tv_schedule_args *args)
{
    return (struct tv_list_choice){.num_micro = args->num_micro};
}

void tv_write_naive(struct tv_list_writer *writer)
{
    tv_list_repeat(writer, writer->m, "F B");
}

void tv_write_gpipe(struct tv_list_writer *writer)
{
    tv_list_repeat(writer, writer->m, "F");
    tv_list_repeat(writer, writer->m, "B");
}

void tv_write_1f1b(struct tv_list_writer *writer)
{
    const int warmup = tv_min_int(writer->P - 1 - writer->r, writer->m);
    tv_list_repeat(writer, warmup, "F");
    tv_list_repeat(writer, writer->m - warmup, "F B");
    tv_list_repeat(writer, warmup, "B");
}
