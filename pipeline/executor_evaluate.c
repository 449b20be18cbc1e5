/* pipeline/executor_evaluate.c -- forwards only, for any number of micro-batches.
 *
 * Groups of G micro-batches go through one chunk after the other, so that stages with several
 * chunks work side by side. Let a pass be a run of positions on different stages, as long as it can
 * be. All stages walk one common order by (group, pass, micro-batch, position): a stage's chunks
 * ascend with their passes, and a forward needs only what comes earlier. Without limits on buffers,
 * then, nobody waits for ever. Neither does who waits for a buffer: the y of a chunk are used by
 * turns, n of them, so (group, pass, i, p) waits until (.., i - n, p + 1) is received. In the same
 * pass that is earlier in the common order for any n; in the next pass it is if n >= G, for then
 * i - n is of an earlier group. Each x held at once has a buffer (tv_plan_evaluation_group). */
#include "pipeline/executor_internal.h"

struct place {
    int chunk, micro;
};

/* The place behind `at`; over when its micro-batch is num_micro or more. */
static struct place next_place(const struct tv_executor *e, struct place at, int num_micro)
{
    const int first = at.micro - at.micro % e->evaluation_group;
    const int end = first + e->evaluation_group;
    if (at.micro + 1 < (end < num_micro ? end : num_micro))
        return (struct place){at.chunk, at.micro + 1};
    if (at.chunk + 1 < e->schedule->num_chunks)
        return (struct place){at.chunk + 1, first};
    return (struct place){0, end};
}

/* Post receives in order, beginning at *next, until TV_EARLY_RECEIVES are ahead of what was taken.
 */
static tv_status_t post_ahead(struct tv_executor *e, struct place *next, int num_micro)
{
    while (e->x.num_ahead < TV_EARLY_RECEIVES && next->micro < num_micro) {
        const struct place at = *next;
        const int peer = e->chunks[at.chunk].previous_stage;
        if (tv_executor_is_other(e, peer))
            TV_TRY(tv_inbox_post(e, &e->x, at.chunk, at.micro, peer));
        *next = next_place(e, at, num_micro);
    }
    return TV_OK;
}

/* One forward, whose input is there. */
static tv_status_t evaluate(struct tv_executor *e, struct place at,
                            const struct tv_stage_functions *f)
{
    struct tv_chunk *chunk = &e->chunks[at.chunk];
    const int is_sent = tv_executor_is_other(e, chunk->next_stage);
    const int turn = is_sent ? at.micro % chunk->y.num : 0;
    struct tv_stage_call call = {.chunk = at.chunk, .micro = at.micro};
    call.x = tv_inbox_data(e, &e->x, at.chunk, at.micro);
    if (is_sent)
        TV_TRY(tv_messages_reserve(e, &chunk->y, turn, &call.y));
    else if (chunk->next_stage == e->stage)
        call.y = tv_inbox_reserve(e, &e->x, chunk->next_chunk, at.micro);
    TV_TRY(f->forward(f->context, &call));
    tv_inbox_release(e, &e->x, at.chunk, at.micro);
    return is_sent ? tv_messages_send(e, &chunk->y, turn, e->forward, chunk->next_stage) : TV_OK;
}

tv_status_t tv_executor_run_forward(struct tv_executor *e, int num_micro,
                                    const struct tv_stage_functions *functions)
{
    struct place posted = {0, 0};
    e->x.num_ahead = 0;
    for (struct place at = {0, 0}; at.micro < num_micro; at = next_place(e, at, num_micro)) {
        e->current = (struct tv_action){
            .kind = TV_ACT_FORWARD, .chunk = at.chunk, .micro = at.micro, .peer = -1};
        TV_TRY(post_ahead(e, &posted, num_micro));
        if (tv_executor_is_other(e, e->chunks[at.chunk].previous_stage)) {
            e->x.num_ahead--;
            TV_TRY(post_ahead(e, &posted, num_micro));
            TV_TRY(tv_inbox_wait(e, &e->x, at.chunk, at.micro));
        }
        TV_TRY(evaluate(e, at, functions));
    }
    return tv_executor_finish_sends(e);
}
