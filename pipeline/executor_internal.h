/* pipeline/executor_internal.h -- message buffers and requests of one stage.
 *
 * A message is known by the chunk and micro-batch of the position that uses it, whether it comes
 * from another stage or from a neighbouring position of this one. */
#ifndef TV_PIPELINE_EXECUTOR_INTERNAL_H
#define TV_PIPELINE_EXECUTOR_INTERNAL_H
#include "pipeline/executor.h"

TV_BEGIN_C
enum { TV_EARLY_RECEIVES = 2 };

/* Numbered places, each held under a key. */
struct tv_seats {
    int num;
    int *keys; /* [num] or -1 */
};
TV_MUST_CHECK tv_status_t tv_seats_create(int num, struct tv_seats *seats_out);
void tv_seats_destroy(struct tv_seats *seats);
int tv_seats_take(struct tv_seats *seats, int key); /* the lowest that is free; there is one */
int tv_seats_find(const struct tv_seats *seats, int key); /* or -1 */
void tv_seats_leave(struct tv_seats *seats, int key);     /* of one that has none: no-op */

/* Message buffers, each with its operation under way, NULL where there is none. */
struct tv_messages {
    int num;
    struct tv_buffer buffer;      /* [num, message_count] */
    struct tv_request **requests; /* [num] */
};

/* What the positions of this stage are given: their x, or their dy. */
struct tv_inbox {
    struct tv_comm *comm;
    tv_action_kind_t kind; /* of its receives */
    struct tv_messages messages;
    struct tv_seats seats; /* [messages.num] */
    int next;              /* action of the list before which all receives are posted */
    int num_ahead;         /* posted and not yet taken */
};

/* A chunk of this stage: its neighbours' stages, -1 beyond an end of the model, and their chunks
 * there; and what it holds. */
struct tv_chunk {
    int previous_stage, previous_chunk, next_stage, next_chunk;
    struct tv_seats slots, works; /* by micro-batch */
    struct tv_messages y, dx;     /* for other stages: y by slot, dx by turns */
    int num_dx_made, num_dx_sent; /* in this walk */
    int num_weight_gradients;     /* B and W in this walk */
};

struct tv_executor {
    const struct tv_schedule *schedule;
    int stage;
    int64_t message_count;
    tv_dtype_t dtype; /* of messages */
    struct tv_stream *stream;
    struct tv_comm *forward, *backward; /* activations; gradients */
    struct tv_inbox x, dy;
    struct tv_chunk *chunks; /* [v] */
    int has_split_backwards; /* on any stage */
    int evaluation_group;    /* micro-batches that an evaluation takes through a chunk at a time */
    struct tv_action current;
    struct tv_action_time *times; /* [num_actions] */
};

/* How many buffers a stage needs (executor_plan.c): x (recv_kind RECV_F) or dy (RECV_B) of all its
 * positions; y and dx that a chunk sends. 0 where it has none. */
int tv_plan_inbox(const struct tv_schedule *schedule, int stage, tv_action_kind_t recv_kind);
int tv_plan_y(const struct tv_schedule *schedule, int stage, int chunk);
int tv_plan_dx(const struct tv_schedule *schedule, int stage, int chunk);
int tv_plan_evaluation_group(const struct tv_schedule *schedule);

TV_MUST_CHECK tv_status_t tv_messages_create(const struct tv_executor *e, int num,
                                             struct tv_messages *messages_out);
/* Gives up what is still under way. */
void tv_messages_destroy(struct tv_messages *messages);
void *tv_messages_data(const struct tv_executor *e, const struct tv_messages *messages, int index);
/* NULL is done. Whoever waits says what the executor is doing. */
TV_MUST_CHECK tv_status_t tv_message_wait(struct tv_executor *e, struct tv_request **request);
/* The buffer `index` to write to, after the send that was in it. */
TV_MUST_CHECK tv_status_t tv_messages_reserve(struct tv_executor *e, struct tv_messages *messages,
                                              int index, void **data_out);
TV_MUST_CHECK tv_status_t tv_messages_send(struct tv_executor *e, struct tv_messages *messages,
                                           int index, struct tv_comm *comm, int peer);
/* Wait for all sends of this stage. */
TV_MUST_CHECK tv_status_t tv_executor_finish_sends(struct tv_executor *e);

TV_MUST_CHECK tv_status_t tv_inbox_create(struct tv_executor *e, tv_action_kind_t kind,
                                          struct tv_comm *comm, struct tv_inbox *box_out);
void tv_inbox_destroy(struct tv_inbox *box);
TV_MUST_CHECK tv_status_t tv_inbox_post(struct tv_executor *e, struct tv_inbox *box, int chunk,
                                        int micro, int peer);
/* Post receives in list order, until TV_EARLY_RECEIVES are ahead of what was taken. */
TV_MUST_CHECK tv_status_t tv_inbox_post_ahead(struct tv_executor *e, struct tv_inbox *box);
/* Wait for a message that is posted; it stays until tv_inbox_release. */
TV_MUST_CHECK tv_status_t tv_inbox_wait(struct tv_executor *e, struct tv_inbox *box, int chunk,
                                        int micro);
/* A buffer for what this stage itself makes for one of its positions. */
void *tv_inbox_reserve(const struct tv_executor *e, struct tv_inbox *box, int chunk, int micro);
/* Where the message lies. NULL when there is none. */
void *tv_inbox_data(const struct tv_executor *e, const struct tv_inbox *box, int chunk, int micro);
void tv_inbox_release(const struct tv_executor *e, struct tv_inbox *box, int chunk, int micro);

/* Is a neighbour's stage another one, which messages go to or come from? */
static inline int tv_executor_is_other(const struct tv_executor *e, int stage)
{
    return stage >= 0 && stage != e->stage;
}
TV_END_C
#endif
