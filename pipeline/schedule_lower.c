/* pipeline/schedule_lower.c -- from compute lists to lists with messages.
 *
 * A channel is an ordered pair of stages and a kind: on it, messages are received in the order in
 * which they are sent. So the receive of a message stands before the action that needs it, and
 * behind the receives of all that its sender sends earlier. */
#include "pipeline/schedule_internal.h"
#include <stdlib.h>
#include <string.h>

struct lowering {
    const struct tv_schedule *compute;
    struct tv_schedule *lowered;
    int *cursor;              /* [P, P, 2] action of the sender up to which messages are received */
    unsigned char *has_taken; /* [positions, m, 2] the position's message was received */
};

static void append_message(struct lowering *l, int stage, tv_action_kind_t kind,
                           const struct tv_action *of, int peer)
{
    struct tv_action_list *list = &l->lowered->stages[stage];
    list->actions[list->num_actions++] =
        (struct tv_action){.kind = kind, .chunk = of->chunk, .micro = of->micro, .peer = peer};
}

/* The stage that an action's result goes to, or -1. is_forward: F to position + 1; else B or I to
 * position - 1. */
static int target_of(const struct tv_schedule *schedule, int stage, const struct tv_action *a,
                     int is_forward)
{
    const int sends = is_forward ? a->kind == TV_ACT_FORWARD : tv_action_makes_dx(a->kind);
    const int peer =
        sends ? tv_schedule_neighbour(schedule, stage, a->chunk, is_forward ? 1 : -1) : -1;
    return peer == stage ? -1 : peer;
}

/* Receives on `stage` all that `from` sends up to and with the message for `wanted`. A message that
 * nobody sends is left to the checker. */
static void receive_up_to(struct lowering *l, int stage, int from, const struct tv_action *wanted,
                          int is_forward)
{
    const struct tv_schedule *c = l->compute;
    const struct tv_action_list *list = &c->stages[from];
    int *i = &l->cursor[(from * c->num_stages + stage) * 2 + is_forward];
    const int shift = is_forward ? 1 : -1;
    while (*i < list->num_actions) {
        const struct tv_action *a = &list->actions[(*i)++];
        if (target_of(c, from, a, is_forward) != stage)
            continue;
        const int position = tv_schedule_position(c, from, a->chunk) + shift;
        const struct tv_action message = {.chunk = tv_schedule_chunk_of(c, position),
                                          .micro = a->micro};
        append_message(l, stage, is_forward ? TV_ACT_RECV_FORWARD : TV_ACT_RECV_BACKWARD, &message,
                       from);
        l->has_taken[(position * c->num_micro + a->micro) * 2 + is_forward] = 1;
        if (message.chunk == wanted->chunk && message.micro == wanted->micro)
            return;
    }
}

static void receive(struct lowering *l, int stage, const struct tv_action *a, int is_forward)
{
    const struct tv_schedule *c = l->compute;
    const int from = tv_schedule_neighbour(c, stage, a->chunk, is_forward ? -1 : 1);
    const int position = tv_schedule_position(c, stage, a->chunk);
    if (from >= 0 && from != stage &&
        !l->has_taken[(position * c->num_micro + a->micro) * 2 + is_forward])
        receive_up_to(l, stage, from, a, is_forward);
}

static void lower_action(struct lowering *l, int stage, const struct tv_action *a)
{
    if (a->kind == TV_ACT_FORWARD)
        receive(l, stage, a, 1);
    if (tv_action_makes_dx(a->kind))
        receive(l, stage, a, 0);
    struct tv_action_list *list = &l->lowered->stages[stage];
    list->actions[list->num_actions++] = *a;
    for (int is_forward = 0; is_forward < 2; is_forward++) {
        const int peer = target_of(l->compute, stage, a, is_forward);
        if (peer >= 0)
            append_message(l, stage, is_forward ? TV_ACT_SEND_FORWARD : TV_ACT_SEND_BACKWARD, a,
                           peer);
    }
}

/* Actions of the lowered lists: the stage's own, its sends, and what others send to it. */
static void count_lowered(const struct tv_schedule *compute, int *counts_out)
{
    for (int s = 0; s < compute->num_stages; s++) {
        counts_out[s] += compute->stages[s].num_actions;
        for (int i = 0; i < compute->stages[s].num_actions; i++) {
            for (int is_forward = 0; is_forward < 2; is_forward++) {
                const int to = target_of(compute, s, &compute->stages[s].actions[i], is_forward);
                if (to >= 0) {
                    counts_out[s]++;
                    counts_out[to]++;
                }
            }
        }
    }
}

/* Room for every list, and what the lowering remembers. */
static int alloc_lists(struct lowering *l)
{
    const size_t P = (size_t)l->compute->num_stages;
    const size_t places = P * (size_t)l->compute->num_chunks;
    int *counts = calloc(P, sizeof(int));
    l->cursor = calloc(P * P * 2, sizeof(int));
    l->has_taken = calloc(places * (size_t)l->compute->num_micro * 2, 1);
    int is_whole = counts != NULL && l->cursor != NULL && l->has_taken != NULL;
    if (is_whole)
        count_lowered(l->compute, counts);
    for (int s = 0; s < l->compute->num_stages && is_whole; s++)
        is_whole = tv_schedule_reserve(l->lowered, s, counts[s]) == TV_OK;
    free(counts);
    return is_whole;
}

tv_status_t tv_schedule_lower(const struct tv_schedule *compute, struct tv_schedule *lowered_out)
{
    const size_t places = (size_t)compute->num_stages * (size_t)compute->num_chunks;
    const struct tv_schedule_args args = {compute->name, compute->num_stages, compute->num_chunks,
                                          compute->num_micro, 0};
    struct tv_schedule lowered;
    TV_TRY(tv_schedule_alloc(&args, TV_PLACE_LOOP, 1, &lowered));
    memcpy(lowered.position_of, compute->position_of, places * sizeof(int));
    memcpy(lowered.place_of, compute->place_of, places * sizeof(int));
    lowered.is_ordered = compute->is_ordered;
    struct lowering l = {.compute = compute, .lowered = &lowered};
    const int is_whole = alloc_lists(&l);
    for (int s = 0; s < compute->num_stages && is_whole; s++) {
        for (int i = 0; i < compute->stages[s].num_actions; i++)
            lower_action(&l, s, &compute->stages[s].actions[i]);
    }
    free(l.cursor);
    free(l.has_taken);
    if (!is_whole) {
        tv_schedule_destroy(&lowered);
        return TV_ERR(TV_NO_MEMORY, "messages of schedule %s", compute->name);
    }
    *lowered_out = lowered;
    return TV_OK;
}
