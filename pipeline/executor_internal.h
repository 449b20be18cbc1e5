/* pipeline/executor_internal.h -- message buffers and requests of one stage. */
#ifndef TV_PIPELINE_EXECUTOR_INTERNAL_H
#define TV_PIPELINE_EXECUTOR_INTERNAL_H
#include "pipeline/executor.h"

TV_BEGIN_C
enum { TV_EARLY_RECEIVES = 2 };

/* The receives of one kind in list order, and the buffers they land in. */
struct tv_inbox {
    struct tv_comm *comm;
    int num_messages;
    const struct tv_action **messages; /* [num_messages], into the schedule */
    int num_posted, num_taken; /* messages [num_taken, num_posted) are posted and not yet taken */
    int num_buffers;
    struct tv_buffer buffers;     /* [num_buffers, message_count] */
    int *owner;                   /* [num_buffers] index of the message in it, or -1 */
    int *buffer_of;               /* [num_messages] or -1 */
    struct tv_request **requests; /* [num_buffers] */
};

/* Buffers whose sends may be under way; NULL requests where none is. */
struct tv_outbox {
    struct tv_comm *comm;
    int num_buffers, next;        /* next: ring position, where a buffer is not tied to a slot */
    struct tv_buffer buffers;     /* [num_buffers, message_count] */
    struct tv_request **requests; /* [num_buffers] */
};

struct tv_executor {
    const struct tv_schedule *schedule;
    int stage;
    int64_t message_count;
    struct tv_stream *stream;
    struct tv_comm *forward, *backward; /* activations; gradients */
    struct tv_inbox x, dy;
    struct tv_outbox y, dx;
    int num_slots;
    int *slot_of;      /* [v * m] slot of a micro-batch in flight */
    int *dx_of;        /* [v * m] dx buffer of a gradient that is made and not yet sent */
    int *slot_is_used; /* [num_slots] */
    int *backwards;    /* [v] done in this walk */
    double busy_seconds, wait_seconds;
};

/* How many buffers of each sort a stage needs; 0 where it has no such messages. */
struct tv_message_plan {
    int x, dy, y, dx;
};
struct tv_message_plan tv_message_plan_of(const struct tv_schedule *schedule, int stage);

TV_MUST_CHECK tv_status_t tv_inbox_create(struct tv_executor *e, struct tv_inbox *box,
                                          tv_action_kind_t kind, struct tv_comm *comm,
                                          int num_buffers);
/* Gives up receives that are still posted. */
void tv_inbox_destroy(struct tv_inbox *box);
void tv_inbox_reset(struct tv_inbox *box);
/* Post receives in list order while buffers are free, up to TV_EARLY_RECEIVES beyond the next to be
 * taken. */
TV_MUST_CHECK tv_status_t tv_inbox_post(struct tv_executor *e, struct tv_inbox *box);
/* Wait for the next message; it stays in its buffer until tv_inbox_release. */
TV_MUST_CHECK tv_status_t tv_inbox_take(struct tv_executor *e, struct tv_inbox *box);
/* Where the message of this chunk and micro-batch lies. NULL when there is none. */
float *tv_inbox_data(const struct tv_executor *e, const struct tv_inbox *box, int chunk, int micro);
void tv_inbox_release(struct tv_inbox *box, int chunk, int micro);

TV_MUST_CHECK tv_status_t tv_outbox_create(struct tv_executor *e, struct tv_outbox *box,
                                           struct tv_comm *comm, int num_buffers);
/* Gives up sends that are still under way. */
void tv_outbox_destroy(struct tv_outbox *box);
/* The buffer `index`, after the send that was in it. */
TV_MUST_CHECK tv_status_t tv_outbox_reserve(struct tv_executor *e, struct tv_outbox *box, int index,
                                            float **data_out);
TV_MUST_CHECK tv_status_t tv_outbox_send(struct tv_executor *e, struct tv_outbox *box, int index,
                                         int peer);
TV_MUST_CHECK tv_status_t tv_outbox_finish(struct tv_executor *e, struct tv_outbox *box);

float *tv_message_data(const struct tv_executor *e, const struct tv_buffer *buffers, int index);
/* Wait and count the time. NULL is done. */
TV_MUST_CHECK tv_status_t tv_message_wait(struct tv_executor *e, struct tv_request **request);
TV_END_C
#endif
