/* pipeline/schedule_internal.h -- what the builders, the checker and the simulator share. */
#ifndef TV_PIPELINE_SCHEDULE_INTERNAL_H
#define TV_PIPELINE_SCHEDULE_INTERNAL_H
#include "pipeline/schedule.h"

TV_BEGIN_C
static inline int tv_action_is_compute(tv_action_kind_t kind)
{
    return kind <= TV_ACT_BACKWARD_WEIGHT;
}
static inline int tv_action_is_send(tv_action_kind_t kind)
{
    return kind == TV_ACT_SEND_FORWARD || kind == TV_ACT_SEND_BACKWARD;
}
static inline int tv_action_is_recv(tv_action_kind_t kind)
{
    return kind == TV_ACT_RECV_FORWARD || kind == TV_ACT_RECV_BACKWARD;
}
/* Backward that makes the gradient of the input: B or I. */
static inline int tv_action_makes_dx(tv_action_kind_t kind)
{
    return kind == TV_ACT_BACKWARD || kind == TV_ACT_BACKWARD_INPUT;
}

int tv_schedule_stage_of(const struct tv_schedule *schedule, int position);
int tv_schedule_chunk_of(const struct tv_schedule *schedule, int position);
/* The stage of the position `shift` (+1 or -1) from this one; -1 beyond an end of the model. */
int tv_schedule_neighbour(const struct tv_schedule *schedule, int stage, int chunk, int shift);

/* An empty schedule of P stages, each with room for `capacity` actions. */
TV_MUST_CHECK tv_status_t tv_schedule_alloc(const char *name, int num_stages, int num_chunks,
                                            int num_micro, int capacity,
                                            struct tv_schedule *schedule_out);
void tv_schedule_append(struct tv_schedule *schedule, int stage, tv_action_kind_t kind, int chunk,
                        int micro);

/* Compute lists -> compute and messages: a receive before the action that needs it, a send behind
 * the one that made it; neighbours on one stage need none. */
TV_MUST_CHECK tv_status_t tv_schedule_lower(const struct tv_schedule *compute,
                                            struct tv_schedule *lowered_out);
TV_END_C
#endif
