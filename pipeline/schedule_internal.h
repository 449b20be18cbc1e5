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
/* Backward after which the weights have this micro-batch's gradient: B or W. */
static inline int tv_action_makes_dw(tv_action_kind_t kind)
{
    return kind == TV_ACT_BACKWARD || kind == TV_ACT_BACKWARD_WEIGHT;
}

/* The stage of the position `shift` (+1 or -1) from this one; -1 beyond an end of the model. */
int tv_schedule_neighbour(const struct tv_schedule *schedule, int stage, int chunk, int shift);

/* An empty schedule with args' name and sizes and the given placement, each stage with room for
 * `capacity` actions. */
TV_MUST_CHECK tv_status_t tv_schedule_alloc(const struct tv_schedule_args *args,
                                            tv_chunk_placement_t placement, int capacity,
                                            struct tv_schedule *schedule_out);
/* Give an empty stage room for `capacity` actions. */
TV_MUST_CHECK tv_status_t tv_schedule_reserve(struct tv_schedule *schedule, int stage,
                                              int capacity);
void tv_schedule_append(struct tv_schedule *schedule, int stage, tv_action_kind_t kind, int chunk,
                        int micro);
/* Delete every action whose micro-batch is num_micro or more. What remains of an executable
 * schedule is executable: dependencies stay inside a micro-batch. Compute lists only. */
void tv_schedule_drop(struct tv_schedule *schedule, int num_micro);

/* Compute lists -> compute and messages: a send behind the action that made it, a receive before
 * the action that needs it, and with it all earlier ones of that sender and kind, in the order in
 * which they are sent; neighbours on one stage need none. */
TV_MUST_CHECK tv_status_t tv_schedule_lower(const struct tv_schedule *compute,
                                            struct tv_schedule *lowered_out);
TV_END_C
#endif
