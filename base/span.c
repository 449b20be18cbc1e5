/* base/span.c -- two events a span; their times are read when somebody takes the spans. */
#include "base/span.h"
#include "base/clock.h"
#include "base/device_internal.h"
#include <stdio.h>
#include <stdlib.h>

struct timed {
    struct tv_event *start, *end;
    struct tv_span span;
    int has_end;
};

struct tv_spans {
    struct tv_event *anchor; /* recorded when the host's clock was `anchored_at` */
    double anchored_at;
    int num, capacity;
    struct timed *timed; /* [capacity] */
};

static void drop_all(struct tv_spans *spans)
{
    for (int i = 0; i < spans->num; i++) {
        tv_event_destroy(spans->timed[i].start);
        tv_event_destroy(spans->timed[i].end);
    }
    spans->num = 0;
}

void tv_spans_free(struct tv_spans *spans)
{
    if (spans == NULL)
        return;
    drop_all(spans);
    tv_event_destroy(spans->anchor);
    free(spans->timed);
    free(spans);
}

tv_status_t tv_spans_start(struct tv_stream *stream)
{
    struct tv_device *device = tv_stream_device(stream);
    struct tv_spans **spans = tv_device_spans(device);
    if (*spans != NULL || tv_device_kind(device) == TV_DEVICE_CPU)
        return TV_OK;
    struct tv_spans *made = calloc(1, sizeof(*made));
    if (made == NULL)
        return TV_ERR(TV_NO_MEMORY, "spans: %zu bytes", sizeof(*made));
    tv_status_t status = tv_event_create_timed(device, &made->anchor);
    if (status == TV_OK)
        status = tv_stream_synchronize(stream);
    if (status == TV_OK)
        status = tv_event_record(made->anchor, stream);
    if (status == TV_OK)
        status = tv_stream_synchronize(stream);
    made->anchored_at = tv_clock_seconds();
    if (status != TV_OK) {
        tv_spans_free(made);
        return status;
    }
    *spans = made;
    return TV_OK;
}

static tv_status_t grow(struct tv_spans *spans)
{
    if (spans->num < spans->capacity)
        return TV_OK;
    const int capacity = 2 * spans->capacity + 256;
    struct timed *timed = realloc(spans->timed, (size_t)capacity * sizeof(*timed));
    if (timed == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d spans", capacity);
    spans->timed = timed;
    spans->capacity = capacity;
    return TV_OK;
}

tv_status_t tv_span_begin(struct tv_stream *stream, const char *name, int *span_out)
{
    struct tv_device *device = tv_stream_device(stream);
    struct tv_spans *spans = *tv_device_spans(device);
    tv_device_range_push(device, name);
    *span_out = -1;
    if (spans == NULL)
        return TV_OK;
    TV_TRY(grow(spans));
    struct timed *timed = &spans->timed[spans->num];
    *timed = (struct timed){.span = {.stream = tv_stream_number(stream)}};
    snprintf(timed->span.name, sizeof(timed->span.name), "%s", name);
    snprintf(timed->span.stream_name, sizeof(timed->span.stream_name), "%s",
             tv_stream_name(stream));
    tv_status_t status = tv_event_create_timed(device, &timed->start);
    if (status == TV_OK)
        status = tv_event_create_timed(device, &timed->end);
    if (status == TV_OK)
        status = tv_event_record(timed->start, stream);
    if (status != TV_OK) {
        tv_event_destroy(timed->start);
        tv_event_destroy(timed->end);
        return status;
    }
    *span_out = spans->num++;
    return TV_OK;
}

tv_status_t tv_span_end(struct tv_stream *stream, int span)
{
    struct tv_device *device = tv_stream_device(stream);
    struct tv_spans *spans = *tv_device_spans(device);
    tv_device_range_pop(device);
    if (spans == NULL || span < 0)
        return TV_OK;
    spans->timed[span].has_end = 1;
    return tv_event_record(spans->timed[span].end, stream);
}

static tv_status_t time_span(const struct tv_spans *spans, struct timed *timed, int *done_out)
{
    double start, end;
    *done_out = 0;
    if (timed->has_end)
        TV_TRY(tv_event_is_done(timed->end, done_out));
    if (!*done_out)
        return TV_OK;
    TV_TRY(tv_event_seconds_since(timed->start, spans->anchor, &start));
    TV_TRY(tv_event_seconds_since(timed->end, spans->anchor, &end));
    timed->span.start = spans->anchored_at + start;
    timed->span.end = spans->anchored_at + end;
    return TV_OK;
}

tv_status_t tv_spans_take(struct tv_device *device, struct tv_span **spans_out, int *num_out)
{
    struct tv_spans *spans = *tv_device_spans(device);
    int num = 0, done;
    *spans_out = NULL;
    *num_out = 0;
    if (spans == NULL || spans->num == 0)
        return TV_OK;
    struct tv_span *taken = calloc((size_t)spans->num, sizeof(*taken));
    if (taken == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d spans", spans->num);
    for (int i = 0; i < spans->num; i++) {
        const tv_status_t status = time_span(spans, &spans->timed[i], &done);
        if (status != TV_OK) {
            free(taken);
            return status;
        }
        if (done)
            taken[num++] = spans->timed[i].span;
    }
    drop_all(spans);
    *spans_out = taken;
    *num_out = num;
    return TV_OK;
}
