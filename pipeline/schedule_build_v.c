/* pipeline/schedule_build_v.c -- two chunks per stage in V placement: zb-v, dualpipe-v, v-half and
 * v-min. Slots are of half a stage: 2P of them are 1f1b's P.
 *
 * zb-v (Qi et al. 2023, arXiv:2401.10241, section 6), written for max(m, 2P-1) and cut to m:
 * makespan max(6m+P-1, 4m+4P-2), 2P slots; from m = 2P-1 on no stage waits in its own window. All
 * of this with F = I = W only.
 *
 * dualpipe-v (DeepSeek-AI 2024, arXiv:2412.19437; the V form of DualPipe), written for max(m, 2P)
 * and cut to m. From m = 2P on: 2P+1 slots (P >= 2); makespan 6m+P-1 if pairs run in turn, and
 * stage r waits P-1-r in its own window; 6m+2(P-1) and 2(P-1)-r if a pair is one action of cost 3.
 *
 * v-half, v-min (Qi et al. 2024, arXiv:2405.15362): each stage repeats four cells every 6 units, a
 * free cell takes the oldest W. Makespan 6m+x:
 *   v-half  x = (7P-4)/2, P odd: (7P-7)/2, from m = floor(P/2)+1 on; slots 2 floor(P/2) + 2
 *   v-min   x = 4P-5, 3 | P: 4P-3, from m = 2 on; slots 2 floor((P+4)/3)
 * The published lists are these after a reordering of warm-up and drain, which is not done here:
 * it lowers x to 3P-7, 3P-4 (v-half, P even, odd) and to 4P-7 (v-min, 3 | P). */
#include "pipeline/schedule_build_internal.h"

struct tv_list_choice tv_choose_zb_v(const struct tv_schedule_args *args)
{
    const int least = 2 * args->num_stages - 1;
    return (struct tv_list_choice){.num_micro = tv_max_int(args->num_micro, least)};
}

void tv_write_zb_v(struct tv_list_writer *writer)
{
    const int P = writer->P, r = writer->r, m = writer->m;
    tv_list_repeat(writer, 2 * (P - r) - 1, "F0");
    tv_list_repeat(writer, r, "F1 F0");
    tv_list_repeat(writer, P - r, "F1 I1 W1");
    while (writer->num_forwards[0] < m || writer->num_forwards[1] < m)
        tv_list_repeat(writer, 1,
                       writer->num_forwards[0] < m ? "F0 I0 W0 F1 I1 W1" : "I0 W0 F1 I1 W1");
    tv_list_repeat(writer, r, "I0 I1");
    tv_list_repeat(writer, P - r, "I0 W0");
    tv_list_repeat(writer, m - writer->num_weights[1], "W1");
    tv_list_repeat(writer, m - writer->num_weights[0], "W0");
}

struct tv_list_choice tv_choose_dualpipe_v(const struct tv_schedule_args *args)
{
    const int least = 2 * args->num_stages;
    return (struct tv_list_choice){.num_micro = tv_max_int(args->num_micro, least)};
}

void tv_write_dualpipe_v(struct tv_list_writer *writer)
{
    const int P = writer->P, r = writer->r, m = writer->m;
    const int num_steady = m - 2 * P + r + 1;
    const int is_last = r == P - 1; /* its first F0 makes what the B1 beside it waits for */
    tv_list_repeat(writer, 2 * (P - 1 - r), "F0");
    tv_list_repeat(writer, r + 1, "F0 F1");
    tv_list_repeat(writer, P - 1 - r, "I1 Wq F1");
    tv_list_repeat(writer, is_last, "F0 B1 {F1 B0}");
    tv_list_repeat(writer, num_steady - is_last, "{F0 B1} {F1 B0}");
    tv_list_repeat(writer, P - 1 - r, "B1 {F1 B0}");
    const int num_whole = (r + 1) / 2, num_half = r % 2 == 0;
    tv_list_repeat(writer, num_whole, "B1 B0");
    tv_list_repeat(writer, num_half, "B1 I0");
    tv_list_repeat(writer, r + 1 - num_whole - num_half, "I1 I0");
    tv_list_repeat(writer, P - 1 - r, "Wq I0");
    tv_list_repeat(writer, r + 1, "Wq");
}

enum { PERIOD = 6 }; /* F, I and W of two chunks */

/* Micro-batch i has its cells[k] of kinds[k] at the time given there + 6 i. */
static void write_cells(struct tv_list_writer *writer, const int cells[4])
{
    static const char *const kinds[] = {"F0", "F1", "I1", "I0"};
    const int m = writer->m, end = cells[3] + PERIOD * m; /* I0 is the last of a micro-batch */
    for (int time = 0; time < end; time++) {
        const char *kind = "Wq";
        for (int k = 0; k < 4; k++) {
            const int since = time - cells[k];
            if (since >= 0 && since % PERIOD == 0 && since / PERIOD < m)
                kind = kinds[k];
        }
        tv_list_repeat(writer, 1, kind);
    }
    tv_list_repeat(writer, 2 * m, "Wq");
}

void tv_write_v_half(struct tv_list_writer *writer)
{
    const int P = writer->P, r = writer->r, gap = P % 2 == 0 ? 3 : 0;
    const int cells[] = {2 * r, 3 * P - 2 - r, 3 * P - 1 + gap + 2 * r, 6 * P - 2 + gap - r};
    write_cells(writer, cells);
}

void tv_write_v_min(struct tv_list_writer *writer)
{
    const int P = writer->P, r = writer->r, gap = P % 3 == 0 ? 2 : 0;
    const int cells[] = {r, 2 * P - 1 - r, 2 * P + gap + r, 4 * P - 1 + gap - r};
    write_cells(writer, cells);
}
