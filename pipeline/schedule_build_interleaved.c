/* pipeline/schedule_build_interleaved.c -- v >= 2 chunks per stage in loop placement (Narayanan et
 * al. 2021, arXiv:2104.04473), for any m >= 1.
 *
 * 1. Groups: cut 0 .. m-1 into q = max(1, floor(m/P)) runs whose sizes differ by at most 1, larger
 *    ones first; N = ceil(m/q) is the largest. Never a short last group, which can deadlock.
 * 2. Forwards, on all stages: group by group, in it chunk by chunk, in it ascending.
 * 3. Backwards: the same with the chunks from the last to the first.
 * 4. w = min(vm, a (P-1-r) + (v-1) N) forwards, then vm - w times a forward and a backward, then w
 *    backwards. a = 2 hides messages; a = 1 takes fewer slots.
 *
 * Makespan 3(max(vm+P, vP+m) - 1): from m = P on, bubble (P-1)/(vm+P-1) and stage r waits 3(P-1-r)
 * in its own window. Slots min(vm, a (P-1-r) + (v-1) N + 1). Written for the next multiple of P and
 * cut to m, a = 1 takes at most vP - r slots, and 3(v-1)(P - m mod P) longer. */
#include "pipeline/schedule_build_internal.h"

static int num_groups(int P, int m)
{
    return tv_max_int(1, m / P);
}

static int num_warmup(int v, int P, int r, int m, int spread)
{
    const int q = num_groups(P, m), largest = (m + q - 1) / q;
    return tv_min_int(v * m, spread * (P - 1 - r) + (v - 1) * largest);
}

/* The k-th action of its kind. */
static void append_kth(struct tv_list_writer *writer, tv_action_kind_t kind, int k)
{
    const int v = writer->schedule->num_chunks, q = num_groups(writer->P, writer->m);
    int size = writer->m / q + 1, first = 0;
    const int num_larger = writer->m % q;
    if (k >= num_larger * size * v) { /* behind the larger groups */
        first = num_larger * size;
        k -= first * v;
        size--;
    }
    first += k / (size * v) * size;
    const int chunk = k / size % v;
    tv_schedule_append(writer->schedule, writer->r, kind,
                       kind == TV_ACT_FORWARD ? chunk : v - 1 - chunk, first + k % size);
}

void tv_write_interleaved(struct tv_list_writer *writer)
{
    const int v = writer->schedule->num_chunks, all = v * writer->m;
    const int warmup = num_warmup(v, writer->P, writer->r, writer->m, writer->warmup);
    for (int k = 0; k < warmup; k++)
        append_kth(writer, TV_ACT_FORWARD, k);
    for (int k = warmup; k < all; k++) {
        append_kth(writer, TV_ACT_FORWARD, k);
        append_kth(writer, TV_ACT_BACKWARD, k - warmup);
    }
    for (int k = all - warmup; k < all; k++)
        append_kth(writer, TV_ACT_BACKWARD, k);
}

/* The fastest that fits: a = 2, a = 1, a = 1 for the next multiple of P. */
struct tv_list_choice tv_choose_interleaved(const struct tv_schedule_args *args)
{
    const int P = args->num_stages, v = args->num_chunks, m = args->num_micro;
    for (int spread = 2; spread >= 1; spread--) {
        const int slots = tv_min_int(v * m, num_warmup(v, P, 0, m, spread) + 1);
        if (args->slot_limit == 0 || slots <= args->slot_limit)
            return (struct tv_list_choice){.num_micro = m, .warmup = spread};
    }
    return (struct tv_list_choice){.num_micro = (m + P - 1) / P * P, .warmup = 1};
}
