/* pipeline/executor_messages.c -- receives posted early into buffers of their own, sends that never
 * block compute. */
#include "base/clock.h"
#include "pipeline/executor_internal.h"
#include <stdlib.h>

tv_status_t tv_message_wait(struct tv_executor *e, struct tv_request **request)
{
    int done = 0;
    TV_TRY(tv_request_test(request, &done));
    if (done)
        return TV_OK;
    const double started = tv_clock_seconds();
    const tv_status_t status = tv_request_wait(request);
    e->wait_seconds += tv_clock_seconds() - started;
    return status;
}

float *tv_message_data(const struct tv_executor *e, const struct tv_buffer *buffers, int index)
{
    return (float *)buffers->data + index * e->message_count;
}

static tv_status_t create_buffers(const struct tv_executor *e, int num, struct tv_buffer *buffers)
{
    const size_t bytes = (size_t)num * (size_t)e->message_count * sizeof(float);
    return tv_buffer_create(tv_stream_device(e->stream), bytes, TV_MEM_BUFFERS, buffers);
}

/* Nothing may land in, or be read from, memory that is given back. */
static void destroy_buffers(struct tv_buffer *buffers, struct tv_request **requests, int num)
{
    for (int b = 0; requests != NULL && b < num; b++)
        tv_request_cancel(&requests[b]);
    tv_buffer_destroy(buffers);
    free(requests);
}

tv_status_t tv_inbox_create(struct tv_executor *e, struct tv_inbox *box, tv_action_kind_t kind,
                            struct tv_comm *comm, int num_buffers)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    const size_t places = (size_t)list->num_actions + 1;
    *box = (struct tv_inbox){.comm = comm, .num_buffers = num_buffers};
    box->messages = calloc(places, sizeof(*box->messages));
    box->buffer_of = calloc(places, sizeof(*box->buffer_of));
    box->owner = calloc((size_t)num_buffers + 1, sizeof(*box->owner));
    box->requests = calloc((size_t)num_buffers + 1, sizeof(*box->requests));
    if (!box->messages || !box->buffer_of || !box->owner || !box->requests)
        return TV_ERR(TV_NO_MEMORY, "receives of %d actions", list->num_actions);
    for (int i = 0; i < list->num_actions; i++) {
        if (list->actions[i].kind == kind)
            box->messages[box->num_messages++] = &list->actions[i];
    }
    tv_inbox_reset(box);
    return create_buffers(e, num_buffers, &box->buffers);
}

void tv_inbox_destroy(struct tv_inbox *box)
{
    destroy_buffers(&box->buffers, box->requests, box->num_buffers);
    free(box->messages);
    free(box->buffer_of);
    free(box->owner);
}

void tv_inbox_reset(struct tv_inbox *box)
{
    box->num_posted = box->num_taken = 0;
    for (int b = 0; b < box->num_buffers; b++)
        box->owner[b] = -1;
    for (int i = 0; i < box->num_messages; i++)
        box->buffer_of[i] = -1;
}

static int free_buffer(const struct tv_inbox *box)
{
    for (int b = 0; b < box->num_buffers; b++) {
        if (box->owner[b] < 0)
            return b;
    }
    return -1;
}

tv_status_t tv_inbox_post(struct tv_executor *e, struct tv_inbox *box)
{
    while (box->num_posted < box->num_messages &&
           box->num_posted <= box->num_taken + TV_EARLY_RECEIVES) {
        const int b = free_buffer(box);
        if (b < 0)
            return TV_OK;
        const int i = box->num_posted;
        TV_TRY(tv_comm_recv(box->comm, tv_message_data(e, &box->buffers, b), e->message_count,
                            TV_F32, box->messages[i]->peer, e->stream, &box->requests[b]));
        box->owner[b] = i;
        box->buffer_of[i] = b;
        box->num_posted++;
    }
    return TV_OK;
}

tv_status_t tv_inbox_take(struct tv_executor *e, struct tv_inbox *box)
{
    TV_TRY(tv_inbox_post(e, box));
    if (box->num_taken >= box->num_posted) /* the plan has a buffer for every message in use */
        return TV_ERR(TV_INTERNAL, "stage %d: no buffer for receive %d", e->stage, box->num_taken);
    TV_TRY(tv_message_wait(e, &box->requests[box->buffer_of[box->num_taken]]));
    box->num_taken++;
    return TV_OK;
}

/* Index of the buffer that holds a taken message, or -1. */
static int find(const struct tv_inbox *box, int chunk, int micro)
{
    for (int b = 0; b < box->num_buffers; b++) {
        const int i = box->owner[b];
        if (i >= 0 && i < box->num_taken && box->messages[i]->chunk == chunk &&
            box->messages[i]->micro == micro)
            return b;
    }
    return -1;
}

float *tv_inbox_data(const struct tv_executor *e, const struct tv_inbox *box, int chunk, int micro)
{
    const int b = find(box, chunk, micro);
    return b < 0 ? NULL : tv_message_data(e, &box->buffers, b);
}

void tv_inbox_release(struct tv_inbox *box, int chunk, int micro)
{
    const int b = find(box, chunk, micro);
    if (b >= 0)
        box->owner[b] = -1;
}

tv_status_t tv_outbox_create(struct tv_executor *e, struct tv_outbox *box, struct tv_comm *comm,
                             int num_buffers)
{
    *box = (struct tv_outbox){.comm = comm, .num_buffers = num_buffers};
    box->requests = calloc((size_t)num_buffers + 1, sizeof(*box->requests));
    if (box->requests == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d sends", num_buffers);
    return create_buffers(e, num_buffers, &box->buffers);
}

void tv_outbox_destroy(struct tv_outbox *box)
{
    destroy_buffers(&box->buffers, box->requests, box->num_buffers);
}

tv_status_t tv_outbox_reserve(struct tv_executor *e, struct tv_outbox *box, int index,
                              float **data_out)
{
    TV_TRY(tv_message_wait(e, &box->requests[index]));
    *data_out = tv_message_data(e, &box->buffers, index);
    return TV_OK;
}

tv_status_t tv_outbox_send(struct tv_executor *e, struct tv_outbox *box, int index, int peer)
{
    return tv_comm_send(box->comm, tv_message_data(e, &box->buffers, index), e->message_count,
                        TV_F32, peer, e->stream, &box->requests[index]);
}

tv_status_t tv_outbox_finish(struct tv_executor *e, struct tv_outbox *box)
{
    for (int b = 0; b < box->num_buffers; b++)
        TV_TRY(tv_message_wait(e, &box->requests[b]));
    return TV_OK;
}
