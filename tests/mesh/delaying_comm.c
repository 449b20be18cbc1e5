/* delaying_comm.c -- the sender writes down when its message arrives, before it is on its way; the
 * receiver looks there once the message below is done. */
#include "mesh/delaying_comm.h"
#include "base/clock.h"
#include "mesh/comm_internal.h"
#include <pthread.h>
#include <stdlib.h>

/* A message under way between two ranks. */
struct arrival {
    struct arrival *next;
    int tag;
    double at;
};

struct delaying_links {
    pthread_mutex_t lock;
    int size;
    double latency, rate;
    double *free_at;           /* [size]: when the rank's link is done with what it has */
    struct arrival **arrivals; /* [size, size]: from, to; in the order of the sends */
};

struct delayed { /* a message's handle */
    struct tv_message inner;
    double arrives_at; /* < 0: not known yet */
};

struct delaying {
    struct tv_comm *inner;
    struct delaying_links *links;
};

tv_status_t delaying_links_create(int size, double latency_seconds, double bytes_per_second,
                                  struct delaying_links **links_out)
{
    struct delaying_links *links = calloc(1, sizeof(*links));
    if (links == NULL)
        return TV_ERR(TV_NO_MEMORY, "links of %d ranks", size);
    links->free_at = calloc((size_t)size, sizeof(*links->free_at));
    links->arrivals = calloc((size_t)(size * size), sizeof(*links->arrivals));
    pthread_mutex_init(&links->lock, NULL);
    links->size = size;
    links->latency = latency_seconds;
    links->rate = bytes_per_second;
    if (links->free_at == NULL || links->arrivals == NULL) {
        delaying_links_destroy(links);
        return TV_ERR(TV_NO_MEMORY, "links of %d ranks", size);
    }
    *links_out = links;
    return TV_OK;
}

void delaying_links_destroy(struct delaying_links *links)
{
    if (links == NULL)
        return;
    for (int i = 0; links->arrivals != NULL && i < links->size * links->size; i++) {
        while (links->arrivals[i] != NULL) {
            struct arrival *first = links->arrivals[i];
            links->arrivals[i] = first->next;
            free(first);
        }
    }
    pthread_mutex_destroy(&links->lock);
    free(links->arrivals);
    free(links->free_at);
    free(links);
}

/* Writes down and returns when `bytes` sent now arrive; < 0 without memory. */
static double depart(struct delaying_links *links, int from, int to, int tag, int64_t bytes)
{
    struct arrival *arrival = calloc(1, sizeof(*arrival));
    if (arrival == NULL)
        return -1;
    pthread_mutex_lock(&links->lock);
    const double now = tv_clock_seconds();
    const double start = links->free_at[from] > now ? links->free_at[from] : now;
    links->free_at[from] = start + (double)bytes / links->rate;
    *arrival = (struct arrival){.tag = tag, .at = links->free_at[from] + links->latency};
    struct arrival **place = &links->arrivals[from * links->size + to];
    while (*place != NULL)
        place = &(*place)->next;
    *place = arrival;
    const double at = arrival->at;
    pthread_mutex_unlock(&links->lock);
    return at;
}

/* When the first message with this tag arrives, taken off the list. */
static double take_arrival(struct delaying_links *links, int from, int to, int tag)
{
    double at = 0;
    pthread_mutex_lock(&links->lock);
    struct arrival **place = &links->arrivals[from * links->size + to];
    while (*place != NULL && (*place)->tag != tag)
        place = &(*place)->next;
    if (*place != NULL) {
        struct arrival *found = *place;
        *place = found->next;
        at = found->at;
        free(found);
    }
    pthread_mutex_unlock(&links->lock);
    return at;
}

static tv_status_t delaying_post(struct tv_comm *comm, struct tv_message *message)
{
    const struct delaying *state = comm->state;
    if (message->handle == NULL)
        message->handle = calloc(1, sizeof(struct delayed));
    struct delayed *delayed = message->handle;
    if (delayed == NULL)
        return TV_ERR(TV_NO_MEMORY, "a delayed message");
    delayed->inner.peer = message->peer;
    delayed->inner.tag = message->tag;
    delayed->inner.is_recv = message->is_recv;
    delayed->inner.data = message->data;
    delayed->inner.bytes = message->bytes;
    delayed->inner.got_bytes = -1;
    delayed->inner.next = NULL;
    atomic_store(&delayed->inner.is_done, 0);
    delayed->arrives_at = -1;
    if (!message->is_recv)
        delayed->arrives_at =
            depart(state->links, comm->rank, message->peer, message->tag, message->bytes);
    return state->inner->ops->post(state->inner, &delayed->inner);
}

static tv_status_t delaying_test(struct tv_comm *comm, struct tv_message *message, int *done_out)
{
    const struct delaying *state = comm->state;
    struct delayed *delayed = message->handle;
    int done = atomic_load(&delayed->inner.is_done);
    *done_out = 0;
    if (!done)
        TV_TRY(state->inner->ops->test(state->inner, &delayed->inner, &done));
    if (!done)
        return TV_OK;
    message->got_bytes = delayed->inner.got_bytes;
    if (delayed->arrives_at < 0)
        delayed->arrives_at = take_arrival(state->links, message->peer, comm->rank, message->tag);
    *done_out = tv_clock_seconds() >= delayed->arrives_at;
    if (*done_out)
        atomic_store(&message->is_done, 1);
    return TV_OK;
}

static void delaying_cancel(struct tv_comm *comm, struct tv_message *message)
{
    const struct delaying *state = comm->state;
    struct delayed *delayed = message->handle;
    if (delayed != NULL && !atomic_load(&delayed->inner.is_done))
        state->inner->ops->cancel(state->inner, &delayed->inner);
}

static tv_status_t delaying_split(struct tv_comm *comm, const int *members, int num_members,
                                  struct tv_comm **comm_out)
{
    (void)comm, (void)members, (void)num_members, (void)comm_out;
    return TV_ERR(TV_UNSUPPORTED, "a delaying communicator cannot be split");
}

static void delaying_end_job(struct tv_comm *comm, int exit_code)
{
    const struct delaying *state = comm->state;
    tv_comm_abort(state->inner, exit_code);
}

static int delaying_is_failed(const struct tv_comm *comm)
{
    const struct delaying *state = comm->state;
    return state->inner->ops->is_failed(state->inner);
}

static void delaying_destroy(struct tv_comm *comm)
{
    free(comm->state);
}

tv_status_t delaying_comm_create(struct tv_comm *inner, struct delaying_links *links,
                                 struct tv_comm **comm_out)
{
    static const struct tv_comm_ops ops = {
        .name = "delaying",
        .collectives = &tv_host_collectives,
        .post = delaying_post,
        .test = delaying_test,
        .cancel = delaying_cancel,
        .split = delaying_split,
        .end_job = delaying_end_job,
        .is_failed = delaying_is_failed,
        .destroy = delaying_destroy,
    };
    struct delaying *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return TV_ERR(TV_NO_MEMORY, "a delaying communicator");
    *state = (struct delaying){inner, links};
    const tv_status_t status =
        tv_comm_alloc(&ops, tv_comm_rank(inner), tv_comm_size(inner), state, comm_out);
    if (status != TV_OK)
        free(state);
    return status;
}
