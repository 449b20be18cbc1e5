/* pipeline/executor_messages.c -- seats, message buffers, receives posted early, sends that never
 * block compute. */
#include "pipeline/executor_internal.h"
#include <assert.h>
#include <stdlib.h>

tv_status_t tv_seats_create(int num, struct tv_seats *seats_out)
{
    int *keys = calloc((size_t)num + 1, sizeof(*keys));
    if (keys == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d places", num);
    for (int i = 0; i < num; i++)
        keys[i] = -1;
    *seats_out = (struct tv_seats){num, keys};
    return TV_OK;
}

void tv_seats_destroy(struct tv_seats *seats)
{
    free(seats->keys);
}

int tv_seats_find(const struct tv_seats *seats, int key)
{
    for (int i = 0; i < seats->num; i++) {
        if (seats->keys[i] == key)
            return i;
    }
    return -1;
}

int tv_seats_take(struct tv_seats *seats, int key)
{
    const int seat = tv_seats_find(seats, -1);
    assert(seat >= 0); /* they are counted from the same list that takes them */
    seats->keys[seat] = key;
    return seat;
}

void tv_seats_leave(struct tv_seats *seats, int key)
{
    const int seat = tv_seats_find(seats, key);
    if (seat >= 0)
        seats->keys[seat] = -1;
}

/* ---- buffers ---- */

tv_status_t tv_messages_create(const struct tv_executor *e, int num,
                               struct tv_messages *messages_out)
{
    const size_t bytes = (size_t)num * (size_t)e->message_count * tv_dtype_bytes(e->dtype);
    struct tv_messages messages = {.num = num};
    messages.requests = calloc((size_t)num + 1, sizeof(*messages.requests));
    if (messages.requests == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d messages", num);
    const tv_status_t status =
        tv_buffer_create(tv_stream_device(e->stream), bytes, TV_MEM_BUFFERS, &messages.buffer);
    if (status != TV_OK) {
        free(messages.requests);
        return status;
    }
    *messages_out = messages;
    return TV_OK;
}

/* Nothing may land in, or be read from, memory that is given back. */
void tv_messages_destroy(struct tv_messages *messages)
{
    for (int i = 0; i < messages->num; i++)
        tv_request_cancel(&messages->requests[i]);
    tv_buffer_destroy(&messages->buffer);
    free(messages->requests);
}

void *tv_messages_data(const struct tv_executor *e, const struct tv_messages *messages, int index)
{
    return tv_at(messages->buffer.data, index * e->message_count, e->dtype);
}

/* Only now: most messages are there before anybody asks. */
static void say_what(struct tv_executor *e)
{
    const struct tv_action *a = &e->current;
    const char *what = a->kind == TV_ACT_FORWARD || a->kind == TV_ACT_RECV_FORWARD ||
                               a->kind == TV_ACT_SEND_FORWARD
                           ? "forward"
                           : "backward";
    struct tv_comm *const comms[] = {e->forward, e->backward};
    for (int i = 0; i < 2; i++) {
        if (e->schedule->num_chunks == 1)
            tv_comm_set_context(comms[i], "stage %d, %s of micro-batch %d", e->stage, what,
                                a->micro);
        else
            tv_comm_set_context(comms[i], "stage %d, %s of micro-batch %d, chunk %d", e->stage,
                                what, a->micro, a->chunk);
    }
}

tv_status_t tv_message_wait(struct tv_executor *e, struct tv_request **request)
{
    int done = 0;
    TV_TRY(tv_request_test(request, &done));
    if (done)
        return TV_OK;
    say_what(e);
    return tv_request_wait(request);
}

tv_status_t tv_messages_reserve(struct tv_executor *e, struct tv_messages *messages, int index,
                                void **data_out)
{
    TV_TRY(tv_message_wait(e, &messages->requests[index]));
    *data_out = tv_messages_data(e, messages, index);
    return TV_OK;
}

tv_status_t tv_messages_send(struct tv_executor *e, struct tv_messages *messages, int index,
                             struct tv_comm *comm, int peer)
{
    return tv_comm_send(comm, tv_messages_data(e, messages, index), e->message_count, e->dtype,
                        peer, e->stream, &messages->requests[index]);
}

tv_status_t tv_executor_finish_sends(struct tv_executor *e)
{
    for (int c = 0; c < e->schedule->num_chunks; c++) {
        struct tv_chunk *chunk = &e->chunks[c];
        for (int i = 0; i < chunk->y.num; i++)
            TV_TRY(tv_message_wait(e, &chunk->y.requests[i]));
        for (int i = 0; i < chunk->dx.num; i++)
            TV_TRY(tv_message_wait(e, &chunk->dx.requests[i]));
    }
    return TV_OK;
}

/* ---- inboxes ---- */

tv_status_t tv_inbox_create(struct tv_executor *e, tv_action_kind_t kind, struct tv_comm *comm,
                            struct tv_inbox *box_out)
{
    const int num = tv_plan_inbox(e->schedule, e->stage, kind);
    *box_out = (struct tv_inbox){.comm = comm, .kind = kind};
    TV_TRY(tv_seats_create(num, &box_out->seats));
    return tv_messages_create(e, num, &box_out->messages);
}

void tv_inbox_destroy(struct tv_inbox *box)
{
    tv_messages_destroy(&box->messages);
    tv_seats_destroy(&box->seats);
}

static int key_of(const struct tv_executor *e, int chunk, int micro)
{
    return micro * e->schedule->num_chunks + chunk;
}

tv_status_t tv_inbox_post(struct tv_executor *e, struct tv_inbox *box, int chunk, int micro,
                          int peer)
{
    const int seat = tv_seats_take(&box->seats, key_of(e, chunk, micro));
    box->num_ahead++;
    return tv_comm_recv(box->comm, tv_messages_data(e, &box->messages, seat), e->message_count,
                        e->dtype, peer, e->stream, &box->messages.requests[seat]);
}

tv_status_t tv_inbox_post_ahead(struct tv_executor *e, struct tv_inbox *box)
{
    const struct tv_action_list *list = &e->schedule->stages[e->stage];
    while (box->num_ahead < TV_EARLY_RECEIVES && box->next < list->num_actions) {
        const struct tv_action *a = &list->actions[box->next++];
        if (a->kind == box->kind)
            TV_TRY(tv_inbox_post(e, box, a->chunk, a->micro, a->peer));
    }
    return TV_OK;
}

tv_status_t tv_inbox_wait(struct tv_executor *e, struct tv_inbox *box, int chunk, int micro)
{
    const int seat = tv_seats_find(&box->seats, key_of(e, chunk, micro));
    assert(seat >= 0);
    return tv_message_wait(e, &box->messages.requests[seat]);
}

void *tv_inbox_reserve(const struct tv_executor *e, struct tv_inbox *box, int chunk, int micro)
{
    const int seat = tv_seats_take(&box->seats, key_of(e, chunk, micro));
    return tv_messages_data(e, &box->messages, seat);
}

void *tv_inbox_data(const struct tv_executor *e, const struct tv_inbox *box, int chunk, int micro)
{
    const int seat = tv_seats_find(&box->seats, key_of(e, chunk, micro));
    return seat < 0 ? NULL : tv_messages_data(e, &box->messages, seat);
}

void tv_inbox_release(const struct tv_executor *e, struct tv_inbox *box, int chunk, int micro)
{
    tv_seats_leave(&box->seats, key_of(e, chunk, micro));
}
