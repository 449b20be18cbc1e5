/* pipeline/executor_plan.c -- how many message buffers a stage needs, counted from the schedule
 * alone, so that a send waits for nothing but a message that its peer already has.
 *
 *   x   as many as are kept at once, from the receive, or from the F of the position before on this
 *       stage, to the B or W that uses it last; and TV_EARLY_RECEIVES more if any are received
 *   dy  the same, from the receive, or from the B or I of the position behind on this stage
 *   y   one per slot of each chunk that sends. Who takes a slot again has done the B or W of the
 *       micro-batch that had it; so the next position made its gradient, and had received its y
 *   dx  for each chunk that sends, as many as the position before has micro-batches between F and
 *       the receive of their gradient, by turns. One of these buffers n turns later: were its
 *       message not received, neither were those behind it (messages of one position are taken in
 *       the order they are made), and n + 1 micro-batches were between F and receive there. Gradients
 *       of different chunks may go to different stages, which do not wait for each other: so each
 *       chunk takes turns by itself. */
#include "pipeline/executor_internal.h"
#include "pipeline/schedule_internal.h"

static int has_receives(const struct tv_schedule *schedule, int stage, int shift)
{
    for (int c = 0; c < schedule->num_chunks; c++) {
        const int source = tv_schedule_neighbour(schedule, stage, c, shift);
        if (source >= 0 && source != stage)
            return 1;
    }
    return 0;
}

int tv_plan_inbox(const struct tv_schedule *schedule, int stage, tv_action_kind_t recv_kind)
{
    const int is_forward = recv_kind == TV_ACT_RECV_FORWARD, shift = is_forward ? -1 : 1;
    int held = 0, peak = 0;
    for (int i = 0; i < schedule->stages[stage].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[stage].actions[i];
        const int makes = is_forward ? a->kind == TV_ACT_FORWARD : tv_action_makes_dx(a->kind);
        const int target = tv_schedule_neighbour(schedule, stage, a->chunk, -shift);
        held += a->kind == recv_kind || (makes && target == stage);
        peak = held > peak ? held : peak;
        if (tv_action_makes_dw(a->kind))
            held -= tv_schedule_neighbour(schedule, stage, a->chunk, shift) >= 0;
    }
    return peak + (has_receives(schedule, stage, shift) ? TV_EARLY_RECEIVES : 0);
}

int tv_plan_y(const struct tv_schedule *schedule, int stage, int chunk)
{
    const int next = tv_schedule_neighbour(schedule, stage, chunk, +1);
    return next < 0 || next == stage ? 0 : tv_schedule_chunk_slots(schedule, stage, chunk);
}

int tv_plan_dx(const struct tv_schedule *schedule, int stage, int chunk)
{
    const int previous = tv_schedule_neighbour(schedule, stage, chunk, -1);
    if (previous < 0 || previous == stage)
        return 0;
    const int position = tv_schedule_position(schedule, stage, chunk);
    const int previous_chunk = tv_schedule_chunk_of(schedule, position - 1);
    int between = 0, peak = 0;
    for (int i = 0; i < schedule->stages[previous].num_actions; i++) {
        const struct tv_action *a = &schedule->stages[previous].actions[i];
        if (a->chunk != previous_chunk)
            continue;
        between += (a->kind == TV_ACT_FORWARD) - (a->kind == TV_ACT_RECV_BACKWARD);
        peak = between > peak ? between : peak;
    }
    return peak;
}

int64_t tv_executor_buffer_bytes(const struct tv_schedule *schedule, int stage,
                                 int64_t message_count, tv_dtype_t dtype)
{
    int64_t num = (int64_t)tv_plan_inbox(schedule, stage, TV_ACT_RECV_FORWARD) +
                  tv_plan_inbox(schedule, stage, TV_ACT_RECV_BACKWARD);
    for (int c = 0; c < schedule->num_chunks; c++)
        num += tv_plan_y(schedule, stage, c) + tv_plan_dx(schedule, stage, c);
    return num * message_count * (int64_t)tv_dtype_bytes(dtype);
}

/* A pass is a run of positions on different stages, as long as it can be: with loop and V placement
 * a chunk of each stage. Is `position` the last of its pass? */
static int ends_pass(const struct tv_schedule *schedule, int position)
{
    int first = 0;
    for (int p = 1; p <= position + 1; p++) {
        for (int q = first; q < p; q++) {
            if (tv_schedule_stage_of(schedule, q) == tv_schedule_stage_of(schedule, p))
                first = p;
        }
    }
    return first == position + 1;
}

/* Can a stage evaluate groups of so many micro-batches with the buffers it has? For y see
 * executor_evaluate.c; of x, those handed over on this stage, one received, and the early ones. */
static int group_fits(const struct tv_schedule *schedule, int stage, int group)
{
    int held = 0, peak = 0;
    for (int c = 0; c < schedule->num_chunks; c++) {
        const int previous = tv_schedule_neighbour(schedule, stage, c, -1);
        const int next = tv_schedule_neighbour(schedule, stage, c, +1);
        if (next >= 0 && next != stage && group > tv_plan_y(schedule, stage, c) &&
            ends_pass(schedule, tv_schedule_position(schedule, stage, c)))
            return 0;
        for (int i = 0; i < group; i++) {
            held += next == stage;
            const int used = held + (previous >= 0 && previous != stage);
            peak = used > peak ? used : peak;
            held -= previous == stage;
        }
    }
    peak += has_receives(schedule, stage, -1) ? TV_EARLY_RECEIVES : 0;
    return peak <= tv_plan_inbox(schedule, stage, TV_ACT_RECV_FORWARD);
}

/* The largest that fits everywhere. One always does: a step holds the x of all chunks at once, too.
 * 2P keep each stage busy in any placement. */
int tv_plan_evaluation_group(const struct tv_schedule *schedule)
{
    int group = 2 * schedule->num_stages;
    for (int s = 0; s < schedule->num_stages; s++) {
        while (group > 1 && !group_fits(schedule, s, group))
            group--;
    }
    return group;
}
